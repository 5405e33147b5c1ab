"""How many workers compute a run."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from simexm.api import Simulation
from simexm.errors import SimexmWarning
from simexm.planning.plan import Plan
from simexm.run.backend import Backend
from tests.run.conftest import spec


def plan(**execution: Any) -> Plan:
    source = {"kind": "phantom", "shape": (64, 128, 128)}
    simulation = Simulation.from_mapping({**spec("-"), "source": source, "execution": execution})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return simulation.plan()


def test_workers_without_a_block_are_not_started_but_told_of() -> None:
    few, many = plan(), plan(min_blocks=7)
    assert len(few.blocks) == 4
    assert len(many.blocks) >= 7
    with pytest.warns(SimexmWarning, match=r"4 instead of 7 workers.*execution.min_blocks to 7"):
        assert Backend.of(few, workers=7).workers == 4
    assert Backend.of(few, workers=4).workers == 4
    assert Backend.of(many, workers=7).workers == 7
