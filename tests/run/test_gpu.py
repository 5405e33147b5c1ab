"""A run on a GPU gives what one on the CPU gives: the same dyes and cells, the same image but for the rounding of float32.

Without a GPU the same is shown of all but CuPy itself: the arrays are those of a namespace that has nothing but the array API
standard, and the primitives' text is compiled for the host.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.gpu import compare
from simexm import Result, Simulated, Simulation, simulate
from simexm.errors import RunError, SimexmWarning, SpecError
from simexm.geometry.grid import Box
from simexm.kernels.devices import cupy_device
from simexm.kernels.devices.array_device import ArrayDevice
from simexm.planning.gpu import device_bytes
from simexm.run.excerpt import excerpt
from simexm.sources.arrays import ArrayVolume
from simexm.sources.fields import Field
from simexm.stages.contract import Counted
from tests import build, rounds_build
from tests.cuda_host import Host
from tests.model2017 import small_2017
from tests.run.conftest import VOXEL_NM, cells, fingerprint, spec

pytestmark = pytest.mark.filterwarnings("ignore::simexm.errors.SimexmWarning")


@pytest.fixture(params=["host", pytest.param("cuda", marks=pytest.mark.gpu)])
def gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A GPU; or all that is ours of one, on the host."""
    if request.param == "cuda":
        if why := cupy_device.missing():
            pytest.skip(f"no GPU to compute on: {why}")
        return "cuda"
    device = ArrayDevice(Host(request.getfixturevalue("host_library")))
    monkeypatch.setattr(cupy_device, "missing", lambda: "")
    monkeypatch.setattr(cupy_device, "gpu", lambda: device)
    monkeypatch.setattr(cupy_device, "version", lambda: "none")
    monkeypatch.setattr(cupy_device, "count", lambda: 1)
    monkeypatch.setattr(cupy_device, "free_bytes", lambda: 1 << 40)
    return "host"


def agree(ours: Simulated, theirs: Simulated, gain: float = 1.0) -> None:
    """Invariant 2, and the same labels, cells and dyes."""
    assert (ours.plan.context.device, theirs.plan.context.device) == ("gpu", "cpu")
    assert ours.plan.hash != theirs.plan.hash
    expected, wanted = (np.asarray(s.kept["expected"], float) for s in (ours, theirs))
    for channel in range(len(wanted)):
        a, b, counts_a, counts_b = (x[channel] for x in (expected, wanted, ours.image, theirs.image))
        assert b.max() > 0
        assert np.abs(a - b).max() < 2e-6 * b.max()
        assert (counts_a != counts_b).mean() <= 2 * np.abs(a - b).mean() + 1e-6
        assert np.abs(counts_a.astype(int) - counts_b).max() <= gain
    for name, label in theirs.labels.items():
        np.testing.assert_array_equal(ours.labels[name], label, name)
    np.testing.assert_array_equal(ours.kept["labelled"], theirs.kept["labelled"])
    assert ours.tables.keys() == theirs.tables.keys()
    for table in theirs.tables.keys() - {"emitters"}:
        assert ours.tables[table].keys() == theirs.tables[table].keys()
        for name, column in theirs.tables[table].items():
            np.testing.assert_array_equal(ours.tables[table][name], column, name)
    rows, others = _sorted(ours.emitters), _sorted(theirs.emitters)
    assert others["dyes"].size > 100
    for name, column in others.items():
        np.testing.assert_array_equal(rows[name], column, name)


def _sorted(columns: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    order = np.lexsort((columns["dyes"], columns["x_nm"], columns["y_nm"], columns["z_nm"]))
    return {name: column[order] for name, column in columns.items()}


def both(
    simulation: Simulation, labels: NDArray[Any], regions: dict[str, NDArray[Any]] | None = None
) -> tuple[Simulated, Simulated]:
    """On the GPU and on the CPU."""
    return (
        simulate(labels, simulation.with_device("gpu"), voxel_size_nm=VOXEL_NM, regions=regions),
        simulate(labels, simulation.with_device("cpu"), voxel_size_nm=VOXEL_NM, regions=regions),
    )


KEEP = ["expected", "labelled", "emitters"]


def test_densities_that_vary_are_the_same(gpu: str) -> None:
    """By cell, by depth and by a grey value, in parts of labels that are read one after the other."""
    ids = rounds_build.cells((14, 26, 28))
    em = np.random.default_rng(1).integers(0, 256, ids.shape).astype(np.uint8)
    grey = {"field": "em", "at_zero_per_um3": 3e4, "per_value_per_um3": -100, "most_per_um3": 2e4}
    layers = [
        build.layer(name="pan", region="everywhere", density_per_um2=None, density_from=grey,
                    penetration={"length_um": 0.5}),
        build.layer(name="bright", brightness={"distribution": "lognormal", "variation": 0.8}, linker_nm=5,
                    penetration={"length_um": 0.4, "faces": ["x_low"]}, unspecific_per_um3=500),
    ]  # fmt: skip
    source = {"path": "memory", "fields": {"em": {"path": "-", "kind": "grey"}}}
    made = Simulation.from_mapping(build.spec(*layers, source=source, keep=KEEP, execution={"tile": (4, 6, 6)}))
    ours, theirs = (
        simulate(ids, made.with_device(name), voxel_size_nm=VOXEL_NM, fields=[(Field("em", "grey"), em)])
        for name in ("gpu", "cpu")
    )
    agree(ours, theirs)
    assert device_bytes(ours.plan, ours.plan.tile) > 0


def test_two_layers_in_two_channels(gpu: str) -> None:
    """In whatever tiles."""
    simulation, labels = Simulation.from_mapping(spec("memory", keep=KEEP)), cells((24, 32, 32))
    ours, theirs = both(simulation, labels)
    agree(ours, theirs)
    agree(simulate(labels, simulation.with_device("gpu").with_tile((3, 17, 11)), voxel_size_nm=VOXEL_NM), theirs)


@pytest.mark.parametrize("kind", ["one image", "rounds"])
def test_a_part_is_what_the_whole_holds(gpu: str, kind: str) -> None:
    """Bit for bit, though planes are made in batches."""
    labels = cells((24, 36, 36))
    spoken = {**(rounds_build.spec() if kind == "rounds" else spec("memory")), "keep": ["expected"]}
    whole = simulate(
        labels, Simulation.from_mapping(spoken).with_device("gpu").with_tile((5, 16, 20)), voxel_size_nm=VOXEL_NM
    )
    z, y, x = whole.plan.shape
    for box in (Box.at((1, 3, 5), (3, 20, 9)), Box((z - 2, y - 9, x - 20), (z, y, x))):
        for n, frame in enumerate(whole.plan.frames):
            found = excerpt(whole.plan, ArrayVolume(labels, VOXEL_NM), Counted(), box, frame)
            for path, image in {"": whole.image, **whole.kept}.items():
                there = image[n] if kind == "rounds" else image
                np.testing.assert_array_equal(found[path], there[(..., *box.slices)])


def test_dense_labels_in_widefield_light(gpu: str) -> None:
    """So dense that dyes are drawn by the sub-cell, several of them to a voxel."""
    green = {"name": "green", "laser_wavelength_nm": 488, "band_nm": [500, 550], "irradiance_W_per_cm2": 1}
    optics = {
        "stage": "widefield", "numerical_aperture": 1.0, "pixel_size_nm": 200, "plane_spacing_nm": 600,
        "axial_range_um": 1.5, "channels": [green],
    }  # fmt: skip
    simulation = build.simulation(
        build.layer(density_per_um2=3e5, dyes_per_protein={"distribution": "binomial", "sites": 4, "probability": 0.5}),
        build.layer(name="inside", region="cytosol", density_per_um3=4e6, linker_nm=4),
        factor=10,
        optics=optics,
        camera={"stage": "scmos", "gain_counts_per_e": 2, "autofluorescence_e": 3, "bits": 16,
                "frame_pixels": [64, 50], "illumination": {"edge": 0.6}},
        keep=KEEP,
    )  # fmt: skip
    ours, theirs = both(simulation, cells((10, 16, 16)))
    assert any(layer.law(theirs.plan.context).clumped for layer in simulation.labeller.layers)  # type: ignore[attr-defined]
    agree(ours, theirs, gain=3)


def test_haze_of_the_whole_specimen(gpu: str) -> None:
    green = {"name": "green", "laser_wavelength_nm": 488, "band_nm": [500, 550], "irradiance_W_per_cm2": 1}
    optics = {
        "stage": "widefield", "numerical_aperture": 1.0, "pixel_size_nm": 260, "plane_spacing_nm": 1000,
        "axial_range_um": 6, "channels": [green],
    }  # fmt: skip
    layer = build.layer(density_per_um2=300)
    ours, theirs = both(build.simulation(layer, optics=optics, keep=KEEP), cells((60, 20, 20)))
    assert theirs.plan.to_mapping()["optics"]["haze"]["beyond_um"] < 6
    agree(ours, theirs)


def test_a_mask_and_its_truth(gpu: str) -> None:
    labels = cells((30, 48, 48))
    mask = np.zeros(labels.shape, bool)
    mask[8:20, 10:40, 12:30] = True
    given = build.spec(build.layer(region="synapse", density_per_um3=4000), neighbourhood=8, keep=KEEP)
    given["stages"][-1] = {"stage": "truth", "regions": ["synapse", "membrane"]}
    given["source"]["regions"] = {"synapse": "-"}
    ours, theirs = both(Simulation.from_mapping(given), labels, {"synapse": mask})
    assert theirs.labels["membrane_synapse"].any()
    agree(ours, theirs)


def test_rounds_of_barcodes(gpu: str) -> None:
    simulation = rounds_build.simulation(keep=("expected", "labelled", "emitters"))
    ours, theirs = both(simulation, rounds_build.cells((24, 48, 48), 8))
    assert theirs.image.shape[0] == 3
    assert np.abs(ours.image.astype(int) - theirs.image).max() <= 1
    for name in ("cells", "barcodes", "amplicons"):
        for column, values in theirs.tables[name].items():
            np.testing.assert_array_equal(ours.tables[name][column], values)


def test_a_run_stores_the_same_bytes_again(gpu: str, stored: Path, tmp_path: Path) -> None:
    crop = {"shape": [24, 40, 40]}
    simulation = Simulation.from_mapping(spec(stored, crop=crop, execution={"device": "auto"}))
    results = [simulation.run(tmp_path / name, quiet=True, overwrite=True) for name in ("a.zarr", "b.zarr")]
    assert fingerprint(results[0].path) == fingerprint(results[1].path)
    other = Simulation.from_mapping(spec(stored, crop=crop, execution={"device": "cpu"}))
    one = other.run(tmp_path / "c.zarr", quiet=True)
    a, b = (np.asarray(r.array()[...], int) for r in (results[0], one))
    assert np.abs(a - b).max() <= 1
    with pytest.raises(Exception, match="other parameters"):  # what the GPU began, the CPU does not finish
        other.run(results[0].path, quiet=True)
    assert isinstance(results[0], Result)


def test_the_benchmark_measures(gpu: str, host_library: Path) -> None:
    if gpu != "host":
        pytest.skip("python -m benchmarks.gpu is for that")
    given = build.spec(execution={"memory_GiB": 1.0})
    found = compare(given, (24, 32, 32), 1, Host(host_library), lambda: None)
    assert 0 < found["transfer"] < found["gpu"]
    assert min(found["transform"], found["gpu"]) > 0
    assert found["cpu"] > 0


# ------------------------------------------------------------------ which device


def test_without_a_gpu_the_cpu_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cupy_device, "missing", lambda: "there is no CUDA device")
    plan = _plan(device="auto")
    assert plan.context.device == "cpu"
    with pytest.warns(SimexmWarning, match=r"execution.device is gpu, but there is no CUDA device.*set device to auto"):
        assert _plan(device="gpu").hash == plan.hash
    with pytest.raises(SpecError, match=r"require_gpu is set, but there is no CUDA device"):
        _plan(device="auto", require_gpu=True)
    with pytest.raises(SpecError, match="take require_gpu out"):
        _plan(device="cpu", require_gpu=True)


def test_jobs_with_gpus_need_none_at_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cupy_device, "missing", lambda: "there is no CUDA device")
    monkeypatch.setattr(cupy_device, "lacking", lambda: "")
    monkeypatch.setattr(cupy_device, "version", lambda: "none")
    assert _plan(gpu=True).context.device == "gpu"
    assert _plan(gpu=False).context.device == "cpu"
    with pytest.warns(SimexmWarning, match="would be idle"):
        assert _plan(gpu=True, device="cpu").context.device == "cpu"


def test_a_model_without_gpu_code_stays_on_the_cpu(gpu: str) -> None:
    given = {**small_2017(), "execution": {"device": "gpu", "require_gpu": True}}
    with pytest.raises(SpecError, match=r"the stage simexm2017_\w+ computes on the CPU only"):
        simulate(cells((20, 30, 30)), Simulation.from_mapping(given), voxel_size_nm=VOXEL_NM)


def test_a_worker_without_a_gpu_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cupy_device, "missing", lambda: "there is no CUDA device")
    cupy_device.gpu.cache_clear()
    with pytest.raises(RuntimeError, match=r"there is no CUDA device.*--device cpu"):
        cupy_device.gpu()


def test_too_little_memory_names_a_tile(
    gpu: str, stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulation = Simulation.from_mapping(spec(stored))
    plan = simulation.plan()
    monkeypatch.setattr(cupy_device, "free_bytes", lambda: device_bytes(plan, plan.tile) - 1)
    with pytest.raises(SpecError, match=r"needs .* of the GPU's memory, but .* are free.*set --tile \d+ \d+ \d+,"):
        simulation.run(tmp_path / "a.zarr", quiet=True)
    assert not (tmp_path / "a.zarr").exists()


@pytest.mark.slow
def test_full_memory_is_emptied_then_told(
    gpu: str, stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A block for which the memory is too full at first is made again, with no dye twice; one for which it stays so is told."""
    if gpu != "host":
        pytest.skip("fills no real memory")
    simulation = Simulation.from_mapping(spec(stored, keep=["emitters"], crop={"shape": [28, 36, 44]}))
    device = cupy_device.gpu()
    reference = simulation.run(tmp_path / "a.zarr", quiet=True)
    launch, left = device.launch, [3]

    def full(name: str, count: int, *arguments: Any) -> None:
        if name == "write_emitters":
            left[0] -= 1
            if left[0] == 0:
                raise MemoryError("4 GiB were asked for")
        launch(name, count, *arguments)

    monkeypatch.setattr(device, "launch", full)
    again = simulation.run(tmp_path / "b.zarr", quiet=True)
    assert left[0] < 0
    assert fingerprint(reference.path) == fingerprint(again.path)

    def always(name: str, count: int, *arguments: Any) -> None:
        raise MemoryError("4 GiB were asked for")

    monkeypatch.setattr(device, "launch", always)
    with pytest.raises(RunError, match=r"needs more memory than the GPU of .* has free.*set --tile"):
        simulation.run(tmp_path / "c.zarr", quiet=True)


def _plan(gpu: bool | None = None, **execution: Any) -> Any:
    from simexm.sources.arrays import ArrayVolume

    made = Simulation.from_mapping(build.spec(execution=execution))
    return made.plan(source=ArrayVolume(cells((20, 30, 30)), VOXEL_NM, None), gpu=gpu)
