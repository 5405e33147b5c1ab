"""The table of objects: integer sums that blocks add up exactly, and the properties that follow from them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.geometry.grid import Triple
from simexm.jobs.keyed_rows import Keyed, Reducer
from simexm.kernels.objects.contacts import CROSSINGS, areas_um2, crofton_areas_um2, face_areas_um2
from simexm.kernels.objects.shapes import MOMENTS, deepest_voxel, principal_axes

_LOW_BITS = 32
_HIGH, _LOW = tuple(f"{name}_high" for name in MOMENTS), tuple(f"{name}_low" for name in MOMENTS)
_SUMS: dict[str, Reducer] = dict.fromkeys(("voxels", *_HIGH, *_LOW, *CROSSINGS), "sum")
_LEAST: dict[str, Reducer] = dict.fromkeys(("z0", "y0", "x0"), "min")
_MOST: dict[str, Reducer] = dict.fromkeys(("z1", "y1", "x1", "deepest"), "max")
OBJECTS = Keyed(("id",), {**_SUMS, **_LEAST, **_MOST})
"""Sums by id. Moments of large objects exceed 64 bits, so each is stored in two columns: high * 2^32 + low."""


def filled(
    ids: NDArray[np.uint64],
    voxels: NDArray[np.int64],
    sums: NDArray[np.int64],
    boxes: NDArray[np.int64],
    crossings: NDArray[np.int64],
    best: NDArray[np.int64],
    corner: Triple,
) -> dict[str, NDArray[Any]]:
    """Columns of `OBJECTS` for the components of a block that begins at `corner`; sums and boxes are in the block."""
    high, low = _moved(voxels, sums, corner)
    made: dict[str, NDArray[Any]] = {"id": ids, "voxels": voxels, "deepest": best}
    made |= dict(zip(_HIGH, high, strict=True)) | dict(zip(_LOW, low, strict=True))
    made |= dict(zip(CROSSINGS, crossings.T, strict=True))
    corners = boxes + np.array([*corner, *corner])
    return made | dict(zip(("z0", "y0", "x0", "z1", "y1", "x1"), corners.T, strict=True))


def _moved(
    voxels: NDArray[np.int64], sums: NDArray[np.int64], corner: Triple
) -> tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]]:
    """Moments about the first voxel of the volume instead of the block's, as high and low parts."""
    n, by = voxels.astype(object), dict(zip(MOMENTS, sums.T.astype(object), strict=True))
    shift = dict(zip("zyx", corner, strict=True))
    moved = []
    for name in MOMENTS:
        if len(name) == 1:
            moved.append(by[name] + n * shift[name])
            continue
        a, b = name[0], name[1]
        moved.append(by[name] + by[a] * shift[b] + by[b] * shift[a] + n * (shift[a] * shift[b]))
    mask = (1 << _LOW_BITS) - 1
    return [(m >> _LOW_BITS).astype(np.int64) for m in moved], [(m & mask).astype(np.int64) for m in moved]


def properties(
    rows: Mapping[str, NDArray[Any]],
    voxel_nm: tuple[float, float, float],
    origin_nm: tuple[float, ...],
    volume: Triple,
) -> dict[str, NDArray[Any]]:
    """Compute the properties of objects from their sums.

    Returns
    -------
    dict
        `id`, `voxels`, `volume_um3`. `z0` to `x1`: first and last voxel of the box. `z_nm`, `y_nm`, `x_nm`: centroid.
        `point_z_nm` ...: centre of a voxel deep inside (`DEEPEST` steps or as deep as it gets). `faces_um2` and `surface_um2`:
        surface by faces and by Crofton's formula. `axis1_nm` to `axis3_nm`: standard deviation of the voxels along the principal
        axes, from the longest on, and `axis1_z` ...: direction of the longest.
    """
    n = rows["voxels"]
    total = {m: rows[f"{m}_high"].astype(object) * (1 << _LOW_BITS) + rows[f"{m}_low"].astype(object) for m in MOMENTS}
    size, some = dict(zip("zyx", voxel_nm, strict=True)), n.astype(object)
    made: dict[str, NDArray[Any]] = {"id": rows["id"], "voxels": n, "volume_um3": n * (math.prod(voxel_nm) * 1e-9)}
    made |= {name: rows[name] for name in ("z0", "y0", "x0", "z1", "y1", "x1")}
    for axis, origin in zip("zyx", origin_nm, strict=True):
        made[f"{axis}_nm"] = (_ratio(2 * total[axis] + some, 2 * some)) * size[axis] + origin
    for axis, place, origin in zip("zyx", deepest_voxel(rows["deepest"], volume), origin_nm, strict=True):
        made[f"point_{axis}_nm"] = (place + 0.5) * size[axis] + origin
    crossings = np.stack([rows[name] for name in CROSSINGS], axis=1).reshape(len(n), len(CROSSINGS))
    made["faces_um2"] = areas_um2(crossings, face_areas_um2(voxel_nm))
    made["surface_um2"] = areas_um2(crossings, crofton_areas_um2(voxel_nm))
    lengths, vectors = principal_axes(_covariance(total, some, size))
    for k in range(3):
        made[f"axis{k + 1}_nm"] = np.sqrt(lengths[:, k])
    return made | {f"axis1_{axis}": vectors[:, 0, k] for k, axis in enumerate("zyx")}


def _covariance(total: Mapping[str, NDArray[Any]], n: NDArray[Any], size: Mapping[str, float]) -> NDArray[np.float64]:
    """Covariance of the points of each object, (n, 3, 3), nm^2: of its voxels' centres, exactly, and within voxels."""
    found = np.zeros((len(n), 3, 3))
    for i, a in enumerate("zyx"):
        for j, b in enumerate("zyx"):
            product = total[a + b] if a + b in total else total[b + a]
            found[:, i, j] = _ratio(n * product - total[a] * total[b], n * n) * (size[a] * size[b])
        found[:, i, i] += size[a] ** 2 / 12
    return found


def _ratio(above: NDArray[Any], below: NDArray[Any]) -> NDArray[np.float64]:
    """Quotients of whole numbers of any size, correctly rounded."""
    return np.array([a / b for a, b in zip(above, below, strict=True)], np.float64)
