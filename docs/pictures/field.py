"""Draw `field.png`: what changes over the field, each effect off and on.

python -m docs.pictures.field
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

from docs.pictures.pairs import made
from simexm.geometry.grid import Box
from simexm.sources.phantom import Phantom, PhantomVolume

SHAPE, VOXEL_NM = (60, 100, 260), (40, 32, 32)
FRAME = [64, 166]
"""Rows and columns of the image, all of which is one frame."""
GREEN = {"name": "green", "laser_wavelength_nm": 488, "band_nm": [500, 530]}
RED = {"name": "red", "laser_wavelength_nm": 488, "band_nm": [530, 620]}
SHIFT = {"axial_nm": 300, "lateral_nm": [0, 250], "magnification": 1.05}
SHEET = {"stage": "light_sheet", "sheet_waist_um": 0.8}
ROWS: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
    (
        "two channels, one dye",
        "red shifted and 5 % larger",
        {"stage": "confocal"},
        {"stage": "confocal", "shift": True},
    ),
    (
        "flat focus",
        "focus bent by 3 um at the ends",
        {"stage": "confocal", "numerical_aperture": 1.2},
        {"stage": "confocal", "numerical_aperture": 1.2, "field_curvature_radius_mm": 0.046},
    ),
    ("sheet as thin everywhere", "waist of 0.8 um in the middle", SHEET, {**SHEET, "sheet_along": "x"}),
]


def image(tissue: PhantomVolume, optics: dict[str, Any], channels: list[dict[str, Any]]) -> NDArray[Any]:
    """The noise-free image of membranes, (channel, z, y, x)."""
    layer = {
        "name": "membrane", "dye": "ATTO488", "region": "membrane", "density_per_um2": 300, "cell_fraction": 0.5,
    }  # fmt: skip
    light = {"laser_power_uW": 20} if optics["stage"] == "confocal" else {"irradiance_W_per_cm2": 5}
    common = {"numerical_aperture": 0.8, "pixel_size_nm": 200, "plane_spacing_nm": 400}
    stages: list[dict[str, Any]] = [
        {"stage": "labelling", "layers": [layer]},
        {"stage": "expansion", "factor": 4},
        {**common, **optics, "channels": [{**c, **light} for c in channels]},
        {"stage": "camera", "frame_pixels": FRAME},
    ]
    return np.asarray(made(tissue, Box.of_shape(SHAPE), stages).light, np.float64)


def main() -> None:
    """Simulate and draw."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    tissue = Phantom(shape=SHAPE, voxel_size_nm=VOXEL_NM, seed=1).open()
    figure, axes = plt.subplots(3, 2, figsize=(10, 6.4), layout="constrained", height_ratios=(64, 48, 48))
    for line, (off, on, *both) in zip(axes, ROWS, strict=True):
        top = None
        for place, title, optics in zip(line, (off, on), both, strict=True):
            shifted = optics.pop("shift", False)
            coloured = off.startswith("two")
            channels = [GREEN, {**RED, "chromatic": SHIFT if shifted else None}] if coloured else [GREEN]
            found = image(tissue, optics, channels)
            if coloured:
                plane = found[:, found.shape[1] // 2]
                plane = np.clip(plane / np.quantile(plane, 0.995, axis=(1, 2), keepdims=True), 0, 1)
                place.imshow(np.stack([plane[1], plane[0], plane[1]], axis=-1), interpolation="nearest")
            else:
                section = found[0, :, found.shape[2] // 2, :]
                top = float(np.quantile(section, 0.995)) if top is None else top
                place.imshow(section, cmap="gray", vmin=0, vmax=top, aspect=2, interpolation="nearest")
            place.set_title(title, fontsize=9)
            place.set_xticks([])
            place.set_yticks([])
    axes[0, 0].set_ylabel("plane", fontsize=9)
    axes[1, 0].set_ylabel("depth", fontsize=9)
    axes[2, 0].set_ylabel("depth", fontsize=9)
    figure.savefig(Path(__file__).with_name("field.png"), dpi=100)


if __name__ == "__main__":
    main()
