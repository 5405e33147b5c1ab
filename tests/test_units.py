"""Sizes, times and counts as text."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simexm.units import count, duration, size, times

FACTOR = {unit: 1024**n for n, unit in enumerate(("B", "KiB", "MiB", "GiB", "TiB", "PiB"))}


@given(st.integers(0, 2**62))
def test_a_size_is_within_half_a_percent_and_has_no_exponent(nbytes: int) -> None:
    number, unit = size(nbytes).split()
    assert "e" not in number or nbytes > 1023 * 2**50
    assert float(number) * FACTOR[unit] == pytest.approx(nbytes, rel=0.005, abs=0.5)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (3.21, "3.21 s"), (89.9, "89.9 s"), (90, "1 min 30 s"), (3599.6, "1 h 00 min"), (9000, "2 h 30 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_numbers_along_axes_and_counts() -> None:
    assert times((np.int64(10**12), 2, 3)) == "1000000000000 x 2 x 3"
    assert times((Fraction(325, 2), 40.0)) == "162.5 x 40"
    assert (count(1, "block"), count(0, "block")) == ("1 block", "0 blocks")
