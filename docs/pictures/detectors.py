"""Draw `detectors.png`, the same light on several detectors, and `detectors_effects.png`, each noise off and on.

python -m docs.pictures.detectors
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from docs.pictures.pairs import Pair, Shown, draw, save, show
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
    "photon noise alone": Camera(read_noise_e=0),
    "CCD: CoolSNAP HQ2": Camera(preset="CoolSNAP HQ2"),
    "sCMOS: ORCA-Flash4.0 V3": Scmos(preset="ORCA-Flash4.0 V3"),
    "EMCCD: iXon Ultra 888": Emccd(preset="iXon Ultra 888"),
    "PMT: R3896": Photomultiplier(preset="R3896"),
    "hybrid: R10467U-40": Photomultiplier(preset="R10467U-40", mode="photon_counting"),
}
ALL: dict[str, Any] = {"quantum_efficiency": 1.0}
IDEAL = Camera(read_noise_e=0, **ALL)
EVEN = Scmos(offset_spread_e=0, gain_spread=0, read_noise_e=1, read_noise_median_e=None, **ALL)
PATTERN = Scmos(offset_spread_e=0.5, gain_spread=0.02, hot_pixel_share=0.001, hot_pixel_e=5, **ALL)
DARK, CHARGED = (Emccd(clock_induced_e=e, **ALL) for e in (0, 0.05))
ALIKE, HEIGHTS = (Photomultiplier(excess_noise=f, read_noise_e=0, **ALL) for f in (1.0, 1.5))
COUNTER, DEAF = (Photomultiplier(mode="photon_counting", dead_time_ns=t, **ALL) for t in (0, 40))
EFFECTS: list[tuple[float, int, tuple[str, Sensor | None], tuple[str, Sensor]]] = [
    (20, 1, ("light, 20 photons", None), ("photon noise", IDEAL)),
    (20, 1, ("no read noise", IDEAL), ("read noise of 6 electrons", Camera(read_noise_e=6, **ALL))),
    (3, 100, ("100 sCMOS frames, pixels alike", EVEN), ("patterns of gain and offset, hot pixels", PATTERN)),
    (20, 1, ("no multiplication", IDEAL), ("EMCCD: noise of the register", DARK)),
    (1, 1, ("EMCCD, 1 photon", DARK), ("0.05 clock-induced electrons", CHARGED)),
    (20, 1, ("pulses of a PMT, all alike", ALIKE), ("pulse heights, excess 1.5", HEIGHTS)),
    (200, 1, ("pulses of 200 photons in 5 us", COUNTER), ("dead time of 40 ns", DEAF)),
    (
        200,
        1,
        ("well of any depth", IDEAL),
        ("of 100 electrons: saturation", Camera(read_noise_e=0, full_well_e=100, **ALL)),
    ),
]
"""Photons in the brightest pixels, frames that are averaged, and the detector off and on; all detect every photon."""
PIXEL_UM = (0.1625, 0.1625)
PEAKS = (3.0, 30.0)
"""Photons at the detector in the brightest pixels."""


def photons() -> NDArray[np.float32]:
    """One plane of light at the detector, scaled to 1 at its 99.5 % quantile."""
    with tempfile.TemporaryDirectory() as folder:
        result = Simulation.from_mapping(SPEC).run(Path(folder, "light.zarr"), workers=1, quiet=True)
        plane: NDArray[np.float32] = np.asarray(result.array()[0, 2, :110, :110], np.float32)
    return plane / np.quantile(plane, 0.995)


def seen(sensor: Sensor, light: NDArray[np.float32], frames: int = 1) -> NDArray[np.float64]:
    """Photons per pixel as found from the counts, the mean of several frames."""
    box, unit = Box.of_shape((frames, *light.shape)), exact3((1, 1, 1))
    geometry = Geometry(box.shape, box, unit, unit, IDENTITY, unit)
    context = RunContext(7, geometry, {}, {}, None, channels=("green",), pixel_time_s=5e-6)
    efficiency = sensor.efficiency.at(np.array([520.0]))[0]
    electrons = np.ascontiguousarray(np.broadcast_to(light * np.float32(efficiency), (1, frames, *light.shape)))
    tile = Tile(context, box, values={EXPECTED.name: electrons})
    sensor.run(tile.of(sensor))
    counts = tile.values["image"][0]
    if sensor is DEAF:
        return np.asarray(counts[0], np.float64)  # as they are, without what the inverse of the law would restore
    found = sensor.electrons(counts, box, context) - sensor.background_e
    return np.asarray(found.mean(axis=0) / efficiency)


def effects(light: NDArray[np.float32]) -> list[Pair]:
    """Each noise off and on."""
    pairs: list[Pair] = []
    for peak, frames, (off, first), (on, second) in EFFECTS:
        some = light * np.float32(peak)
        pictures = [some if sensor is None else seen(sensor, some, frames) for sensor in (first, second)]
        pairs.append((Shown(off, pictures[0], PIXEL_UM), Shown(on, pictures[1], PIXEL_UM)))
    return pairs


def main() -> None:
    """Write the pictures."""
    light = photons()
    draw("detectors_effects", effects(light), bar_um=5)
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    grid = figure.subplots(len(PEAKS), len(SENSORS) + 1)
    for row, peak in zip(grid, PEAKS, strict=True):
        some = light * np.float32(peak)
        shown = {f"light, {peak:g} photons": some, **{name: seen(sensor, some) for name, sensor in SENSORS.items()}}
        for axes, (name, picture) in zip(row, shown.items(), strict=True):
            axes.axis("off")
            show(axes, Shown(name, picture, PIXEL_UM), 1.6 * peak, bar_um=5)
    save(figure, "detectors")


if __name__ == "__main__":
    main()
