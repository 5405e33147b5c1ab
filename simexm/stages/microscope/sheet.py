"""Light that excites dyes by their place in the field: a sum of a few products, so that each costs one transform.

The photons that a dye emits depend on its distance from the plane, z, and its place in the field, p:

    E(z; p) = sum over k of  a_k(p) u_k(z).

The nodes of the simulation grid are weighted with a_k, and each term has a response of its own, with u_k in place of the
light. The terms are those of an elimination with complete pivoting (Goreinov & Tyrtyshnikov, Contemp. Math. 280, 47, 2001):
u_k is, but for a factor, E at one place of the field, less what the terms before it give there. So the error is bounded in the
maximum, both factors can be computed anywhere from E alone, and no result depends on the machine. A sheet that is the same
everywhere has one term.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from simexm.spectra.fluorophores import Fluorophore
    from simexm.stages.microscope.field import ChromaticShift, FieldPlan, Part, Range
    from simexm.stages.microscope.optics import Optics
    from simexm.stages.microscope.optics_plan import Channel, OpticsPair, OpticsPlan

Array = NDArray[np.float64]
Lit = Callable[[int, Array, Array, Array], Array]
"""Photons of a pair, by its number, at distances below its focus (z) and places from the axis (y, x), as they broadcast."""
ERROR = 5e-4
"""Largest error of the sum, as a share of the most photons of a pair."""
MOST_TERMS = 32
PLACES = 129
"""Places along an axis at which the light is sampled."""
_OFFSETS = 400


@dataclass(frozen=True)
class SheetTerms:
    """The terms, by the places and distances that were eliminated.

    Attributes
    ----------
    places
        Place from the axis, y and x, of each term, nm of expanded tissue.
    columns
        Pair and distance z of each term.
    scale
        Most photons of each pair.
    weights
        a_s at the place of term t, by t and s < t.
    values
        u_s at the column of term t, by t and s <= t.
    error
        Largest error found, as a share of the most photons.
    axes
        Axes of the field along which the light changes: y, x, both or none.
    """

    places: tuple[tuple[float, float], ...]
    columns: tuple[tuple[int, float], ...]
    scale: tuple[float, ...]
    weights: tuple[tuple[float, ...], ...]
    values: tuple[tuple[float, ...], ...]
    error: float
    axes: str

    @property
    def rank(self) -> int:
        """Number of terms."""
        return len(self.places)

    def along_z(self, lit: Lit, pair: int, z_nm: Array) -> Array:
        """u_k of a pair in photons, (terms, nz)."""
        found = np.empty((self.rank, z_nm.size))
        for t, (y, x) in enumerate(self.places):
            found[t] = lit(pair, z_nm, np.array(y), np.array(x)) / self.scale[pair]
            for s in range(t):
                found[t] -= self.weights[t][s] * found[s]
        return found * self.scale[pair]

    def over_field(self, lit: Lit, y_nm: Array, x_nm: Array) -> Array:
        """a_k at places from the axis, (terms, *shape), where y and x broadcast to the shape."""
        found: list[Array] = []
        for t, (pair, z) in enumerate(self.columns):
            value = lit(pair, np.array(z), y_nm, x_nm) / self.scale[pair]
            for s in range(t):
                value = value - self.values[t][s] * found[s]
            found.append(value / self.values[t][t])
        return np.stack(found)


def decompose(lit: Lit, pairs: int, z_nm: Array, y_nm: Array, x_nm: Array, axes: str) -> SheetTerms:
    """Decompose light that is sampled at distances (nz,) and at all combinations of places y (ny, 1) and x (1, nx).

    Raises
    ------
    ValueError
        If more than `MOST_TERMS` are needed.
    """
    y, x = (v.ravel() for v in np.broadcast_arrays(y_nm, x_nm))
    rows = [lit(n, z_nm[None, :], y[:, None], x[:, None]) for n in range(pairs)]
    scale = tuple(float(r.max(initial=0.0)) or 1.0 for r in rows)
    left = np.concatenate([r / s for r, s in zip(rows, scale, strict=True)], axis=1)
    places: list[tuple[float, float]] = []
    columns: list[tuple[int, float]] = []
    a: list[tuple[Array, int]] = []
    u: list[tuple[Array, int]] = []
    most = float(np.abs(left).max())
    while most > ERROR or not places:
        if len(places) == MOST_TERMS:
            raise ValueError(f"{MOST_TERMS} terms leave an error of {most:.1e}")
        i, j = np.unravel_index(int(np.abs(left).argmax()), left.shape)
        places.append((float(y[i]), float(x[i])))
        columns.append((int(j) // z_nm.size, float(z_nm[int(j) % z_nm.size])))
        row, column = left[i].copy(), left[:, j] / (left[i, j] or 1.0)
        a.append((column, int(i)))
        u.append((row, int(j)))
        left -= column[:, None] * row[None, :]
        most = float(np.abs(left).max())
    weights = tuple(tuple(float(a[s][0][i]) for s in range(t)) for t, (_, i) in enumerate(a))
    values = tuple(tuple(float(u[s][0][j]) for s in range(t + 1)) for t, (_, j) in enumerate(u))
    return SheetTerms(tuple(places), tuple(columns), scale, weights, values, most, axes)


def lit_of(optics: Optics, field: FieldPlan, seen: Sequence[tuple[Channel, Fluorophore]]) -> Lit:
    """Photons of the pairs of an image; the light lies where the stage puts it, the focus where the optics do."""

    def lit(pair: int, z_nm: Array, y_nm: Array, x_nm: Array) -> Array:
        channel, dye = seen[pair]
        deeper = field.depth_nm(y_nm, x_nm) + field.shifts[pair].axial_nm
        return optics.emitted_at(channel, dye, z_nm + deeper, y_nm, x_nm)

    return lit


def lit_by(optics: Optics, plan: OpticsPlan, dyes: Mapping[str, Fluorophore]) -> Lit:
    """`lit_of` the pairs of a plan."""
    assert plan.field is not None
    channels = {c.name: c for c in optics.all_channels}
    return lit_of(optics, plan.field, [(channels[p.channel], dyes[p.dye]) for p in plan.pairs])


def photons(optics: Optics, plan: OpticsPlan, pair: OpticsPair, dye: Fluorophore, z_nm: Array) -> Array:
    """u_k of a pair at distances below its focus, (terms, nz)."""
    assert plan.terms is not None
    return plan.terms.along_z(lit_by(optics, plan, {p.dye: dye for p in plan.pairs}), plan.pairs.index(pair), z_nm)


def factors(
    plan: OpticsPlan, part: Part, shift: ChromaticShift, lit: Lit, spans: Sequence[tuple[int, int, float, float]]
) -> NDArray[np.float32]:
    """a_k at the nodes of a grid, (terms, ny or 1, nx or 1).

    `spans` are, along y and x, the first node, their number, their distance in nm, and the place of node 0 in nodes.
    """
    assert plan.terms is not None
    assert plan.field is not None
    y, x = (
        plan.field.from_axis((np.arange(first, first + count, dtype=np.float64) + zero) * nm, axis_nm, shift, axis)
        for (first, count, nm, zero), axis_nm, axis in zip(spans, part.axis_nm, (1, 2), strict=True)
    )
    y, x = (v if axis in plan.terms.axes else np.zeros(1) for v, axis in zip((y, x), "yx", strict=True))
    return plan.terms.over_field(lit, y[:, None], x[None, :]).astype(np.float32)


def changing_axes(field: FieldPlan, along: str | None) -> str:
    """Axes of the field along which a sheet that propagates `along` one changes, or the focus relative to it."""
    return "yx" if field.radius_nm != float("inf") else along or ""


def places(field: FieldPlan, halo_nm: float, along: str | None, count: int = PLACES) -> tuple[Array, Array]:
    """Places of the field at which to sample light, y (ny, 1) and x (1, nx): few where it hardly changes."""
    axes, found = changing_axes(field, along), []
    for axis, ends in zip("yx", field.extent_nm(halo_nm), strict=True):
        n = count if axis == along else count // 4 + 1
        found.append(_between(ends, n) if axis in axes else np.zeros(1))
    return found[0][:, None], found[1][None, :]


def distances(node_nm: float, reach: int, beyond_nm: float) -> Array:
    """Distances at which to sample light: node planes of the range, and some to the end of the specimen."""
    near = np.arange(-reach, reach + 1, dtype=np.float64) * node_nm
    near = near[:: max(1, near.size // _OFFSETS)]
    if beyond_nm <= reach * node_nm:
        return near
    far = _between((reach * node_nm, beyond_nm), 101)[1:]
    return np.concatenate([-far[::-1], near, far])


def _between(ends: Range, count: int) -> Array:
    """Evenly spaced values."""
    low, high = ends
    return low + np.arange(count, dtype=np.float64) * ((high - low) / (count - 1))
