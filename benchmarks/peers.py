"""The same specimen through simexm, microsim, and a script written by hand, from labels on disk to an image on disk.

python -m benchmarks.peers segmentation.tif                    # 256^3 voxels from the middle of the cortex volume
python -m benchmarks.peers segmentation.tif --size 512         # all of it
python -m benchmarks.peers segmentation.tif --microsim PYTHON  # what has microsim and tensorstore; else made

Everything runs on the same two cores, one after the other, in turns. Every time is of a whole command; start-up is what the same
command takes for 64^3 voxels. The simulation grid is that on which dyes lie when they are blurred: for microsim and the script
that of the voxels, for simexm its own finer one (see `benchmarks.limit`).
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import yaml

from benchmarks.end_to_end import SPEC, command
from benchmarks.measure import Measured, heading, measured
from benchmarks.membranes import FACTOR, VOXEL_NM
from simexm.api import Simulation
from simexm.stages.microscope.confocal import Confocal
from simexm.stages.microscope.optics_plan import OpticsPlan

ROOT = Path(__file__).resolve().parents[1]
NUMERICAL_APERTURE = 1.15
ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}
TINY = 64
ORIGINAL = {
    256: "SimExm (2017), for orientation, on another machine of 2 cores: 70 s, 2.1 GB",
    512: "SimExm (2017), for orientation, on another machine of 2 cores: 1909 s, 12.7 GB",
}


def prepare(tiff: Path, size: int, folder: Path) -> Simulation:
    """Labels of a cube from the volume's middle, parameters of the peers, and the simulation of simexm."""
    volume = tifffile.imread(tiff)
    first = [(n - min(size, n)) // 2 for n in volume.shape]
    tifffile.imwrite(folder / "cut.tif", volume[tuple(slice(a, a + size) for a in first)], compression="zlib")
    command("ingest", "cut.tif", "-o", "cortex.zarr", "--voxel-size", *map(str, VOXEL_NM), cwd=folder)
    spec: dict[str, Any] = yaml.safe_load(SPEC.read_text())
    spec["source"] = str(folder / "cortex.zarr")
    (folder / "benchmark.yaml").write_text(yaml.safe_dump(spec))
    simulation = Simulation.load(folder / "benchmark.yaml")
    optics, dye = simulation.microscope, next(iter(simulation.fluorophores().values()))
    assert isinstance(optics, Confocal)
    channel = optics.channels[0]
    told = {
        **dye.model_dump(include={"name", "extinction_per_M_per_cm", "quantum_yield", "lifetime_ns"}),
        "excitation": list(zip(*dye.excitation, strict=True)),
        "emission": list(zip(*dye.emission, strict=True)),
        "laser_wavelength_nm": channel.laser_wavelength_nm,
        "band_nm": channel.band_nm,
        "numerical_aperture": optics.numerical_aperture,
        "refractive_index": optics.refractive_index,
    }
    (folder / "dye.json").write_text(json.dumps(told))
    np.save(folder / "kernel.npy", kernel(simulation))
    return simulation


def kernel(simulation: Simulation) -> np.ndarray[Any, np.dtype[np.float32]]:
    """simexm's truncated response on the voxels: photo-electrons per dye and pixel, float32, (z, y, x)."""
    optics, plan = simulation.microscope, simulation.plan().imaging.formation
    assert isinstance(optics, Confocal)
    assert isinstance(plan, OpticsPlan)
    channel, dye = optics.channels[0], next(iter(simulation.fluorophores().values()))
    z_nm, y_nm, x_nm = (
        np.arange(-math.floor(reach / (v * FACTOR)), math.floor(reach / (v * FACTOR)) + 1) * float(v * FACTOR)
        for reach, v in zip((plan.range_nm, plan.radius_nm, plan.radius_nm), VOXEL_NM, strict=True)
    )
    r = np.hypot(y_nm[:, None], x_nm[None, :])
    radii = np.arange(0.0, r.max() + 20, 10)
    table = optics.response(channel, dye, plan.pairs[0].emission_nm, np.abs(z_nm), radii) * optics.pixel_size_nm**2
    table *= plan.pairs[0].efficiency
    return np.stack([np.interp(r, radii, row) for row in table]).astype(np.float32)


def own_environment(folder: Path) -> Path:
    """A Python with microsim, from PyPI."""
    measured([sys.executable, "-m", "venv", "microsim"], folder)
    measured([str(folder / "microsim/bin/pip"), "install", "-q", "microsim", "tensorstore"], folder)
    return folder / "microsim/bin/python"


def grid_of(simulation: Simulation) -> tuple[int, int]:
    """Voxels, and nodes of simexm's simulation grid over the image."""
    plan = simulation.plan()
    optics = plan.imaging.formation
    assert isinstance(optics, OpticsPlan)
    return plan.geometry.crop.size, math.prod(n * m for n, m in zip(plan.shape, optics.subdivision, strict=True))


def runs(
    folder: Path, python: Path | None, chunks: list[str], cores: list[int], fine: OpticsPlan | None = None
) -> dict[str, Callable[[], Measured]]:
    """Commands to run on these cores, by name; with `fine`, microsim also on simexm's grid and with an equally wide response."""
    here = {**ONE_THREAD, "PYTHONPATH": str(ROOT)}

    def run(*words: str, clear: str, **more: str) -> Measured:
        shutil.rmtree(folder / clear, ignore_errors=True)
        return measured(words, folder, here | more, cores)

    hand = ["-m", "benchmarks.by_hand", "cortex.zarr", "kernel.npy", "hand.zarr", "--chunks", *chunks]
    peer = ["-m", "benchmarks.microsim_peer", "cortex.zarr", "dye.json", "microsim.zarr"]
    found: dict[str, Callable[[], Measured]] = {
        "simexm": lambda: run(
            sys.executable, "-m", "simexm.cli", "run", "benchmark.yaml", "--overwrite", "-q", clear="benchmark.zarr"
        ),
        "by hand": lambda: run(sys.executable, *hand, clear="hand.zarr"),
    }
    if python:
        found["microsim"] = lambda: run(str(python), *peer, clear="microsim.zarr")
        if fine:
            # its own default is a radius of 6 Airy units; in its terms, that of simexm's response
            units = fine.radius_nm / (0.61 * fine.pairs[0].emission_nm / NUMERICAL_APERTURE)
            same = ["--grid-nm", *(str(float(n)) for n in fine.node_nm), "--downscale", *map(str, fine.subdivision)]
            found["microsim on simexm's grid"] = lambda: run(
                str(python), *peer, *same, clear="microsim.zarr", MICROSIM_MAX_PSF_RADIUS_AUS=f"{units:.1f}"
            )
    return found


def main() -> None:
    """Parse, run in turns, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tiff", type=Path)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--cores", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--chunks", nargs=3, default=["192", "256", "256"], help="of the script by hand")
    parser.add_argument("--microsim", type=Path, metavar="PYTHON")
    parser.add_argument(
        "--same-grid", action="store_true", help="microsim on simexm's grid, too: 2 GB at 256^3, 8 at 384^3"
    )
    given = parser.parse_args()
    print(heading(given.cores))
    with tempfile.TemporaryDirectory() as name:
        folder, tiny = Path(name) / "whole", Path(name) / "tiny"
        for each in (folder, tiny):
            each.mkdir()
        python = given.microsim or own_environment(Path(name))
        simulation = prepare(given.tiff, given.size, folder)
        prepare(given.tiff, TINY, tiny)
        voxels, nodes = grid_of(simulation)
        optics = simulation.plan().imaging.formation
        assert isinstance(optics, OpticsPlan)
        fine = optics if given.same_grid else None
        startup = {
            what: run().seconds
            for _ in range(2)
            for what, run in runs(tiny, python, given.chunks, given.cores, fine).items()
        }
        found: dict[str, list[Measured]] = {what: [] for what in startup}
        for _ in range(given.repeat):
            for what, run in runs(folder, python, given.chunks, given.cores, fine).items():
                found[what].append(run())
                print(f"  {what}: {found[what][-1].seconds:.1f} s", flush=True)
        print(
            f"{given.size}^3 voxels: {voxels / 1e6:.1f} million; simexm's simulation grid has {nodes / 1e6:.1f} million nodes"
        )
        for what, times in found.items():
            own = nodes if "simexm" in what else voxels
            seconds = statistics.median(t.seconds for t in times)
            cores = statistics.median(t.core_seconds for t in times)
            print(
                f"{what}: {', '.join(f'{t.seconds:.1f}' for t in times)} s wall, start-up {startup[what]:.1f} s, "
                f"{cores:.1f} core-seconds; "
                f"{voxels / seconds / 1e6:.2f} million voxels/s, {own / seconds / 1e6:.2f} million of its own grid/s; "
                f"peak {max(t.peak_bytes for t in times) / 1e6:.0f} MB"
            )
        for what in (w for w in found if w != "simexm"):
            grid = 1 if "simexm" in what else nodes / voxels
            # of one turn each, so that what slows both down cancels
            ratio = [b.seconds / a.seconds for a, b in zip(found["simexm"], found[what], strict=True)]
            net = [
                (b.seconds - startup[what]) / (a.seconds - startup["simexm"])
                for a, b in zip(found["simexm"], found[what], strict=True)
            ]
            memory = max(t.peak_bytes for t in found["simexm"]) / max(t.peak_bytes for t in found[what])
            print(
                f"simexm against {what}: {_spread(ratio)} times per voxel of the specimen, {_spread(net)} with start-up apart; "
                f"{_spread([r * grid for r in ratio])} times per node of each one's own grid; "
                f"{memory:.2f} of its memory"
            )
    print(ORIGINAL.get(given.size, ""))


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


if __name__ == "__main__":
    main()
