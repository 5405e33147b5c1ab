"""Draw `detectors.png`: the same light on several detectors.

python -m docs.pictures.detectors
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from simexm import Simulation
from simexm.geometry.geometry import Geometry
from simexm.geometry.grid import Box, exact3
from simexm.geometry.transform import IDENTITY
from simexm.stages import Camera, Emccd, Photomultiplier, Scmos
from simexm.stages.contract import EXPECTED, RunContext, Tile
from simexm.stages.detector.sensor import Sensor

SPEC: dict[str, Any] = {
    "source": {"kind": "phantom", "shape": [20, 200, 200]},
    "stages": [
        {"stage": "regions"},
        {"stage": "labelling", "layers": [{"name": "membrane", "dye": "ATTO488", "density_per_um2": 400}]},
        {"stage": "expansion", "factor": 4},
        {
            "stage": "confocal",
            "numerical_aperture": 1.0,
            "pixel_size_nm": 162.5,
            "plane_spacing_nm": 500,
            "channels": [{"name": "green", "laser_wavelength_nm": 488, "band_nm": [500, 550], "laser_power_uW": 20}],
        },
        {"stage": "truth"},
    ],
}
SENSORS: dict[str, Sensor] = {
    "CCD: CoolSNAP HQ2": Camera(preset="CoolSNAP HQ2"),
    "sCMOS: ORCA-Flash4.0 V3": Scmos(preset="ORCA-Flash4.0 V3"),
    "EMCCD: iXon Ultra 888": Emccd(preset="iXon Ultra 888"),
    "PMT, analog: R3896": Photomultiplier(preset="R3896"),
    "hybrid, counting: R10467U-40": Photomultiplier(preset="R10467U-40", mode="photon_counting"),
}
PEAKS = (3.0, 30.0)
"""Photons at the detector in the brightest pixels."""


def photons() -> NDArray[np.float32]:
    """One plane of light at the detector, scaled to 1 at its 99.5 % quantile."""
    with tempfile.TemporaryDirectory() as folder:
        result = Simulation.from_mapping(SPEC).run(Path(folder, "light.zarr"), workers=1, quiet=True)
        plane: NDArray[np.float32] = np.asarray(result.array()[0, 2, :110, :110], np.float32)
    return plane / np.quantile(plane, 0.995)


def seen(sensor: Sensor, light: NDArray[np.float32]) -> NDArray[np.float64]:
    """Photons per pixel as found from the counts."""
    box, unit = Box.of_shape((1, *light.shape)), exact3((1, 1, 1))
    geometry = Geometry(box.shape, box, unit, unit, IDENTITY, unit)
    context = RunContext(7, geometry, {}, {}, None, channels=("green",), pixel_time_s=5e-6)
    electrons = np.ascontiguousarray(light[None, None] * np.float32(sensor.efficiency.at(np.array([520.0]))[0]))
    tile = Tile(context, box, values={EXPECTED.name: electrons})
    sensor.run(tile.of(sensor))
    found = sensor.electrons(tile.values["image"][0], box, context) - sensor.background_e
    return np.asarray(found[0] / sensor.efficiency.at(np.array([520.0]))[0])


def main() -> None:
    """Write the picture."""
    light = photons()
    figure = Figure(figsize=(12, 4.4), layout="constrained")
    grid = figure.subplots(len(PEAKS), len(SENSORS) + 1)
    for n, (row, peak) in enumerate(zip(grid, PEAKS, strict=True)):
        shown = {
            "light": light * peak,
            **{name: seen(sensor, light * np.float32(peak)) for name, sensor in SENSORS.items()},
        }
        for axes, (name, picture) in zip(row, shown.items(), strict=True):
            axes.imshow(picture, cmap="gray", vmin=0, vmax=1.6 * peak, interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
            if n == 0:
                axes.set_title(name, fontsize=9)
        row[0].set_ylabel(f"{peak:g} photons a pixel", fontsize=9)
    path = Path(__file__).with_name("detectors.png")
    figure.savefig(path, dpi=100)
    Image.open(path).convert("L").quantize(24).save(path, optimize=True)


if __name__ == "__main__":
    main()
