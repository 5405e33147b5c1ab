"""The law of memory: a worker needs no more than `plan` says, and not much less."""

from __future__ import annotations

import pytest

from benchmarks.memory import EXPERIMENTS, RUNS, Figures, measure, measure_run


def obeys(found: Figures) -> bool:
    return 0.6 * found.predicted <= found.peak <= found.predicted


@pytest.mark.parametrize(
    "name",
    [
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("confocal", "expanded 20 times", "pan-stain")),
        *(pytest.param(f"{name}, four channels", marks=pytest.mark.release) for name in ("confocal", "widefield")),
    ],
)
def test_the_peak_lies_below_the_prediction_and_not_far(name: str) -> None:
    found = measure(name, EXPERIMENTS[name]())
    assert obeys(found), found


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.release if name == "first run" else pytest.mark.slow) for name in RUNS],
)
def test_threads_chunks_and_the_compiler_are_predicted(name: str) -> None:
    found = measure_run(name)
    assert obeys(found), found
