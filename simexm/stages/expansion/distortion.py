"""How much tissue deforms: the error of measured length against length, as the field publishes it.

The statistic, throughout: the mean over pairs of points at distance L of |V_i - V_j|, where V is what is left of the
displacement after the best affine transform over the specimen. For a normal displacement that is equal along all axes it is
sqrt(8 / pi) = 1.6 times the root mean square of the change of length, the other statistic in use.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simexm.stages.expansion.field import Scale

Array = NDArray[np.float64]

PUBLISHED: dict[str, tuple[tuple[float, float], ...]] = {
    "liconn": ((0.6, 66.0), (1.9, 117.0), (5.0, 170.0), (10.0, 184.0), (16.0, 299.0)),
}
"""Curves as (length, um of tissue; error, nm). LICONN: cortex, expansion 17.3 (Tavakoli et al., Nature 2025); the
noise of the registration by which it was measured is part of it."""
MEAN_OF_RMS = math.sqrt(8 / math.pi)
"""Mean length of a vector of three equal independent normal components, over their standard deviation."""
_POINTS, _PAIRS, _DRAWS = 300, 100, 512


class Curve(NamedTuple):
    """Distortion by length: lengths, um of tissue; mean |V_i - V_j| and root mean square of the change of length, nm."""

    length_um: Array
    mean_nm: Array
    change_nm: Array


def _spline7(x: Array) -> Array:
    """B-spline of degree 7, the correlation of a cubic one with itself."""
    found = np.zeros_like(x)
    for k in range(9):
        found += (-1) ** k * math.comb(8, k) * np.maximum(np.abs(x) + 4.0 - k, 0.0) ** 7
    return np.where(np.abs(x) < 4.0, found / math.factorial(7), 0.0)


def correlation(apart_nm: Array, scale: Scale) -> Array:
    """Correlation of a scale's displacements at points that lie apart by vectors, (..., 3), averaged over positions."""
    along = _spline7(apart_nm / scale.spacing_nm) / _spline7(np.zeros(1))
    return np.asarray(along[..., 0] * along[..., 1] * along[..., 2])


def fitted(points: Sequence[tuple[float, float]]) -> tuple[Scale, ...]:
    """Scales whose curve comes closest to `points`, (length, um; error, nm), before an affine transform is taken out.

    Squared errors add up over scales, so that their shares are found by descent along each in turn; figures are rounded.
    """
    lengths, wanted = [1e3 * p for p, _ in points], [(e / MEAN_OF_RMS) ** 2 for _, e in points]
    first, count = min(lengths), next(k for k in range(64) if min(lengths) * 2.0**k > 2 * max(lengths))
    tried = [Scale((1.0,) * 3, float(f"{first * 2.0**k:.3g}")) for k in range(count)]
    rows = [
        [2 * (1 - float(correlation(np.array([length, 0.0, 0.0]), s))) / w for s in tried]
        for length, w in zip(lengths, wanted, strict=True)
    ]
    shares, left = [0.0] * count, [1.0] * len(rows)
    for _ in range(2000):
        for k in range(count):
            column = [row[k] for row in rows]
            by = sum(c * r for c, r in zip(column, left, strict=True)) / sum(c * c for c in column)
            new = max(0.0, shares[k] + by)
            left = [r - (new - shares[k]) * c for r, c in zip(left, column, strict=True)]
            shares[k] = new
    found = [(float(f"{math.sqrt(share):.3g}"), s) for share, s in zip(shares, tried, strict=True)]
    least = 0.02 * max(rms for rms, _ in found)
    return tuple(s._replace(rms_nm=(rms,) * 3) for rms, s in found if rms > least)


def expected(scales: Sequence[Scale], extent_nm: Sequence[float], lengths_um: Sequence[float]) -> Curve:
    """Expected curve of a displacement, after the best affine transform over a specimen of this extent."""
    draw = np.random.default_rng(0)
    box = np.asarray(extent_nm, np.float64)
    field = draw.random((_POINTS, 3)) * box
    fit = np.linalg.pinv(_affine(field, box))
    inside = {tuple(s): correlation(field[:, None] - field, s) for s in scales}
    normal = draw.standard_normal((_DRAWS, 3))
    mean, change = [], []
    for length in lengths_um:
        one, two = _pairs(draw, box, 1e3 * length)
        slope = (_affine(one, box) - _affine(two, box)) @ fit
        variance = np.zeros((len(one), 3))
        for s in scales:
            apart = 2 * (1 - correlation(one - two, s))
            seen = correlation(one[:, None] - field, s) - correlation(two[:, None] - field, s)
            left = apart - 2 * (slope * seen).sum(axis=1) + np.einsum("pi,ij,pj->p", slope, inside[tuple(s)], slope)
            variance += np.maximum(left, 0)[:, None] * np.square(s.rms_nm)
        along = (one - two) / np.linalg.norm(one - two, axis=1)[:, None]
        mean.append(np.sqrt((variance[:, None] * normal**2).sum(axis=2)).mean())
        change.append(math.sqrt((variance * along**2).sum(axis=1).mean()))
    return Curve(np.array(lengths_um, np.float64), np.array(mean), np.array(change))


def measured(
    displaced: Callable[[Array], Array], extent_nm: Sequence[float], lengths_um: Sequence[float], pairs: int = 4000
) -> Curve:
    """Measured curve: `displaced` returns where points, (n, 3), nm, lie after deformation, in the same unit."""
    draw = np.random.default_rng(1)
    box = np.asarray(extent_nm, np.float64)
    field = draw.random((pairs, 3)) * box
    fit = np.linalg.lstsq(_affine(field, box), displaced(field) - field, rcond=None)[0]

    def left(at: Array) -> Array:
        return np.asarray(displaced(at) - at - _affine(at, box) @ fit)

    mean, change = [], []
    for length in lengths_um:
        one, two = _pairs(draw, box, 1e3 * length, pairs)
        apart = left(one) - left(two)
        along = (one - two) / np.linalg.norm(one - two, axis=1)[:, None]
        mean.append(np.linalg.norm(apart, axis=1).mean())
        change.append(math.sqrt(np.square((apart * along).sum(axis=1)).mean()))
    return Curve(np.array(lengths_um, np.float64), np.array(mean), np.array(change))


def lengths_of(extent_nm: Sequence[float], scales: Sequence[Scale] = ()) -> tuple[float, ...]:
    """Lengths, um, at which a specimen's curve is worth telling: powers of 2 from the shortest scale to half the diagonal."""
    longest = math.dist((0, 0, 0), tuple(extent_nm)) / 2e3
    shortest = min((s.correlation_nm for s in scales), default=1e3) / 4e3
    first = math.ceil(math.log2(shortest))
    return tuple(2.0**k for k in range(first, max(first + 1, math.floor(math.log2(longest)) + 1)))


def _affine(at: Array, box: Array) -> Array:
    return np.column_stack([np.ones(len(at)), at / box - 0.5])


def _pairs(draw: np.random.Generator, box: Array, length_nm: float, count: int = _PAIRS) -> tuple[Array, Array]:
    """Pairs of points of a box that lie apart by `length_nm`, (n, 3) each, in any direction that fits."""
    ones: list[Array] = []
    twos: list[Array] = []
    while sum(map(len, ones)) < count:
        along = draw.standard_normal((4 * count, 3)) * np.minimum(1.0, box / length_nm)
        along *= length_nm / np.linalg.norm(along, axis=1)[:, None]
        one = draw.random((4 * count, 3)) * box
        fits = ((one + along >= 0) & (one + along <= box)).all(axis=1)
        ones.append(one[fits])
        twos.append((one + along)[fits])
    return np.concatenate(ones)[:count], np.concatenate(twos)[:count]
