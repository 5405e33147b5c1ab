"""Draw `aberrations.png`: a bead and membranes through objectives with aberrations, and by a measured stack.

python -m docs.pictures.aberrations
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import tifffile
from numpy.typing import NDArray

from docs.pictures.pairs import made
from simexm.geometry.grid import Box
from simexm.sources.arrays import ArrayVolume
from simexm.sources.base import LabelSource
from simexm.sources.phantom import Phantom

SHAPE, VOXEL_NM = (60, 110, 110), (40, 32, 32)
BEAD_SHAPE, BEAD_NM, BEAD = (240, 220, 220), (10, 16, 16), (122, 110, 110)
"""A bead of one voxel, in the middle of a plane."""
PIXEL_NM, PLANE_NM = 100.0, 200.0
OPTICS: dict[str, Any] = {
    "stage": "widefield", "numerical_aperture": 1.15, "pixel_size_nm": PIXEL_NM, "plane_spacing_nm": PLANE_NM,
    "axial_range_um": 1.6, "exposure_s": 0.2,
    "channels": [{"name": "green", "laser_wavelength_nm": 488, "band_nm": [500, 560], "irradiance_W_per_cm2": 20}],
}  # fmt: skip
MIXED = [{"n": 2, "m": -2, "nm": 45}, {"n": 3, "m": 1, "nm": 45}, {"n": 3, "m": 3, "nm": 30}]
DEPTHS, REACH = (-4, 0, 4), (10, 34, 34)


def image(tissue: LabelSource, density: float, optics: dict[str, Any], *, noise: bool = False) -> NDArray[Any]:
    """Image (z, y, x) of dyes in membranes, noise-free if not otherwise wanted."""
    layer = {"name": "dye", "dye": "ATTO488", "region": "membrane", "density_per_um3": density, "retention": 0.8}
    stages: list[dict[str, Any]] = [
        {"stage": "labelling", "layers": [layer]},
        {"stage": "expansion", "factor": 4},
        optics,
        {"stage": "camera"},
    ]
    seen = made(tissue, Box.of_shape(tissue.shape), stages)
    return np.asarray((seen.image if noise else seen.light)[0])


def bead(optics: dict[str, Any], *, noise: bool = False) -> NDArray[Any]:
    """Stack of one bright voxel, cut out about its middle."""
    labels = np.zeros(BEAD_SHAPE, np.uint64)
    labels[BEAD] = 1
    seen = image(ArrayVolume(labels, BEAD_NM), 2e7 if noise else 1e9, optics, noise=noise)
    pitch = (PLANE_NM, PIXEL_NM, PIXEL_NM)
    middle = [int((p + 0.5) * v * 4 / s) for p, v, s in zip(BEAD, BEAD_NM, pitch, strict=True)]
    return seen[tuple(slice(m - r, m + r + 1) for m, r in zip(middle, REACH, strict=True))]


def main() -> None:
    """Simulate and draw."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    cells = Phantom(shape=SHAPE, voxel_size_nm=VOXEL_NM, seed=1).open()
    with tempfile.TemporaryDirectory() as folder:
        measured = Path(folder) / "bead.ome.tif"
        sizes = {"PhysicalSizeX": PIXEL_NM, "PhysicalSizeY": PIXEL_NM, "PhysicalSizeZ": PLANE_NM}
        units = {f"{key}Unit": "nm" for key in sizes}
        recorded = bead({**OPTICS, "zernike": MIXED}, noise=True).astype(np.uint16)
        tifffile.imwrite(measured, recorded, ome=True, metadata={"axes": "ZYX", **sizes, **units})
        stack = {"path": str(measured)}
        rows: list[tuple[str, dict[str, Any]]] = [
            ("no aberration", {}),
            ("astigmatism (2, 2), 60 nm", {"zernike": [{"n": 2, "m": 2, "nm": 60}]}),
            ("coma (3, 1), 60 nm", {"zernike": [{"n": 3, "m": 1, "nm": 60}]}),
            ("three together", {"zernike": MIXED}),
            ("their bead as psf_stack", {"psf_stack": stack, "axial_range_um": 1.4}),
        ]
        figure, axes = plt.subplots(len(rows), 4, figsize=(8.2, 10.2), layout="constrained")
        for row, (title, more) in zip(axes, rows, strict=True):
            seen = bead({**OPTICS, **more})
            near = slice(REACH[1] - 16, REACH[1] + 17)
            shown = [seen[REACH[0] + d][near, near] for d in DEPTHS]
            shown.append(image(cells, 2e5, {**OPTICS, **more})[20])
            for place, picture in zip(row, shown, strict=True):
                top = float(np.quantile(picture, 0.999)) if picture is shown[-1] else float(picture.max())
                place.imshow(picture, cmap="gray", vmin=0, vmax=top, interpolation="nearest")
                place.set_xticks([])
                place.set_yticks([])
            row[0].set_ylabel(title, fontsize=8)
        for place, d in zip(axes[0], DEPTHS, strict=False):
            side = (
                "in focus" if d == 0 else f"plane {abs(d) * PLANE_NM:.0f} nm {'above' if d < 0 else 'below'} the bead"
            )
            place.set_title(side, fontsize=8)
        axes[0][3].set_title("membranes", fontsize=8)
        figure.savefig(Path(__file__).with_name("aberrations.png"), dpi=100)


if __name__ == "__main__":
    main()
