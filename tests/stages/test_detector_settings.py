"""Detectors in a spec: presets, files of maps, and what is refused with one clear message."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import yaml

from docs.hooks import presets
from simexm import Simulation, simulate
from simexm.errors import SimexmWarning, SpecError
from simexm.geometry.grid import Box
from simexm.spec.simulation import Spec
from simexm.stages import Camera, Emccd, Photomultiplier, Scmos
from simexm.stages.detector.presets import PRESETS
from simexm.stages.detector.sensor import Sensor
from simexm.stages.roles import Detector
from simexm.view.rows import plan_rows
from tests.build import VOXEL_NM, confocal, layer, spec
from tests.markdown import ROOT, blocks

MODELS = {m.model_fields["stage"].default: m for m in (Camera, Scmos, Emccd, Photomultiplier)}


def written(**camera: Any) -> dict[str, Any]:
    """A spec with this detector on a confocal microscope of 5 us dwell."""
    return spec(layer(), optics=confocal(), camera=camera)


def detector(given: dict[str, Any]) -> Sensor:
    found = Spec.from_mapping(given).detector
    assert isinstance(found, Sensor)
    return found


# ---------------------------------------------------------------- presets


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_fills_what_is_not_given(name: str) -> None:
    """Its figures are keys of its model with another source than memory, and outlive the preset in the stored spec."""
    preset = PRESETS[name]
    sensor = detector(written(stage=preset.stage, preset=name))
    for key, value in preset.figures.items():
        assert getattr(sensor, key) == value
    assert "data sheet" in preset.source
    assert sensor.describe()["preset"] == name
    wells = sensor._electronics(None)
    if preset.stage != "photomultiplier":  # the bits suffice for what the wells hold
        assert sensor.saturation_e == min(wells.full_well_e, wells.register_e / wells.multiplication)
    given = {"stage": preset.stage, "preset": name, "quantum_efficiency": 0.33, "stray_light_e": 4}
    mixed = Spec.from_mapping(written(**given))
    stored = mixed.to_mapping()
    again = Spec.from_mapping(stored)
    assert again == mixed
    (stage,) = (s for s in stored["stages"] if s["stage"] == preset.stage)
    assert stage["quantum_efficiency"] == 0.33
    assert set(preset.figures) <= set(stage)


def test_a_default_that_is_given_is_not_the_presets() -> None:
    """The stored spec keeps it although it is the model's default."""
    given = written(stage="scmos", preset="ORCA-Fusion", read_noise_e=1.6)
    stored = Spec.from_mapping(given).to_mapping()
    assert detector(stored).describe()["read_noise_e"] == 1.6
    assert detector(given).describe()["bits"] == 16


def test_a_counter_leaves_the_presets_analog_figures_out() -> None:
    sensor = detector(written(stage="photomultiplier", preset="R10467U-40", mode="photon_counting", dead_time_ns=20))
    assert sensor.quantum_efficiency == 0.45
    assert detector(Spec.from_mapping(written(**sensor.model_dump(exclude_unset=True))).to_mapping()) == sensor


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"stage": "scmos", "preset": "orca flash 4"}, ("did you mean ORCA-Flash4.0 V3",)),
        ({"stage": "emccd", "preset": "Evolve"}, ("no preset 'Evolve'", "iXon Ultra 888")),
        ({"stage": "camera", "preset": "Prime 95B"}, ("is no camera", "stage: scmos")),
        ({"full_well_e": 10, "stray_light_e": 20}, ("full_well_e", "20 electrons", "saturated")),
        ({"bits": 8, "offset_counts": 300}, ("offset_counts", "255", "raise bits")),
        ({"gain_counts_per_e": 0}, ("gain_counts_per_e", "greater than 0")),
        ({"quantum_efficiency": 1.2}, ("quantum_efficiency", "at most 1")),
        ({"excess_noise": 2}, ("excess_noise", "no key")),
        ({"stage": "emccd", "em_gain": 1000, "register_well_e": 900}, ("register_well_e", "single photo-electron")),
        ({"stage": "scmos", "read_noise_e": 1, "read_noise_median_e": 1.2}, ("read_noise_median_e", "long tail")),
        ({"stage": "scmos", "hot_pixel_share": 0.1}, ("hot_pixel_e", "give both")),
        ({"stage": "scmos", "gain_map": "g.npy", "gain_spread": 0.1}, ("gain_map", "gain_spread", "remove one")),
        ({"stage": "photomultiplier", "dead_time_ns": 5}, ("dead_time_ns", "analog", "photon_counting")),
        ({"stage": "photomultiplier", "mode": "photon_counting", "read_noise_e": 1}, ("read_noise_e", "no effect")),
        (
            {"stage": "photomultiplier", "mode": "photon_counting", "dead_time_ns": 6000},
            ("dead time", "dead_time_ns", "dwell_us"),
        ),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, dict) else "",
)
def test_what_cannot_be_is_refused_in_one_message(given: dict[str, Any], words: tuple[str, ...]) -> None:
    with pytest.raises(SpecError) as told:
        Spec.from_mapping(written(**given))
    for word in words:
        assert word in str(told.value)
    assert "problems" not in str(told.value)


# ---------------------------------------------------------------- maps from files


@pytest.fixture
def maps(tmp_path: Path) -> dict[str, Path]:
    """A map of a frame of 12 x 20 pixels in each format."""
    values = np.random.default_rng(1).uniform(1, 2, (12, 20)).astype(np.float32)
    np.save(tmp_path / "gain.npy", values)
    tifffile.imwrite(tmp_path / "offset.tif", values * 100)
    return {"gain_map": tmp_path / "gain.npy", "offset_map": tmp_path / "offset.tif"}


def measured(maps: dict[str, Path], **more: Any) -> dict[str, Any]:
    return written(stage="scmos", frame_pixels=[12, 20], **{k: str(p) for k, p in maps.items()}, **more)


def test_measured_maps_replace_the_drawn_ones(maps: dict[str, Path]) -> None:
    values = np.load(maps["gain_map"])
    sensor = detector(measured(maps))
    found = sensor.pixel_maps(Box((0, 6, 35), (3, 20, 47)), seed=1)
    assert found is not None
    y, x = np.arange(6, 20) % 12, np.arange(35, 47) % 20
    np.testing.assert_array_equal(found.gain, values[np.ix_(y, x)])
    np.testing.assert_array_equal(found.offset, (values * 100)[np.ix_(y, x)])


def test_the_content_of_a_map_decides_the_hash_not_its_path(maps: dict[str, Path], tmp_path: Path) -> None:
    given = {**measured(maps), "source": {"kind": "phantom", "shape": [8, 48, 48]}}
    first = Simulation.from_mapping(given).plan()
    moved = tmp_path / "moved.npy"
    maps["gain_map"].rename(moved)
    second = Simulation.from_mapping({**measured({**maps, "gain_map": moved}), "source": given["source"]}).plan()
    assert second.hash == first.hash
    np.save(moved, np.load(moved) * np.float32(1.01))
    again = second.simulation.detector
    assert isinstance(again, Scmos)
    with pytest.raises(SpecError, match="digest"):
        again.resolved({})


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.ones((20, 12), np.float32), ("20 x 12", "12 rows x 20 columns", "frame_pixels")),
        (np.ones((3, 12, 20), np.float32), ("3 x 12 x 20", "frame")),
        (np.full((12, 20), np.nan, np.float32), ("not finite",)),
        (np.zeros((12, 20), np.float32), ("smallest value", "above 0")),
        (None, ("no file",)),
        (b"text", ("cannot be read", "NPY")),
    ],
    ids=["turned", "stack", "NaN", "zero", "missing", "text"],
)
def test_a_file_that_is_no_map_of_the_frame_is_refused(values: Any, words: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "map.npy"
    if isinstance(values, bytes):
        path.write_bytes(values)
    elif values is not None:
        np.save(path, values)
    given = {**measured({"gain_map": path}), "source": {"kind": "phantom", "shape": [8, 48, 48]}}
    with pytest.raises(SpecError) as told:
        Simulation.from_mapping(given).plan()
    for word in ("scmos.gain_map", *words):
        assert word in str(told.value)


# ---------------------------------------------------------------- the role


def test_efficiency_multiplies_the_light_and_is_1_without_a_detector() -> None:
    light = {}
    for share in (0.35, 0.7, None):
        given = {**written(quantum_efficiency=share or 0.7), "source": {"kind": "phantom", "shape": [8, 48, 48]}}
        if share is None:
            given["stages"] = [s for s in given["stages"] if s["stage"] != "camera"]
        plan = Simulation.from_mapping(given).plan()
        light[share] = plan.imaging.formation.pairs[0].in_focus
        assert (plan.to_mapping()["detector"] is None) == (share is None)
        assert ("none" if share is None else f"quantum_efficiency {share}") in dict(plan_rows(plan))["detector"]
    assert light[0.7] == pytest.approx(2 * light[0.35], rel=1e-12)
    assert light[0.7] == pytest.approx(0.7 * light[None], rel=1e-12)


@pytest.mark.parametrize(
    ("camera", "above"),
    [
        ({"full_well_e": 30, "read_noise_e": 0}, "above about 30 photo-electrons"),
        ({"bits": 8, "gain_counts_per_e": 5}, "above about 31 photo-electrons"),
        ({"stage": "emccd", "register_well_e": 6000}, "above about 20 photo-electrons"),
    ],
    ids=["full well", "bits", "register"],
)
def test_saturated_pixels_are_told_at_the_end(camera: dict[str, Any], above: str) -> None:
    labels = np.zeros((24, 40, 40), np.uint64)
    labels[6:18, 8:32, 8:32] = 3
    bright = Simulation.from_mapping(
        spec(layer(density_per_um2=20_000), optics=confocal(axial_range_um=3), camera=camera)
    )
    with pytest.warns(SimexmWarning, match=f"'green' .* are saturated, {above}"):
        simulate(labels, bright, voxel_size_nm=VOXEL_NM)


def test_every_detector_has_the_role() -> None:
    """Nothing else knows their keys: report and barcodes undo gain and offset through it."""
    assert all(issubclass(model, Detector) for model in MODELS.values())
    assert {preset.stage for preset in PRESETS.values()} == set(MODELS)


# ---------------------------------------------------------------- the page


def test_blocks_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first names a preset; the second reads maps of the camera's whole frame."""
    monkeypatch.chdir(tmp_path)
    (named,), (mapped,) = (yaml.safe_load(each.text) for each in blocks("docs/detectors.md"))
    frame = np.ones(mapped["frame_pixels"], np.float32)
    for key in ("gain_map", "offset_map"):
        tifffile.imwrite(mapped[key], frame)
    np.save(mapped["read_noise_map"], frame)
    for given in (named, mapped):
        Simulation.from_mapping({**written(**given), "source": {"kind": "phantom", "shape": [8, 48, 48]}}).plan()


def test_the_page_tells_of_every_model_and_preset() -> None:
    page = (ROOT / "docs/detectors.md").read_text(encoding="utf-8")
    assert all(f"| `{stage}` |" in page for stage in MODELS)
    assert presets.MARKER in page
    rows = presets.table().splitlines()[2:]
    assert len(rows) == len(PRESETS)
    assert all(preset.source in row for preset, row in zip(PRESETS.values(), rows, strict=True))
