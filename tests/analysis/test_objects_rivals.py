"""Objects, contacts and scores beside cc3d (pip install connected-components-3d) and scikit-image, on the real cortex volume.

Times are of the CPU, one core, alternating in one process.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from simexm.analysis.objects.contacts import Contacts
from simexm.analysis.objects.objects import Objects
from simexm.analysis.scores.segmentation import SegmentationScore
from simexm.kernels.objects.components import components
from simexm.kernels.objects.contacts import contacts
from simexm.kernels.objects.runs import Runs
from simexm.result.result import Result
from tests.build import VOXEL_NM

pytestmark = [pytest.mark.rival, pytest.mark.data, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def volume() -> NDArray[Any]:
    folder = os.environ.get("SIMEXM_TEST_DATA")
    if not folder:
        pytest.skip("SIMEXM_TEST_DATA is not set")
    found: NDArray[Any] = tifffile.imread(Path(folder, "pinky40_512.tif"))
    return found


def cpu_s(work: Callable[[], Any]) -> float:
    begin = time.process_time()
    work()
    return time.process_time() - begin


def ratio(ours: Callable[[], Any], theirs: Callable[[], Any]) -> float:
    """Median of alternating measurements, after one of each that does not count."""
    ours()
    theirs()
    found = [cpu_s(ours) / cpu_s(theirs) for _ in range(3)]
    print([round(f, 3) for f in found])
    return float(np.median(found))


def is_bijection(one: NDArray[Any], other: NDArray[Any]) -> bool:
    """Whether each value of one array has one value of the other, and no two the same."""
    of = np.zeros(int(one.max()) + 1, np.int64)
    of[one.ravel()] = other.ravel()
    known = np.zeros(of.size, np.bool_)
    known[one.ravel()] = True
    return bool(np.array_equal(of[one], other)) and np.unique(of[known]).size == int(known.sum())


def test_components_are_those_of_cc3d_in_at_most_its_time_and_a_fifth(volume: NDArray[Any], tmp_path: Path) -> None:
    cc3d = pytest.importorskip("cc3d")
    theirs = cc3d.connected_components(volume, connectivity=6)
    assert theirs.max() == 4744
    assert is_bijection(components(volume, 6), theirs)
    np.save(tmp_path / "v.npy", volume)
    settings = Objects(connectivity=6, voxel_size_nm=VOXEL_NM)
    result = settings.run(tmp_path / "v.npy", output=tmp_path / "o.zarr", quiet=True, workers=1)
    assert result.table("objects").num_rows == 4744
    assert is_bijection(np.asarray(result.array(of="labels/components")[:]), theirs)
    assert ratio(lambda: components(volume, 6), lambda: cc3d.connected_components(volume, connectivity=6)) <= 1.2


def test_contacts_are_those_of_cc3d_in_less_than_half_its_time(volume: NDArray[Any], tmp_path: Path) -> None:
    cc3d = pytest.importorskip("cc3d")

    def theirs() -> Any:
        return cc3d.contacts(volume, connectivity=6, surface_area=True, anisotropy=VOXEL_NM)

    def ours() -> Any:
        return contacts(Runs.of(volume), (0, 0, 0), volume.shape, (0, 0, 0), faces_only=True)

    np.save(tmp_path / "v.npy", volume)
    result = Contacts(voxel_size_nm=VOXEL_NM).run(tmp_path / "v.npy", output=tmp_path / "c.zarr", quiet=True, workers=1)
    table = result.table("contacts")
    table = table.filter(table["faces"].to_numpy() > 0)
    found = {
        (a, b): area
        for a, b, area in zip(*(table[n].to_pylist() for n in ("first", "second", "faces_um2")), strict=True)
    }
    expected = {(int(min(pair)), int(max(pair))): float(area) * 1e-6 for pair, area in theirs().items()}
    assert len(found) == 39_062
    assert found.keys() == expected.keys()
    assert sum(found.values()) == pytest.approx(23_453.2, abs=0.1)
    assert max(abs(found[pair] / expected[pair] - 1) for pair in expected) < 1e-5  # cc3d adds up in 32 bits
    assert ratio(ours, theirs) <= 0.45


@pytest.mark.parametrize("zero_is", ["segment", "missing"])
def test_scores_are_those_of_scikit_image(volume: NDArray[Any], tmp_path: Path, zero_is: Any) -> None:
    metrics = pytest.importorskip("skimage.metrics")
    truth = volume[200:264, 200:328, 200:328]
    segments = components(truth, 6).astype(np.uint32)
    segments[20:24] = 0
    segments = np.where(segments % 5 == 1, segments // 5 + 1, segments)  # merged with others
    for name, values in (("truth", truth), ("segments", segments)):
        np.save(tmp_path / f"{name}.npy", values)
    settings = SegmentationScore(zero_is=zero_is, voxel_size_nm=VOXEL_NM, block_voxels=64)
    where = tmp_path / "s.zarr"
    result: Result = settings.run(tmp_path / "segments.npy", tmp_path / "truth.npy", output=where, quiet=True)
    got = {s["score"]: s["value"] for s in result.scores().to_pylist() if not s["subset"]}
    inside = truth > 0
    error, _, _ = metrics.adapted_rand_error(truth[inside], segments[inside])
    assert got["rand_skimage"] == pytest.approx(error, abs=1e-9)
    some = inside if zero_is == "segment" else inside & (segments > 0)
    merge, split = metrics.variation_of_information(segments[some], truth[some])
    found = sorted((got["voi_split"], got["voi_merge"]))
    assert found == pytest.approx(sorted((merge, split)), abs=1e-9)
    assert got["voi_merge"] > 0
