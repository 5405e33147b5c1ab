"""Tables of a point spread function on pixels, as coefficients of cubic B-splines."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
PER_PIXEL = 4
"""Nodes for each pixel: splines between them are then exact to 1e-4 of the peak for pixels of up to half the spot's width."""
SPARE = 2
"""Planes beyond each limit."""
_POINTS = 5  # of the quadrature over a pixel, along each side
_AT_ONCE = 4  # planes

Images = Callable[[Array, Array, Array], Array]
"""Light per square nm at distances z (nz,) from the plane, and places y (ny,), x (nx,) from the axis, nm: (nz, ny, nx)."""


class Response(NamedTuple):
    """A point spread function on pixels.

    Attributes
    ----------
    coefficients
        Of splines, (nz, n, n): the share of an emitter's light in a pixel; the middle node is the pixel's own centre.
    pixel_nm, plane_nm
        Side of a pixel, and distance of planes.
    first_nm
        Distance from the focal plane, deeper positive, of the first plane.
    """

    coefficients: Array
    pixel_nm: float
    plane_nm: float
    first_nm: float

    def plane(self, z_nm: float | Array) -> Array:
        """Return a distance from the focal plane in planes of the table."""
        return np.asarray((np.asarray(z_nm) - self.first_nm) / self.plane_nm)


def tabulate(images: Images, pixel_nm: float, side: int, z_nm: tuple[float, float, float] | None) -> Response:
    """Integrate over pixels and find the coefficients, for squares of `side` pixels.

    `z_nm` is the lowest and highest distance from the plane, and the step; None for a table of the focal plane alone.
    """
    from scipy.ndimage import spline_filter1d

    reach = (side + 1) * PER_PIXEL + 5
    place = np.arange(-reach, reach + 1) * (pixel_nm / PER_PIXEL)
    points, weights = np.polynomial.legendre.leggauss(_POINTS)
    z: Array = np.zeros(1)
    first, step = 0.0, 1.0
    if z_nm is not None:
        low, high, step = z_nm
        first = low - SPARE * step
        z = np.asarray(first + step * np.arange(math.ceil((high - low) / step) + 2 * SPARE + 1), np.float64)
    line = (place[:, None] + points * (pixel_nm / 2)).ravel()
    table = np.empty((z.size, place.size, place.size))
    for k in range(0, z.size, _AT_ONCE):
        light = images(z[k : k + _AT_ONCE], line, line).reshape(-1, place.size, _POINTS, place.size, _POINTS)
        table[k : k + _AT_ONCE] = np.einsum("kiajb,a,b->kij", light, weights, weights * pixel_nm**2 / 4)
    for axis in range(table.ndim):
        if table.shape[axis] > 1:
            table = spline_filter1d(table, 3, axis, mode="mirror")
    return Response(np.ascontiguousarray(table), pixel_nm, step, first)


def round_images(radial: Callable[[Array, Array], Array]) -> Images:
    """Images that are symmetric about the axis, from a function of distances (nz,) and radii (nr,) to light (nz, nr)."""
    from scipy.interpolate import CubicSpline

    def images(z: Array, y: Array, x: Array) -> Array:
        wanted = np.hypot(y[:, None], x)
        r = np.arange(0.0, wanted.max() + 20.0, 5.0)
        found: Array = CubicSpline(r, radial(z, r), axis=1)(wanted.ravel())
        return found.reshape(len(z), *wanted.shape)

    return images


def square_images(squares: Callable[[Array, float], tuple[float, Array]]) -> Images:
    """Images on squares, (nz, n, n) about pixel n // 2, from a function of distances and a radius to their pitch and values."""
    from scipy.interpolate import RectBivariateSpline

    def images(z: Array, y: Array, x: Array) -> Array:
        pitch, values = squares(z, float(max(np.abs(y).max(), np.abs(x).max())))
        place = (np.arange(values.shape[1]) - values.shape[1] // 2) * pitch
        (rows, to_row), (columns, to_column) = (
            np.unique(np.clip(line, place[0], place[-1]), return_inverse=True) for line in (y, x)
        )
        found = [RectBivariateSpline(place, place, one, kx=5, ky=5)(rows, columns) for one in values]
        return np.stack(found)[:, to_row][:, :, to_column]

    return images
