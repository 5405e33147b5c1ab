"""Axes, units and voxel sizes as other programs write them."""

from __future__ import annotations

import re
from fractions import Fraction

import pytest

from simexm.errors import SourceError
from simexm.sources.axes import implausible, nm_per, spatial_order


@pytest.mark.parametrize(
    ("unit", "nm"),
    [
        ("nm", 1), ("Nanometers", 1), ("um", 1000), ("µm", 1000), ("μm", 1000), ("microns", 1000), ("Micrometre", 1000),
        (b"micrometers", 1000), ("angstrom", Fraction(1, 10)), ("Å", Fraction(1, 10)), ("mm", 10**6), ("metres", 10**9),
        ("pixel", None), ("s", None), ("", None), (None, None),
    ],
)  # fmt: skip
def test_a_unit_is_known_by_any_spelling(unit: str | bytes | None, nm: Fraction | None) -> None:
    assert nm_per(unit) == nm


@pytest.mark.parametrize(
    ("names", "shape", "order"),
    [("zyx", (2, 3, 4), (0, 1, 2)), ("XYZ", (4, 3, 2), (2, 1, 0)), ("tzyxc", (1, 2, 3, 4, 1), (1, 2, 3))],
)
def test_axes_are_found_by_their_names(names: str, shape: tuple[int, ...], order: tuple[int, ...]) -> None:
    assert spatial_order("a.h5", tuple(names), shape) == order


@pytest.mark.parametrize(
    ("names", "shape", "told"),
    [("zyx", (1, 2, 3, 4), "3 axes"), ("zzx", (2, 3, 4), "once each"), ("tzyx", (5, 2, 3, 4), "t of 5")],
)
def test_axes_that_leave_a_doubt_are_refused(names: str, shape: tuple[int, ...], told: str) -> None:
    with pytest.raises(SourceError, match=re.escape(told)):
        spatial_order("a.h5", tuple(names), shape)


def test_a_voxel_is_larger_than_an_atom_and_smaller_than_a_millimetre() -> None:
    assert implausible((40.0, 32.0, 32.0)) is None
    assert "0.004" in (implausible((0.004, 0.004, 0.04)) or "")
    assert implausible((1e12, 40.0, 40.0))
