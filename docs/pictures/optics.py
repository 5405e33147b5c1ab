"""Draw `optics.png`, the same specimen under several microscopes, and `optics_effects.png`, each effect off and on.

python -m docs.pictures.optics
"""

from __future__ import annotations

from typing import Any

from docs.pictures.pairs import Made, Pair, draw, draw_row, made
from simexm.geometry.grid import Box
from simexm.sources.phantom import Phantom

TISSUE = Phantom(shape=(90, 150, 150), voxel_size_nm=(40, 32, 32), seed=1)
WHOLE, SLAB = Box.of_shape((90, 150, 150)), Box.at((30, 40, 40), (24, 60, 60))
CHANNEL = {"name": "green", "laser_wavelength_nm": 488, "band_nm": [500, 560]}
SCANNER = [{**CHANNEL, "laser_power_uW": 20}]
CAMERA = [{**CHANNEL, "irradiance_W_per_cm2": 5}]
PULSED = [{**CHANNEL, "laser_wavelength_nm": 800, "laser_power_uW": 5000}]
CONFOCAL = {"stage": "confocal", "numerical_aperture": 1.15, "channels": SCANNER}
SILICONE = {"stage": "confocal", "objective": "silicone_1.05", "channels": SCANNER}
DISK = {"stage": "spinning_disk", "numerical_aperture": 1.15, "channels": CAMERA, "magnification": 60}
LOSS = {"excitation_per_mm": 60, "emission_per_mm": 40}
MICROSCOPES: dict[str, dict[str, Any]] = {
    "widefield": {"stage": "widefield", "numerical_aperture": 1.15, "channels": CAMERA, "axial_range_um": 8},
    "light sheet, waist 1.5 um": {
        "stage": "light_sheet", "numerical_aperture": 1.15, "channels": CAMERA, "sheet_waist_um": 1.5,
    },
    "spinning disk": DISK,
    "confocal": CONFOCAL,
    "image scanning": {**CONFOCAL, "stage": "image_scanning"},
    "two photons": {
        "stage": "two_photon", "numerical_aperture": 1.15, "channels": PULSED, "repetition_MHz": 80, "pulse_fs": 150,
    },
}  # fmt: skip
SECTIONS: list[tuple[tuple[str, dict[str, Any]], tuple[str, dict[str, Any]]]] = [
    (
        ("spinning disk, holes 1000 um apart", {**DISK, "hole_spacing_um": 1000}),
        ("125 um apart: light of other holes", {**DISK, "hole_spacing_um": 125}),
    ),
    (("silicone 1.05 at the cover glass", SILICONE), ("50 um deep", {**SILICONE, "depth_um": 50.0})),
    (
        ("water 1.15, no aberration", CONFOCAL),
        ("spherical aberration, 60 nm RMS", {**CONFOCAL, "zernike": [{"n": 4, "nm": 60}]}),
    ),
    (("clear tissue", CONFOCAL), ("tissue that attenuates", {**CONFOCAL, "tissue": LOSS})),
    (
        ("tissue that attenuates", {**CONFOCAL, "tissue": LOSS}),
        ("laser power raised with depth", {**CONFOCAL, "tissue": {**LOSS, "power_per_mm": 100}}),
    ),
    (("no bleaching", CONFOCAL), ("bleaching", {**CONFOCAL, "bleaching": {"photons": 1.5e4}})),
]
PLANES: list[tuple[tuple[str, dict[str, Any]], tuple[str, dict[str, Any]]]] = [
    (
        ("laser just fills the aperture (fill: 1)", CONFOCAL),
        ("evenly lit aperture (fill: uniform)", {**CONFOCAL, "fill": "uniform"}),
    ),
    (
        ("confocal, pinhole of 1.25 Airy units", {**CONFOCAL, "pinhole_airy_units": 1.25}),
        ("image scanning, array of 1.25 Airy units", {**CONFOCAL, "stage": "image_scanning"}),
    ),
]
DYE = "ATTO488"


def seen(box: Box, optics: dict[str, Any], pixel_nm: float) -> Made:
    """Membranes of half of the cells, expanded four times."""
    layer = {
        "name": "membrane", "dye": DYE, "region": "membrane", "density_per_um2": 300, "retention": 0.8, "cell_fraction": 0.5,
    }  # fmt: skip
    dyes = {DYE: {"like": DYE, "two_photon_GM": 50}} if optics["stage"] == "two_photon" else None
    stages: list[dict[str, Any]] = [
        {"stage": "labelling", "layers": [layer]},
        {"stage": "expansion", "factor": 4},
        {**optics, "pixel_size_nm": pixel_nm, "plane_spacing_nm": 300},
        {"stage": "camera"},
    ]
    return made(TISSUE.open(), box, stages, dyes=dyes)


def main() -> None:
    """Simulate and draw."""
    sections = {name: seen(WHOLE, optics, 162.5) for name, optics in MICROSCOPES.items()}
    draw_row("optics", [image.section(name) for name, image in sections.items()], bar_um=5, across=3)
    pairs: list[Pair] = []
    for (off, first), (on, second) in PLANES:
        pairs.append((seen(SLAB, first, 60).plane(off), seen(SLAB, second, 60).plane(on)))
    for (off, first), (on, second) in SECTIONS:
        pairs.append((seen(WHOLE, first, 162.5).section(off), seen(WHOLE, second, 162.5).section(on)))
    draw("optics_effects", pairs, bar_um=5)


if __name__ == "__main__":
    main()
