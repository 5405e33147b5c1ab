"""Laws of transforms: they invert, bound what they move, and join exactly."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray

from simexm.geometry.grid import NmBox, exact3
from simexm.geometry.transform import IDENTITY, Points, Specimen, Transform, UniformExpansion, compose
from simexm.stages.expansion.expansion import Expansion
from simexm.stages.expansion.rounds import Displacement
from tests.geometry.warp import Warp

WARP = Warp(Fraction(9, 2), 300, 500, 400)
TRANSFORMS: dict[str, Transform] = {
    "identity": IDENTITY,
    "uniform": UniformExpansion(Fraction(9, 2)),
    "warp": WARP,
    "chain": compose([UniformExpansion(Fraction(3, 2)), WARP, UniformExpansion(Fraction(2))]),
}
SPECIMEN = Specimen(7, exact3((120, 80, 40)), exact3((600, 1000, 1300)))
UNEVEN = Expansion(
    factor=4.5,
    anisotropy=(1.05, 0.97, 1.0),
    shear={"zy": 0.03, "zx": -0.02, "xy": 0.01},
    displacement=(Displacement(rms_nm=(30, 25, 20), correlation_um=0.4), Displacement(rms_nm=60, correlation_um=2)),
).transform(SPECIMEN)
TRANSFORMS |= {
    "uneven": UNEVEN,
    "stretched": Expansion(matrix=((1.02, 0.0, 0.01), (0.0, 0.9, 0.1), (0.0, -0.1, 0.9))).transform(SPECIMEN),
    "coarse": Expansion(displacement=(Displacement(rms_nm=80, correlation_um=9),)).transform(SPECIMEN),
}
BOX = NmBox(exact3((-100, 50, 0.5)), exact3((400, 930, 1200)))


def _within(box: NmBox, seed: int = 0) -> Points:
    z, y, x = (
        np.random.default_rng(seed).uniform([float(v) for v in box.start], [float(v) for v in box.stop], (5000, 3)).T
    )
    return z, y, x


def _holds(box: NmBox, points: Points, slack: float = 1e-9) -> bool:
    return all(
        ((float(a) - slack <= p) & (p <= float(b) + slack)).all()
        for a, b, p in zip(box.start, box.stop, points, strict=True)
    )


def _same(a: Points, b: Points, within_nm: float = 1e-6) -> bool:
    pairs: zip[tuple[NDArray[np.float64], NDArray[np.float64]]] = zip(a, b, strict=True)
    return all(np.abs(p - q).max() < within_nm for p, q in pairs)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_points_come_back_and_boxes_hold_them(name: str) -> None:
    transform = TRANSFORMS[name]
    points = _within(BOX)
    moved = transform.apply(points)
    assert _same(transform.invert(moved), points, 4e-3 if name in ("uneven", "coarse") else 1e-6)
    assert _holds(transform.bound(BOX), moved)
    wanted = NmBox(exact3((500, 700, 900)), exact3((1500, 2500, 3000)))
    assert _holds(transform.bound_inverse(wanted), transform.invert(_within(wanted, 1)))
    in_place = tuple(axis.copy() for axis in points)
    transform.move((in_place[0], in_place[1], in_place[2]))
    assert all((a == b).all() for a, b in zip(in_place, moved, strict=True))


@pytest.mark.parametrize("depth", [3.0, 40.0, 2000.0])
@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_layer_lies_within_its_depth_above_its_floor(name: str, depth: float) -> None:
    transform = TRANSFORMS[name]
    z, y, x = _within(BOX, 2)
    deepest = float(transform.depth(depth, BOX))
    lowest = -math.inf
    assert transform.lowest_z(lowest, BOX) == lowest
    for floor in np.linspace(-100, 400, 23):
        found = transform.lowest_z(float(floor), BOX)
        assert found >= lowest
        lowest = found
        moved = transform.apply((z, y, x))[0]
        assert (moved[z >= floor] >= found).all()
        assert (moved[(z >= floor) & (z < floor + depth)] <= found + deepest + 1e-9).all()


def test_uniform_expansions_join_exactly() -> None:
    three: Transform = compose([UniformExpansion(Fraction(1, 3)), IDENTITY, UniformExpansion(Fraction(9))])
    assert three == UniformExpansion(Fraction(3))
    assert three.bound_inverse(three.bound(BOX)) == BOX
    assert compose([]) == IDENTITY
    assert compose([IDENTITY, WARP]) == WARP
    chain = TRANSFORMS["chain"]
    assert chain.scale == Fraction(27, 2)
    assert not chain.is_uniform
