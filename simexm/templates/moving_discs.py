"""Moving cells in the manner of the Cell Tracking Challenge: discs that wander over a dish, one time point a plane.

python -m simexm.templates.moving_discs discs.tif --shape 150 773 739 --cells 142
simexm ingest discs.tif -o discs.zarr --voxel-size 500 125 125
simexm run pipelines/ctc.yaml
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np
import tifffile
from numpy.typing import NDArray


def planes(shape: tuple[int, int, int], cells: int, seed: int = 0) -> Iterator[NDArray[np.uint16]]:
    """Label planes (y, x) of uint16, one a time point; where discs overlap, the higher id is on top."""
    times, height, width = shape
    random = np.random.default_rng(seed)
    radius = random.uniform(0.014, 0.032, cells) * min(height, width)
    place = random.uniform(0, 1, (cells, 2)) * (height, width)
    speed = random.normal(0, 0.0015 * min(height, width), (cells, 2))
    rows, columns = np.mgrid[:height, :width]
    for _ in range(times):
        plane = np.zeros((height, width), np.uint16)
        for i in range(cells):
            (y, x), r = place[i], radius[i]
            top, left = max(0, int(y - r)), max(0, int(x - r))
            part = np.s_[top : int(y + r) + 2, left : int(x + r) + 2]
            plane[part][(rows[part] - y) ** 2 + (columns[part] - x) ** 2 < r * r] = i + 1
        yield plane
        speed += random.normal(0, 0.0004 * min(height, width), (cells, 2))
        place = np.abs(place + speed) % (height, width)


def main() -> None:
    """Write a compressed TIFF stack."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output")
    parser.add_argument("--shape", nargs=3, type=int, default=(150, 773, 739), metavar=("T", "Y", "X"))
    parser.add_argument("--cells", type=int, default=142)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    t, y, x = given.shape
    stack = planes((t, y, x), given.cells, given.seed)
    tifffile.imwrite(given.output, stack, shape=(t, y, x), dtype=np.uint16, compression="zlib")


if __name__ == "__main__":
    main()
