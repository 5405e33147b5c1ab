"""Draw `objects.png`: mitochondria of the phantom as objects, contacts of its cells, and a wrong segmentation.

python -m docs.pictures.objects
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from simexm.analysis.objects.contacts import Contacts
from simexm.analysis.objects.objects import Objects
from simexm.geometry.grid import Box
from simexm.sources.phantom import Phantom

VOXEL = (40.0, 16.0, 16.0)
SHAPE = (48, 260, 260)
PLANE = 24


def coloured(ids: NDArray[Any]) -> NDArray[np.float64]:
    """A plane of ids in random light colours, 0 black."""
    names, where = np.unique(ids, return_inverse=True)
    colours = np.random.default_rng(4).uniform(0.25, 0.95, (names.size, 3))
    colours[names == 0] = 0
    found: NDArray[np.float64] = colours[where].reshape(*ids.shape, 3)
    return found


def draw(folder: Path) -> Figure:
    """Analyse a part of the phantom and draw one plane of it."""
    source = Phantom(shape=SHAPE, voxel_size_nm=VOXEL).open()
    box = Box.of_shape(SHAPE)
    cells = source.read(box)
    np.save(folder / "cells.npy", cells)
    np.save(folder / "mito.npy", source.read_field("mitochondria", box).astype(np.uint8))
    mito = Objects(content="mask", voxel_size_nm=VOXEL).run(
        folder / "mito.npy", output=folder / "mito.zarr", quiet=True
    )
    touch = Contacts(gap_nm=40, voxel_size_nm=VOXEL).run(folder / "cells.npy", output=folder / "touch.zarr", quiet=True)
    figure = Figure(figsize=(11, 6.2), layout="tight")
    left, right = figure.subplots(1, 2)
    extent = (0, SHAPE[2] * VOXEL[2] / 1000, SHAPE[1] * VOXEL[1] / 1000, 0)
    pale = 0.75 + 0.25 * coloured(cells[PLANE])
    objects = np.asarray(mito.array(of="labels/components")[PLANE])
    left.imshow(np.where(objects[..., None] > 0, coloured(objects), pale), extent=extent)
    left.set_title("mitochondria: deep voxel, long axis")
    rows = mito.table("objects").to_pylist()
    for row in rows:
        if row["z0"] <= PLANE <= row["z1"] and abs(row["point_z_nm"] / VOXEL[0] - PLANE) < 6:
            y, x = row["point_y_nm"] / 1000, row["point_x_nm"] / 1000
            dy, dx = (row[f"axis1_{a}"] * row["axis1_nm"] / 1000 for a in "yx")
            left.plot([x - dx, x + dx], [y - dy, y + dy], "k-", lw=1.5)
            left.plot(x, y, "wo", ms=5, mec="k")
    right.imshow(coloured(cells[PLANE]), extent=extent)
    right.set_title("contacts (gap 40 nm): place, normal, area")
    for row in touch.table("contacts").to_pylist():
        if abs(row["z_nm"] / VOXEL[0] - PLANE - 0.5) < 2 and row["area_um2"] > 0.02:
            y, x = row["y_nm"] / 1000, row["x_nm"] / 1000
            size = 0.1 * np.sqrt(row["area_um2"]) + 0.04
            right.arrow(x, y, size * row["normal_x"], size * row["normal_y"], color="w", width=0.008, head_width=0.05)
            right.plot(x, y, "wo", ms=3 + 6 * np.sqrt(row["area_um2"]), mec="k")
    for axes in (left, right):
        axes.set_xlim(extent[:2])
        axes.set_ylim(extent[2:])
        axes.set_xlabel("um")
    return figure


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        draw(Path(name)).savefig(Path(__file__).with_name("objects.png"), dpi=85)
