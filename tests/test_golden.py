"""A change of the bytes of results does not go unnoticed, and is followed by another results version."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from benchmarks import digests
from simexm import Simulation
from simexm.planning import planner
from simexm.version import RESULTS_VERSION
from tests import golden

REMEDY = "bytes changed: raise RESULTS_VERSION in simexm/version.py and run `python -m tests.golden`"


def differs(then: dict[str, Any], now: dict[str, Any], exact: bool) -> bool:
    """Whether an array is another one; see `golden` for what that means on another type of CPU."""
    if then["digest"] == now["digest"]:
        return False
    if exact or "samples" not in then or np.shape(now.get("samples", ())) != np.shape(then["samples"]):
        return True
    return bool(np.abs(np.subtract(now["samples"], then["samples"])).max() > then["within"])


def differing(kept: dict[str, dict[str, Any]], now: dict[str, dict[str, Any]], exact: bool) -> list[str]:
    """Arrays and tables that are others, missing or new."""
    found = [
        f"{run}/{key}" for run in kept.keys() | now.keys() for key in kept.get(run, {}).keys() ^ now.get(run, {}).keys()
    ]
    for run, entries in kept.items():
        found += [
            f"{run}/{k}" for k, then in entries.items() if k in now.get(run, {}) and differs(then, now[run][k], exact)
        ]
    return sorted(found)


def test_bytes_change_with_the_results_version_alone() -> None:
    table = json.loads(golden.TABLE.read_text())
    assert table["results_version"] == RESULTS_VERSION, "RESULTS_VERSION is another one: run `python -m tests.golden`"
    changed = differing(table["runs"], golden.computed(), exact=table["made_on"] == golden.made_on())
    assert not changed, f"{REMEDY}\n" + "\n".join(changed)


def test_comparison_sees_one_dye_and_one_pixel() -> None:
    kept = json.loads(golden.TABLE.read_text())["runs"]
    for key in ("labelled", "expected", "cells/dyes_membrane"):
        now = {run: dict(entries) for run, entries in kept.items()}
        now["confocal"][key] = {**kept["confocal"][key], "digest": "another"}
        samples = kept["confocal"][key].get("samples")
        assert differing(kept, now, exact=True) == [f"confocal/{key}"]
        if samples:  # rounded otherwise by another CPU: the same; more than that: not
            now["confocal"][key]["samples"] = [s * (1 + 1e-7) for s in samples]
            assert differing(kept, now, exact=False) == []
            now["confocal"][key]["samples"] = [s * (1 + 1e-5) for s in samples]
        assert differing(kept, now, exact=False) == [f"confocal/{key}"]
    del now["stored"]
    assert any(each.startswith("stored/") for each in differing(kept, now, exact=False))


def test_results_version_is_part_of_the_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    simulation = Simulation.from_mapping(digests.spec(digests.CONFOCAL))
    before = simulation.plan()
    planner._versions.cache_clear()
    monkeypatch.setattr(planner, "RESULTS_VERSION", RESULTS_VERSION + 1)
    try:
        after = simulation.plan()
        assert after.hash != before.hash
        assert after.versions == {**before.versions, "results": str(RESULTS_VERSION + 1)}
    finally:
        planner._versions.cache_clear()
