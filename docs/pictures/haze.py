"""Draw `haze.png`: the same specimen in widefield without and with the light of its whole depth.

python -m docs.pictures.haze
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

SHAPE, VOXEL_NM = (150, 130, 130), (40, 32, 32)
DEPTH_UM = 24.0
"""Of the expanded specimen."""
SEEN: list[tuple[str, dict[str, Any]]] = [
    ("light of 5 um", {"haze": False}),
    ("of the whole specimen", {"haze": True}),
    ("all of it near", {"haze": False, "axial_range_um": DEPTH_UM + 1}),
]


def image(tissue: PhantomVolume, optics: dict[str, Any]) -> NDArray[Any]:
    """The noise-free image of membranes, (z, y, x)."""
    layer = {
        "name": "membrane", "dye": "ATTO488", "region": "membrane", "density_per_um2": 100, "cell_fraction": 0.1,
    }  # fmt: skip
    channel = {"name": "green", "laser_wavelength_nm": 488, "band_nm": [500, 560], "irradiance_W_per_cm2": 5}
    common = {"stage": "widefield", "objective": "water_1.0", "pixel_size_nm": 200, "plane_spacing_nm": 600}
    stages: list[dict[str, Any]] = [
        {"stage": "labelling", "layers": [layer]},
        {"stage": "expansion", "factor": 4},
        {**common, "channels": [channel], **optics},
        {"stage": "camera"},
    ]
    return np.asarray(made(tissue, Box.of_shape(SHAPE), stages).light[0], np.float64)


def main() -> None:
    """Simulate and draw."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    tissue = Phantom(shape=SHAPE, voxel_size_nm=VOXEL_NM, seed=1).open()
    near, whole, all_near = (image(tissue, optics) for _, optics in SEEN)
    top = float(np.quantile(whole, 0.998))
    difference = f"less a run of {DEPTH_UM + 1:g} um range, x 100"
    figure, axes = plt.subplots(2, 3, figsize=(10, 5.6), layout="constrained", height_ratios=(1, 1.4))
    shown = [(SEEN[0][0], near, 0.0), (SEEN[1][0], whole, 0.0), (difference, 100 * (whole - all_near) + top / 2, 0.0)]
    for column, (title, values, bottom) in zip(axes.T, shown, strict=True):
        for place, picture in zip(column, (values[:, values.shape[1] // 2, :], values[len(values) // 2]), strict=True):
            place.imshow(picture, cmap="gray", vmin=bottom, vmax=top, aspect="auto", interpolation="nearest")
            place.set_xticks([])
            place.set_yticks([])
        column[0].set_title(title, fontsize=9)
    axes[0, 0].set_ylabel("depth", fontsize=9)
    axes[1, 0].set_ylabel("middle plane", fontsize=9)
    figure.savefig(Path(__file__).with_name("haze.png"), dpi=100)


if __name__ == "__main__":
    main()
