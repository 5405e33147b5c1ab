"""Whoever reads counts asks the detector what they mean, one of another package as well."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from simexm import Simulation
from simexm.analysis.barcodes.decode import decode
from simexm.view.report.counts import strengths
from simexm.view.run_record import RunRecord
from tests import build, rounds_build

pytestmark = pytest.mark.filterwarnings("ignore::simexm.errors.SimexmWarning")

ROOTS = """
from typing import ClassVar, Literal
import numpy as np
from simexm.kernels.detector.camera import quarter_octaves
from simexm.stages.contract import EXPECTED, IMAGE, ImageCounts
from simexm.stages.frames import AXES
from simexm.stages.products import image
from simexm.spectra.efficiency import ConstantEfficiency
from simexm.stages.roles import Detector

class Roots(Detector):
    stage: Literal["roots"] = "roots"
    glow_e: float = 2.0
    reads: ClassVar = (EXPECTED,)
    writes: ClassVar = (IMAGE,)
    on_gpu: ClassVar = False
    efficiency = property(lambda self: ConstantEfficiency(0.5))
    background_e = property(lambda self: self.glow_e)
    saturation_e = property(lambda self: (65535 / 200) ** 2)
    varies = property(lambda self: frozenset(AXES))

    def products(self, context):
        return (image(IMAGE.name, context.channels, IMAGE.dtype, IMAGE.unit, 65535.0),)

    def run(self, state):
        counts = np.rint(200 * np.sqrt(np.maximum(state.read(EXPECTED), 0) + self.glow_e)).astype(np.uint16)
        state.tally.images.extend(ImageCounts(0, quarter_octaves(c)) for c in counts)
        state.write(IMAGE, counts)

    def electrons(self, counts, pixels, context):
        return (np.asarray(counts, np.float64) / 200) ** 2

    def noise_e(self, mean_e, context):
        return 0.125

    def describe(self):
        return {"stage": "roots", "glow_e": self.glow_e}
"""
"""A detector without noise whose counts are roots: nobody could undo it but itself."""


def with_detector(data: dict[str, Any], **camera: Any) -> dict[str, Any]:
    """The spec with another detector."""
    data["stages"] = [camera if s["stage"] == "camera" else s for s in data["stages"]]
    return data


def phantom(**camera: Any) -> dict[str, Any]:
    source = {"kind": "phantom", "shape": [24, 64, 64], "voxel_size_nm": [40, 32, 32]}
    return with_detector(build.spec(build.layer(density_per_um2=8000), source=source), **camera)


def test_the_report_reads_any_detector(site: Callable[..., None], tmp_path: Path) -> None:
    """Its signal is that of the expected image, scaled by the quantum efficiency, and the noise is the detector's."""
    site("rooted", ROOTS, "Roots", "roots")
    cameras: tuple[dict[str, Any], ...] = (
        {"stage": "roots"},
        {"stage": "emccd", "quantum_efficiency": 0.5},
    )
    found = []
    for n, (camera, until) in enumerate([*((c, None) for c in cameras), (cameras[0], "confocal")]):
        result = Simulation.from_mapping(phantom(**camera)).run(tmp_path / f"{n}.zarr", until=until, quiet=True)
        record = RunRecord.of(result)
        assert record
        ((strength,), _) = strengths(result, record)
        found.append(strength)
        if until is None:
            assert result.provenance["detector"]["stage"] == camera["stage"]
    roots, emccd, light = found
    assert light.signal_e + light.background_e < 1500  # or the register would be full
    for seen in (roots, emccd):
        assert seen.signal_e == pytest.approx(light.signal_e, rel=0.05)
    assert roots.background_e == pytest.approx(light.background_e + 2, rel=0.02)
    assert roots.noise_e == 0.125
    total = emccd.signal_e + emccd.background_e
    assert emccd.noise_e**2 == pytest.approx(2 * total + 0.15**2, rel=1e-6)


@pytest.mark.slow
def test_barcodes_are_read_from_any_detector(site: Callable[..., None], tmp_path: Path) -> None:
    """Without noise, but from roots, all cells with an amplicon are read as from the expected image."""
    site("rooted", ROOTS, "Roots", "roots")
    source = {"kind": "phantom", "shape": [24, 64, 64], "voxel_size_nm": [40, 32, 32]}
    simulation = Simulation.from_mapping(with_detector(rounds_build.spec(source), stage="roots"))
    counts = decode(simulation.run(tmp_path / "counts.zarr", quiet=True))
    light = decode(simulation.run(tmp_path / "light.zarr", until="confocal", quiet=True))
    assert counts.table["decoded"].to_pylist() == light.table["decoded"].to_pylist()
    assert light.right > 0
