"""A script that an experienced Dask user might write instead of using simexm: from labels to a blurred, noisy image in Zarr.

python -m benchmarks.by_hand LABELS.zarr KERNEL.npy OUT.zarr

Pixels are voxels and planes are means of whole voxels: 480 x 128 x 128 nm (expanded) instead of 500 x 162.5 x 162.5,
since ratios such as 3.125 and 1.27 do not fit into chunks. There is no ground truth and no resume, and other chunks
give other noise.
"""

from __future__ import annotations

import argparse
from typing import Any

import dask.array as da
import numpy as np
import zarr
from dask.distributed import Client, LocalCluster
from numpy.typing import NDArray
from scipy.signal import fftconvolve

from benchmarks.membranes import VOXEL_NM, dyes

PLANES = 3
"""Voxels per plane of the image."""
OFFSET, READ_NOISE = 100.0, 1.5
CHUNKS = (192, 256, 256)
"""Voxels that are convolved together."""
STORED = (32, 128, 128)
LEVELS = 4
UM = tuple(v / 1000 for v in VOXEL_NM)


def place(labels: NDArray[Any], block_info: Any = None) -> NDArray[np.float32]:
    """Dyes of one chunk of labels with a halo of one voxel."""
    number = dyes(labels, (1, *block_info[0]["chunk-location"]))
    return number[1:-1, 1:-1, 1:-1]


def blur(number: NDArray[np.float32], kernel: NDArray[np.float32]) -> NDArray[np.float32]:
    """Photo-electrons of a chunk with the kernel's halo."""
    return fftconvolve(number, kernel, mode="valid")


def count(expected: NDArray[np.float32], block_info: Any = None) -> NDArray[np.uint16]:
    """Add shot noise, read noise and offset."""
    rng = np.random.default_rng((2, *block_info[0]["chunk-location"]))
    electrons = rng.poisson(np.maximum(expected, 0)).astype(np.float32)
    electrons += READ_NOISE * rng.standard_normal(electrons.shape, np.float32) + OFFSET
    return np.clip(np.rint(electrons), 0, 65535).astype(np.uint16)


def simulate(labels: da.Array, kernel: NDArray[np.float32]) -> da.Array:
    """The image, uint16, (z, y, x)."""
    options: dict[str, Any] = {"boundary": 0, "trim": False, "dtype": np.float32, "chunks": labels.chunks}
    dye = labels.map_overlap(place, depth=1, **options)  # type: ignore[no-untyped-call]
    reach = tuple(n // 2 for n in kernel.shape)
    light = dye.map_overlap(blur, kernel=kernel, depth=reach, **options)
    planes = da.coarsen(np.mean, light, {0: PLANES}, trim_excess=True)
    image: da.Array = planes.map_blocks(count, dtype=np.uint16)
    return image


def write(image: da.Array, path: str) -> None:
    """Write the image as OME-Zarr 0.5, each level from the one before."""
    scale = np.array([PLANES * UM[0], UM[1], UM[2]])
    group = zarr.open_group(path, mode="w")
    factors, datasets = np.ones(3), []
    for level in range(LEVELS):
        if level:
            above = da.from_zarr(path, component=str(level - 1)).rechunk((128, 256, 256))  # type: ignore[no-untyped-call]
            step = np.where(scale * factors < 2 * (scale * factors).min(), 2, 1)
            mean = da.coarsen(np.mean, above, {a: int(n) for a, n in enumerate(step)}, trim_excess=True)
            image, factors = np.rint(mean).astype(np.uint16), factors * step
        stored = group.create_array(str(level), shape=image.shape, chunks=STORED, dtype="uint16")
        chunks = tuple(-(-c[0] // s) * s for c, s in zip(image.chunks, STORED, strict=True))
        image.rechunk(chunks).store(stored, lock=False)  # type: ignore[no-untyped-call]
        transforms = [
            {"type": "scale", "scale": [float(s) for s in scale * factors]},
            {"type": "translation", "translation": [float(s) / 2 for s in scale * factors]},
        ]
        datasets.append({"path": str(level), "coordinateTransformations": transforms})
    axes = [{"name": a, "type": "space", "unit": "micrometer"} for a in "zyx"]
    ome: dict[str, Any] = {
        "version": "0.5",
        "multiscales": [{"name": "by hand", "axes": axes, "datasets": datasets, "type": "mean"}],
    }
    group.attrs["ome"] = ome


def main() -> None:
    """Parse, run on two workers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels")
    parser.add_argument("kernel")
    parser.add_argument("out")
    parser.add_argument("--chunks", type=int, nargs=3, default=CHUNKS)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    kernel = np.load(given.kernel).astype(np.float32)
    with (
        LocalCluster(n_workers=given.workers, threads_per_worker=1, dashboard_address=None) as cluster,  # type: ignore[no-untyped-call]
        Client(cluster),  # type: ignore[no-untyped-call]
    ):
        labels = da.from_zarr(given.labels, component="0").rechunk(tuple(given.chunks))  # type: ignore[no-untyped-call]
        write(simulate(labels, kernel), given.out)


if __name__ == "__main__":
    main()
