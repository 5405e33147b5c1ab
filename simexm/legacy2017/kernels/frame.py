"""The camera of SimExm (2017): its planes, and pixels from voxels.

Spacings are rounded to whole voxels. If the camera is coarser than the ground truth, voxels are summed in bins; if it
is finer, the value of each voxel is added to one random pixel nearby.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simexm.compiled import njit
from simexm.geometry.grid import Triple
from simexm.kernels.numbers.draws import poisson_quantile
from simexm.kernels.numbers.poisson_table import cumulative, tabled_quantile
from simexm.random import Key, philox, unit_float32word

_TABLED = 16  # pixels of a voxel's random shift
_LARGEST_U = 1.0 - 2.0**-33  # of `unit_float32word`


class Frame(NamedTuple):
    """How the camera samples voxels."""

    step: int
    """Every `step`-th plane is imaged, from plane 0."""
    bin: int
    """Rows and columns of voxels that are summed to one pixel."""
    scatter: int
    """Pixels per voxel if the camera is finer, which is also the mean of the random shift; 1 otherwise."""

    def shape(self, crop: Triple) -> Triple:
        """Planes, rows and columns of the image of a crop of this shape."""
        z, y, x = crop
        return -(-z // self.step), -(-y // self.bin) * self.scatter, -(-x // self.bin) * self.scatter

    def voxels(self, start: int, stop: int, size: int) -> tuple[int, int]:
        """Start and stop of the voxels that the pixels start..stop of an axis of `size` voxels depend on."""
        if self.scatter == 1:
            return start * self.bin, min(stop * self.bin, size)
        last = size * self.scatter - 1
        furthest = int(poisson_quantile(_LARGEST_U, float(self.scatter)))
        # values beyond the frame are added to its last pixel
        return max(0, -(-(start - furthest) // self.scatter)), size if stop > last else -(-stop // self.scatter)


def frame(
    voxel_nm: tuple[float, float, float], factor: float, pixel_nm: float, objective_factor: float, plane_nm: float
) -> Frame:
    """The sampling of the 2017 program; the voxel size of the rows counts for both lateral axes, rounding is half to even.

    `pixel_nm` is the camera's pixel, `objective_factor` the magnification, `plane_nm` the spacing of planes in expanded space.
    """
    spacing = pixel_nm / (voxel_nm[1] * factor * objective_factor)
    step = max(1, round(1 / (voxel_nm[0] * factor / plane_nm)))
    return Frame(step, round(spacing), 1) if spacing >= 1 else Frame(step, 1, round(1 / spacing))


@njit(cache=True, nogil=True)
def _bin(image, width, out):  # type: ignore[no-untyped-def]
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            out[y // width, x // width] += image[y, x]


@njit(cache=True, nogil=True)
def _scatter(image, z, y0, x0, crop, pixels, table, last, start, k0, k1, out):  # type: ignore[no-untyped-def]
    """Shift each voxel; `crop` is the crop's first voxel (y, x), `last` the frame's last pixel, `start` the first of `out`."""
    mean = np.float64(pixels)
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            if image[y, x] == 0:
                continue
            words = philox(z, y0 + y, x0 + x, 0, k0, k1)
            row = (y0 + y - crop[0]) * pixels + tabled_quantile(unit_float32word(words[0]), mean, table)
            column = (x0 + x - crop[1]) * pixels + tabled_quantile(unit_float32word(words[1]), mean, table)
            r, c = min(row, last[0]) - start[0], min(column, last[1]) - start[1]
            if 0 <= r < out.shape[0] and 0 <= c < out.shape[1]:
                out[r, c] += image[y, x]


def sample(
    image: NDArray[np.int64],
    origin: Triple,
    crop: tuple[int, int, int, int],
    camera: Frame,
    rows: tuple[int, int],
    columns: tuple[int, int],
    key: Key,
) -> NDArray[np.int64]:
    """Return one plane of pixels, int64.

    `image` holds the voxels, int64, in the rows and columns `Frame.voxels` of the pixels; `origin` is the position of
    the first one in the volume, z y x. `crop` is the crop's first row, first column, rows and columns, in voxels of the
    volume. `rows` and `columns` are start and stop of the pixels; `key` is that of the channel's stream, for scattered
    voxels.
    """
    z, y0, x0 = origin
    out = np.zeros((rows[1] - rows[0], columns[1] - columns[0]), np.int64)
    if camera.scatter == 1:
        _bin(image, camera.bin, out)
    else:
        last = crop[2] * camera.scatter - 1, crop[3] * camera.scatter - 1
        start = rows[0], columns[0]
        table = cumulative(np.array([float(camera.scatter)]), _TABLED)[0]
        _scatter(image, z, y0, x0, crop[:2], camera.scatter, table, last, start, *key, out)
    return out
