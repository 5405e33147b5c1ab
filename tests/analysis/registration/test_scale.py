"""Alignments and transforms at sizes that do not fit into memory; by hand, since they take long."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import registration_scale

pytest.importorskip("SimpleITK")
pytestmark = pytest.mark.release
MiB = 2**20


def test_memory_does_not_grow_over_a_hundred_thousand_blocks(tmp_path: Path) -> None:
    few, many = tmp_path / "few", tmp_path / "many"
    for folder in (few, many):
        folder.mkdir()
    assert registration_scale.apply(many, 100_000) < registration_scale.apply(few, 2_000) + 64 * MiB


def test_a_worker_takes_less_memory_than_predicted(tmp_path: Path) -> None:
    assert registration_scale.align(tmp_path, 256, 2, 128) < 1
