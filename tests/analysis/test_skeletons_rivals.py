"""Skeletons beside kimimaro (pip install kimimaro), on the real cortex volume. Times are of the CPU, one core, alternating."""

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

from simexm.geometry.grid import Box
from simexm.kernels.objects.components import Components
from simexm.kernels.skeletons.surface import surface_distance
from simexm.kernels.skeletons.trace import trace
from simexm.kernels.skeletons.units import Units
from tests.build import VOXEL_NM

pytestmark = [pytest.mark.rival, pytest.mark.data, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def volume() -> NDArray[Any]:
    folder = os.environ.get("SIMEXM_TEST_DATA")
    if not folder:
        pytest.skip("SIMEXM_TEST_DATA is not set")
    found: NDArray[Any] = tifffile.imread(Path(folder, "pinky40_512.tif"))
    return np.ascontiguousarray(found[192:320, 192:320, 192:320])


def cpu_s(work: Callable[[], Any]) -> float:
    begin = time.process_time()
    work()
    return time.process_time() - begin


def cable_um(values: NDArray[Any]) -> float:
    """Cable of all skeletons, scale 1.5 and 300 nm."""
    units, found = Units.of(VOXEL_NM), Components.of(values, 26)
    objects = found.painted(np.arange(1, len(found) + 1, dtype=np.int32))
    surface = surface_distance(values, Box.of_shape(values.shape), units.sides)
    every = np.ones(len(found), np.bool_)
    made = trace(objects, surface, units, every, np.empty((0, 3), np.int64), 1.5, 300)
    joined = made.parent >= 0
    steps = (made.voxel[joined] - made.voxel[made.parent[joined]]) * VOXEL_NM
    return float(np.sqrt((steps**2).sum(axis=1)).sum()) / 1000


def test_cable_is_that_of_kimimaro_in_no_more_time(volume: NDArray[Any]) -> None:
    kimimaro = pytest.importorskip("kimimaro")
    teasar = {
        "scale": 1.5, "const": 300, "soma_detection_threshold": 1e9, "soma_acceptance_threshold": 1e9,
    }  # fmt: skip

    def theirs() -> float:
        options: dict[str, Any] = {"dust_threshold": 0, "fix_borders": False, "progress": False, "parallel": 1}
        made = kimimaro.skeletonize(volume, teasar_params=teasar, anisotropy=VOXEL_NM, **options)
        return float(sum(s.cable_length() for s in made.values())) / 1000

    one, other = cable_um(volume), theirs()
    ratios = [cpu_s(lambda: cable_um(volume)) / cpu_s(theirs) for _ in range(2)]
    print(f"cable {one:.0f} and {other:.0f} um, CPU ratios {ratios}")
    assert one == pytest.approx(other, rel=0.08)
    assert np.median(ratios) <= 1.2
