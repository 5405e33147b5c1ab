"""Memory and time of aligning and applying at sizes that do not fit into memory.

    python -m benchmarks.registration_scale align FOLDER --side 256 --workers 2
    python -m benchmarks.registration_scale apply FOLDER --blocks 100000

`align` makes a pair of nuclei plane by plane, with a displacement that is known, aligns it in blocks and prints the largest
memory of a worker (VmHWM) beside the prediction, and the residual. `apply` looks up a volume in so many blocks of 32 x 32
voxels and prints the memory of the process (VmRSS) on the way. Writing the coarse levels at the end takes some more, whatever
the number of blocks.
"""

from __future__ import annotations

import argparse
import math
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks.registration import nuclei
from simexm.analysis.registration.align import Align, Blocks
from simexm.analysis.registration.apply import Apply
from simexm.analysis.registration.sides import Side
from simexm.analysis.registration.transform import StoredTransform
from simexm.jobs.journal import Journal, Record
from simexm.result.result import Result

MiB = 2**20
PERIOD = 96
SIDE = Side(voxel_um=(1.0, 1.0, 1.0))
_BEND, _WAVES = 2.0, (2, 3, 2)
"""Largest displacement, voxels, and its periods over the volume along z, y, x."""


def displaced(points: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """Where points of the fixed volume, (3, ...), voxels, lie in the moving one."""
    waves = [np.sin(2 * np.pi * n * points[(a + 1) % 3] / side + a) for a, n in enumerate(_WAVES)]
    return np.asarray(points + _BEND * np.stack(waves))


def make_pair(folder: Path, side: int) -> None:
    """Write fixed.npy and moving.npy: periodic tissue, once displaced, with noise."""
    random = np.random.default_rng(0)
    tissue = nuclei(random, PERIOD)
    for name in ("fixed", "moving"):
        out = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.uint16, (side,) * 3)
        for z in range(0, side, 8):
            grid = np.ogrid[z : min(z + 8, side), :side, :side]
            points = np.stack(np.broadcast_arrays(*grid)).astype(np.float64)
            at = displaced(points + 0.5, side) - 0.5 if name == "fixed" else points
            light = ndimage.map_coordinates(tissue, at, order=1, mode="grid-wrap", output=np.float32)
            noisy = 1000 * light + 100 + random.normal(0, 40, light.shape)
            out[z : z + 8] = np.clip(np.rint(noisy), 0, 65535)
        out.flush()


def align(folder: Path, side: int, workers: int, voxels: int) -> float:
    """Align a pair in blocks; print and return the largest share of the predicted memory that a worker took."""
    make_pair(folder, side)
    (folder / "start.txt").write_text("1 0 0 0\n0 1 0 0\n0 0 1 0\n")
    settings = Align(fixed=SIDE, moving=SIDE, start=str(folder / "start.txt"), steps=(), blocks=Blocks(voxels=voxels))
    begin = time.monotonic()
    result = settings.run(
        folder / "fixed.npy", folder / "moving.npy", output=folder / "aligned.zarr", workers=workers, quiet=True
    )
    seconds = time.monotonic() - begin
    records = [r.result for r in _records(result)]
    peak, predicted = max(r["peak_bytes"] for r in records), records[0]["predicted_bytes"]
    found = StoredTransform(str(result.path))
    assert found.frame is not None
    errors = []
    for z in range(0, side, 16):
        points = found.frame.centres((z, 0, 0), (1, side, side))
        errors.append(np.linalg.norm(found.near(points)(points) - displaced(points, side), axis=0).ravel())
    rms = math.sqrt(float((np.concatenate(errors) ** 2).mean()))
    print(
        f"{side}^3 voxels, {len(records)} blocks of {voxels}, {workers} workers: {seconds:.0f} s, {peak / MiB:.0f} MiB each of "
        f"{predicted / MiB:.0f} predicted; residual {rms:.3f} voxels rms"
    )
    return float(peak / predicted)


def _records(result: Result) -> Iterator[Record]:
    place = result.place
    yield from Journal.open(place.journal, result.provenance["hash"], place.scratch, 1 << 30).records()


_MICROMETRE = {"axes": "ZYX", "PhysicalSizeX": 1.0, "PhysicalSizeY": 1.0, "PhysicalSizeZ": 1.0}


def resident() -> int:
    """Resident memory of this process, bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


def apply(folder: Path, blocks: int) -> int:
    """Look up a small volume in many blocks; return the largest resident memory, bytes."""
    edge = 32 * math.ceil(math.sqrt(blocks))
    np.save(folder / "small.npy", np.random.default_rng(0).integers(0, 255, (8, 64, 64), np.uint8))
    tifffile.memmap(folder / "like.tif", shape=(1, edge, edge), dtype=np.uint8, ome=True, metadata=_MICROMETRE).flush()
    scale = 64 / edge
    (folder / "start.txt").write_text(f"1 0 0 0\n0 {scale} 0 0\n0 0 {scale} 0\n")
    settings = Apply(like=str(folder / "like.tif"), volume=SIDE, block_voxels=32)
    seen: list[int] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.25):
            seen.append(resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    begin = time.monotonic()
    try:
        settings.run(folder / "start.txt", folder / "small.npy", output=folder / "moved.zarr", quiet=True)
    finally:
        done.set()
        watcher.join()
    tenth = max(1, len(seen) // 10)
    early, late = max(seen[tenth : 2 * tenth]), max(seen[-tenth:])
    print(
        f"{(edge // 32) ** 2} blocks: {time.monotonic() - begin:.0f} s; resident {early / MiB:.0f} MiB in the second tenth, "
        f"{late / MiB:.0f} MiB in the last"
    )
    return max(seen)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("align", "apply"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--block", type=int, default=128)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--blocks", type=int, default=100_000)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    if given.what == "align":
        align(given.folder, given.side, given.workers, given.block)
    else:
        apply(given.folder, given.blocks)


if __name__ == "__main__":
    main()
