"""Brightness of many overlapping spots by non-negative least squares."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from simexm.compiled import njit

Array = NDArray[np.float64]
SWEEPS = 2000
_SETTLED = 1e-5

Response = Callable[[Array, Array], Array]


def spot_profile(response: Response, ball_nm: float, pixel_nm: float, z_nm: Array, r_nm: Array) -> Array:
    """Response of a pixel at depth z and radius r from the centre of a ball of dyes, per dye, (nz, nr).

    `response` takes depths (n,) and radii (m,) and returns values per dye and nm^2 of pixel, (n, m). `ball_nm` is the
    radius of the evenly filled ball, `pixel_nm` the side of a pixel; depths and radii ascend from 0, evenly spaced.
    """
    from scipy.ndimage import map_coordinates

    line = (np.arange(9) - 4) / 4.5
    z, y, x = (a.ravel() for a in np.meshgrid(line, line, line, indexing="ij"))
    inside = z * z + y * y + x * x <= 1
    depth, side, along = z[inside] * ball_nm, y[inside] * ball_nm, x[inside] * ball_nm
    # the pixel is represented by four Gaussian quadrature points, at 1 / sqrt(3) of half its side
    step = pixel_nm / 2 / np.sqrt(3)
    dz, dr = z_nm[1] - z_nm[0], r_nm[1] - r_nm[0]
    far_z = np.arange(0, z_nm[-1] + ball_nm + 2 * dz, dz)
    far_r = np.arange(0, r_nm[-1] + ball_nm + pixel_nm + 2 * dr, dr)
    table = response(far_z, far_r) * pixel_nm**2
    profile = np.zeros((z_nm.size, r_nm.size))
    for a in (-step, step):
        for b in (-step, step):
            for dye in range(depth.size):
                radius = np.hypot(r_nm + along[dye] + a, side[dye] + b)
                at = np.broadcast_arrays(np.abs(z_nm + depth[dye])[:, None] / dz, radius[None, :] / dr)
                profile += map_coordinates(table, at, order=1)
    return profile / (4 * depth.size)


@njit(cache=True, nogil=True)
def design(pixels, spots, profile, step_z, step_r, reach_z, reach_r, rows, columns, values):  # type: ignore[no-untyped-def]
    """Write the response of each pixel to each spot as (row, column, value), as many as fit; return their number.

    `pixels` and `spots` are positions in nm, (n, 3), ascending along z; `profile` comes from `spot_profile`.
    """
    n = 0
    first = 0
    for p in range(pixels.shape[0]):
        while first < spots.shape[0] and spots[first, 0] < pixels[p, 0] - reach_z:
            first += 1
        for s in range(first, spots.shape[0]):
            dz = abs(spots[s, 0] - pixels[p, 0])
            if spots[s, 0] > pixels[p, 0] + reach_z:
                break
            r = np.hypot(spots[s, 1] - pixels[p, 1], spots[s, 2] - pixels[p, 2])
            if r >= reach_r:
                continue
            u, v = dz / step_z, r / step_r
            i, j = int(u), int(v)
            if i + 1 >= profile.shape[0] or j + 1 >= profile.shape[1]:
                continue
            u -= i
            v -= j
            if n < rows.size:
                rows[n] = p
                columns[n] = s
                near = (1 - v) * profile[i, j] + v * profile[i, j + 1]
                far = (1 - v) * profile[i + 1, j] + v * profile[i + 1, j + 1]
                values[n] = (1 - u) * near + u * far
            n += 1
    return n


@njit(cache=True, nogil=True)
def _descend(starts, columns, values, wanted, found):  # type: ignore[no-untyped-def]
    """Solve gram @ found = wanted, found >= 0, by coordinate descent; return the number of sweeps."""
    spots, sides = wanted.shape
    for sweep in range(SWEEPS):
        moved = 0.0
        most = 0.0
        for s in range(spots):
            own = 0.0
            rest = wanted[s].copy()
            for e in range(starts[s], starts[s + 1]):
                if columns[e] == s:
                    own = values[e]
                for k in range(sides):
                    rest[k] -= values[e] * found[columns[e], k]
            if own <= 0.0:
                continue
            for k in range(sides):
                better = max(0.0, found[s, k] + rest[k] / own)
                moved = max(moved, abs(better - found[s, k]))
                most = max(most, better)
                found[s, k] = better
        if moved <= _SETTLED * most:
            return sweep + 1
    return SWEEPS


def brightnesses(pixels: Array, data: Array, spots: Array, profile: Array, step_nm: tuple[float, float]) -> Array:
    """Non-negative least-squares brightness of each spot for each right-hand side, (spots, k).

    Positions of pixels (n, 3) and spots (m, 3) are in nm, ascending along z; `data` are pixel values, (n, k). `profile`
    is the response to a spot of brightness 1, on a grid of depths and radii with steps `step_nm`.
    """
    from scipy import sparse

    reach = (profile.shape[0] - 1) * step_nm[0], (profile.shape[1] - 1) * step_nm[1]
    room = 64 * max(1, len(pixels))
    while True:
        rows, columns, values = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room)
        n = design(pixels, spots, profile, *step_nm, *reach, rows, columns, values)
        if n <= room:
            break
        room = n
    seen = sparse.csr_array((values[:n], (rows[:n], columns[:n])), shape=(len(pixels), len(spots)))
    gram = sparse.csr_array(seen.T @ seen)
    found = np.zeros((len(spots), data.shape[1]))
    _descend(gram.indptr, gram.indices, gram.data, np.ascontiguousarray(seen.T @ data), found)
    return found
