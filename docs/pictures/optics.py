"""Draw `optics.png`: the same specimen under other optics, each effect off and on.

python -m docs.pictures.optics
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

from simexm.api import Simulation
from simexm.geometry.grid import Box
from simexm.run.in_memory import simulate
from simexm.sources.phantom import Phantom

SHAPE, VOXEL_NM = (90, 150, 150), (40, 32, 32)
CHANNEL = {"name": "green", "laser_wavelength_nm": 488, "band_nm": [500, 560]}
SCANNER = [{**CHANNEL, "laser_power_uW": 20}]
CAMERA = [{**CHANNEL, "irradiance_W_per_cm2": 5}]
CONFOCAL = {"stage": "confocal", "numerical_aperture": 1.15, "channels": SCANNER}
SILICONE = {"stage": "confocal", "objective": "silicone_1.05", "channels": SCANNER}
ROWS: list[list[tuple[str, dict[str, Any]]]] = [
    [
        ("widefield", {"stage": "widefield", "numerical_aperture": 1.15, "channels": CAMERA, "axial_range_um": 8}),
        (
            "spinning disk",
            {"stage": "spinning_disk", "numerical_aperture": 1.15, "channels": CAMERA, "magnification": 60},
        ),
        ("confocal", CONFOCAL),
        ("image scanning", {**CONFOCAL, "stage": "image_scanning"}),
    ],
    [
        ("silicone 1.05 at the cover glass", SILICONE),
        ("100 um deep", {**SILICONE, "depth_um": 100.0}),
        ("water 1.2, gel 1.333, 100 um deep", {**CONFOCAL, "numerical_aperture": 1.2, "depth_um": 100.0}),
        ("spherical aberration, 60 nm RMS", {**CONFOCAL, "zernike": [{"n": 4, "nm": 60}]}),
    ],
    [
        ("confocal", CONFOCAL),
        ("tissue that attenuates", {**CONFOCAL, "tissue": {"excitation_per_mm": 60, "emission_per_mm": 40}}),
        (
            "laser power raised with depth",
            {**CONFOCAL, "tissue": {"excitation_per_mm": 60, "emission_per_mm": 40, "power_per_mm": 100}},
        ),
        ("bleaching", {**CONFOCAL, "bleaching": {"photons": 1.5e4}}),
    ],
]


def section(labels: NDArray[Any], optics: dict[str, Any]) -> NDArray[Any]:
    """The noise-free image of membranes, a section along z and x."""
    layer = {
        "name": "membrane", "dye": "ATTO488", "region": "membrane", "density_per_um2": 300, "retention": 0.8,
        "cell_fraction": 0.5,
    }  # fmt: skip
    spec = {
        "name": "optics",
        "seed": 1,
        "stages": [
            {"stage": "regions"},
            {"stage": "labelling", "layers": [layer]},
            {"stage": "expansion", "factor": 4},
            {**optics, "pixel_size_nm": 162.5, "plane_spacing_nm": 300},
            {"stage": "camera"},
            {"stage": "truth"},
        ],
        "source": {"kind": "phantom", "shape": SHAPE, "voxel_size_nm": VOXEL_NM, "seed": 1},
        "keep": ["expected"],
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        done = simulate(labels, Simulation.model_validate(spec), voxel_size_nm=VOXEL_NM)
    expected = done.kept["expected"][0]
    return np.asarray(expected[:, expected.shape[1] // 2, :])


def main() -> None:
    """Simulate and draw."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    source = Phantom(shape=SHAPE, voxel_size_nm=VOXEL_NM, seed=1).open()
    labels = source.read(Box.of_shape(SHAPE))
    figure, axes = plt.subplots(len(ROWS), 4, figsize=(11, 7.2), layout="constrained")
    for row, effects in zip(axes, ROWS, strict=True):
        first = None
        for place, (title, optics) in zip(row, effects, strict=True):
            picture = section(labels, optics)
            top = float(np.quantile(picture, 0.998))
            first = top if first is None or effects is not ROWS[2] else first
            place.imshow(picture, cmap="gray", vmin=0, vmax=first, aspect="auto", interpolation="nearest")
            place.set_title(title, fontsize=9)
            place.set_xticks([])
            place.set_yticks([])
        row[0].set_ylabel("depth", fontsize=9)
    figure.savefig(Path(__file__).with_name("optics.png"), dpi=100)


if __name__ == "__main__":
    main()
