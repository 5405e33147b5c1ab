"""Draw `labels_effects.png`, each property of a label off and on, and `pan_grey.png`, two ways to simulate a pan-stain.

python -m docs.pictures.labels
"""

from __future__ import annotations

from typing import Any

import numpy as np

from docs.pictures.pairs import Made, Pair, Shown, draw, draw_row, made
from simexm.geometry.grid import Box
from simexm.sources.phantom import Phantom

COARSE = Phantom(shape=(300, 150, 150), voxel_size_nm=(80, 80, 80), seed=1)
"""12 um of tissue, with cell bodies."""
NEUROPIL = Phantom(shape=(90, 150, 150), voxel_size_nm=(40, 32, 32), seed=1)
FINE = Phantom(shape=(60, 240, 240), voxel_size_nm=(12, 10, 10), seed=11)
"""The tissue of `pipelines/pan.yaml`."""
BODY, DEEP, SLAB = (
    Box.at((240, 15, 0), (20, 125, 125)),
    Box.at((210, 60, 0), (90, 20, 125)),
    Box.at((30, 0, 0), (24, 150, 150)),
)
BLUE = {"name": "blue", "laser_wavelength_nm": 440, "band_nm": [455, 490], "laser_power_uW": 20}
GREEN = {"name": "green", "laser_wavelength_nm": 488, "band_nm": [500, 560], "laser_power_uW": 20}
CYTOSOL: dict[str, Any] = {"name": "cytosol", "dye": "ATTO488", "region": "cytosol", "density_per_um3": 6000}
NUCLEI: dict[str, Any] = {"name": "nuclei", "dye": "ATTO425", "region": "nucleus", "density_per_um3": 60_000}
ONE = {"distribution": "fixed", "sites": 1}


def seen(tissue: Phantom, box: Box, layers: list[dict[str, Any]], factor: int = 4, **more: Any) -> Made:
    """Layers under a confocal microscope."""
    microscope = {
        "stage": "confocal", "numerical_aperture": 1.0, "pixel_size_nm": 200, "plane_spacing_nm": 600, "channels": [BLUE, GREEN],
    }  # fmt: skip
    stages: list[dict[str, Any]] = [
        {"stage": "labelling", "layers": layers},
        {"stage": "expansion", "factor": factor},
        {**microscope, **more.pop("optics", {})},
        {"stage": "camera"},
    ]
    return made(tissue.open(), box, stages, **more)


def coloured(title: str, image: Made, top: tuple[float, float]) -> Shown:
    """The middle plane, blue and green."""
    blue, green = (image.light[n, image.light.shape[1] // 2] / top[n] for n in (0, 1))
    picture = np.clip(np.stack([0.15 * blue, 0.55 * blue + green, blue], axis=-1), 0, 1)
    return Shown(title, picture, image.spacing_um[1:])


def labels() -> list[Pair]:
    """Brightness, labelled cells, nuclei, penetration."""
    even = seen(NEUROPIL, SLAB, [CYTOSOL])
    varied = seen(NEUROPIL, SLAB, [{**CYTOSOL, "brightness": {"distribution": "lognormal", "variation": 0.8}}])
    antibody = {**CYTOSOL, "name": "antibody"}
    through = seen(COARSE, DEEP, [antibody])
    shallow = seen(COARSE, DEEP, [{**antibody, "penetration": {"length_um": 3, "faces": ["z_high"]}}])
    without = seen(COARSE, BODY, [CYTOSOL, {**NUCLEI, "density_per_um3": 1}], regions=["nucleus"])
    stained = seen(COARSE, BODY, [CYTOSOL, NUCLEI], regions=["nucleus"])
    some = seen(NEUROPIL, SLAB, [{**CYTOSOL, "cell_fraction": 0.3}])
    top = tuple(1.3 * float(np.quantile(stained.light[n], 0.999)) for n in (0, 1))
    assert len(top) == 2
    return [
        (even.plane("all cells alike", 1), varied.plane("brightness: lognormal, variation 0.8", 1)),
        (even.plane("all cells", 1), some.plane("cell_fraction: 0.3", 1)),
        (coloured("no stain of nuclei", without, top), coloured("stained nuclei", stained, top)),
        (through.section("all depths alike", 1), shallow.section("penetration: 3 um of tissue, from below", 1)),
    ]


def pan() -> list[Shown]:
    """A grey volume, a pan-stain in proportion to it, and one by compartments."""
    box = Box.of_shape(FINE.shape)
    optics = {"numerical_aperture": 1.15, "pixel_size_nm": 150, "plane_spacing_nm": 400, "channels": [GREEN]}
    grey = {"field": "em", "at_zero_per_um3": 1.0e6, "per_value_per_um3": -4000, "most_per_um3": 1.0e6}
    proxy = {"name": "pan", "dye": "ATTO488", "region": "everywhere", "density_from": grey}
    common = {"dye": "ATTO488", "dyes_per_protein": ONE}
    densities = {"cytosol": 3.0e6, "mitochondria": 4.0e6, "vesicles": 1.5e6, "synaptic_density": 9.0e6}
    layers = [{**common, "name": name, "region": name, "density_per_um3": d} for name, d in densities.items()]
    layers.append({**common, "name": "membrane", "density_per_um2": 10_000})
    by_grey = seen(FINE, box, [proxy], 16, optics=optics, fields=["em"])
    masks = ["mitochondria", "vesicles", "synaptic_density"]
    by_compartment = seen(FINE, box, layers, 16, optics=optics, regions=masks)
    em = FINE.open().read_field("em", box)[FINE.shape[0] // 2]
    wide = (FINE.voxel_size_nm[1] * 16 / 1000, FINE.voxel_size_nm[2] * 16 / 1000)
    return [
        Shown("grey value: electron micrograph", em, wide),
        by_grey.plane("density from the inverted grey value"),
        by_compartment.plane("densities by compartment"),
    ]


def main() -> None:
    """Simulate and draw."""
    draw("labels_effects", labels(), bar_um=8)
    draw_row("pan_grey", pan(), bar_um=8, across=3)


if __name__ == "__main__":
    main()
