"""Expansion of the gel: by one factor, and as uneven as tissue does."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import cached_property
from typing import Literal, Self

import numpy as np
from pydantic import Field as Bound
from pydantic import model_validator

from simexm.geometry.geometry import Geometry
from simexm.geometry.grid import Box, exact, three
from simexm.geometry.transform import Chain, Specimen, Transform, UniformExpansion
from simexm.kernels.emission.points import Emitters
from simexm.kernels.emission.thinning import outside, thinned
from simexm.random import derive_key
from simexm.stages.contract import RunContext, TileState
from simexm.stages.expansion.deformation import NO_CHANGE, Deformation, Matrix
from simexm.stages.expansion.distortion import PUBLISHED, expected, fitted, lengths_of
from simexm.stages.expansion.field import Field, Scale
from simexm.stages.expansion.moving import Moving
from simexm.stages.expansion.rounds import AXES, Displacement, Round, Shear, Slope, Stretch, refuse_folds
from simexm.stages.frames import NO_FRAME, Frame, FrameAxis


class Expansion(Moving):
    """Expansion of the gel. Uniform about the specimen's corner, or uneven, as far as any field but `factor` is given.

    Attributes
    ----------
    factor
        Linear factor; 4 to 4.5 for the first protocol (Chen, Tillberg & Boyden, Science 2015), up to 20 for iterated
        ones.
    anisotropy
        Further stretch along z, y, x, about the middle of the specimen.
    shear
        Shift along one axis for each unit of another: `{zy: 0.01}` moves tissue along z by 1 % of its y.
    matrix
        Anisotropy and shear in one: rows and columns z, y, x.
    displacement
        Smooth random displacement of the tissue, as a sum of scales.
    distortion
        The same by the error of measured length: pairs of length in um and error in nm, or the name of a published curve.
        See `docs/deformation.md` for the statistic.
    rounds
        How the gel lies in each round of imaging, in order: each round has its own image and label images. `[{}, {}]` are
        two rounds in which it lies alike.
    """

    stage: Literal["expansion"] = "expansion"
    factor: float = Bound(default=4.0, ge=1, le=100)
    anisotropy: tuple[Stretch, Stretch, Stretch] | None = None
    shear: dict[Shear, Slope] = Bound(default_factory=dict)
    matrix: tuple[tuple[float, float, float], tuple[float, float, float], tuple[float, float, float]] | None = None
    displacement: tuple[Displacement, ...] = Bound(default=(), max_length=16)
    distortion: Literal["liconn"] | tuple[tuple[float, float], ...] | None = None
    rounds: tuple[Round, ...] = Bound(default=(), max_length=99)

    @model_validator(mode="after")
    def _one_linear_part(self) -> Self:
        if self.matrix is None:
            return self
        if self.anisotropy or self.shear:
            raise ValueError("matrix is given beside anisotropy or shear, so it is unclear which counts; leave one out")
        if any(abs(v - (i == j)) > 1 for i, row in enumerate(self.matrix) for j, v in enumerate(row)):
            raise ValueError(
                f"matrix {self.matrix} is far from the identity, but the overall expansion is the factor's; give stretches near "
                "1 on the diagonal, and shears and rotations near 0 beside it"
            )
        return self

    @model_validator(mode="after")
    def _first_round(self) -> Self:
        if self.rounds and self.rounds[0].moves:
            raise ValueError(
                "the first of rounds moves the gel, but the other rounds' shifts and the truth count from where it lies in "
                "the first; leave it empty ({}), and give anisotropy, shear or displacement for all rounds"
            )
        return self

    @model_validator(mode="after")
    def _no_mirror(self) -> Self:
        (a, b, c), (d, e, f), (g, h, i) = self._linear
        determinant = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)
        along = "" if a > 0 else f" and stretches z by {a:.3g}"
        if determinant < 0.1 or a <= 0:
            raise ValueError(
                f"the matrix of anisotropy and shear has the determinant {determinant:.3g}{along}: it would mirror or "
                "flatten the tissue; give stretches near 1 on the diagonal, and shears near 0 beside it"
            )
        return self

    @model_validator(mode="after")
    def _no_fold(self) -> Self:
        if self.displacement and self.distortion:
            raise ValueError("displacement and distortion both say how uneven the expansion is; leave one out")
        if isinstance(self.distortion, tuple):
            lengths = [p for p, _ in self.distortion]
            if not lengths or sorted(set(lengths)) != lengths or min(min(p) for p in self.distortion) <= 0:
                raise ValueError(
                    "distortion needs pairs of length (um) and error (nm), positive, in ascending order of length, such as "
                    "[[1, 50], [10, 150]]"
                )
            if max(lengths) > 1e3 * min(lengths):
                raise ValueError(
                    f"distortion spans lengths from {min(lengths):g} to {max(lengths):g} um, but at most a factor of 1000 can be "
                    "fitted; leave some out"
                )
        refuse_folds(self.scales)
        return self

    @property
    def _linear(self) -> Matrix:
        """Linear part beside the factor."""
        if self.matrix is not None:
            return self.matrix
        rows = [list(row) for row in NO_CHANGE]
        for n, stretch in enumerate(self.anisotropy or ()):
            rows[n][n] = stretch
        for name, slope in self.shear.items():
            rows[AXES.index(name[0])][AXES.index(name[1])] = slope
        return three((row[0], row[1], row[2]) for row in rows)

    @cached_property
    def scales(self) -> tuple[Scale, ...]:
        """Scales of the displacement."""
        if self.distortion is not None:
            return fitted(PUBLISHED[self.distortion] if isinstance(self.distortion, str) else self.distortion)
        return tuple(s.scale for s in self.displacement if max(s.scale.rms_nm) > 0)

    @property
    def cpu_only(self) -> str:
        """See `Stage`."""
        if not all(self.transform(None, frame).is_uniform for frame in self._frames):
            return "uneven expansion is computed on the CPU only"
        lost = any(r.left < 1 or r.missing_um for r in self.rounds)
        return "rounds that lose dyes are computed on the CPU only" if lost else ""

    def transform(self, specimen: Specimen | None = None, frame: Frame = NO_FRAME) -> Transform:
        """Expansion by the exact decimal factor of the spec, and unevenly if that is asked for."""
        factor = exact(self.factor)
        first = self._deformed(factor, specimen, self._linear, self.scales)
        moved = self._round(frame)
        if not moved.moves:
            return first
        if first.is_uniform:
            return self._deformed(factor, specimen, moved.linear, moved.scales, moved.shift_nm, frame.round)
        return first.then(
            self._deformed(Fraction(1), specimen, moved.linear, moved.scales, moved.shift_nm, frame.round)
        )

    def _deformed(
        self,
        scale: Fraction,
        specimen: Specimen | None,
        linear: Matrix,
        scales: Sequence[Scale],
        shift_nm: tuple[float, float, float] = (0.0, 0.0, 0.0),
        number: int = 1,
    ) -> Transform:
        """Deformation with these parts; with the scale 1, of tissue that was expanded before."""
        if linear == NO_CHANGE and not scales and not any(shift_nm):
            return UniformExpansion(scale)
        if specimen is None:
            return Deformation(scale, linear, (0.0,) * 3, (0.0,) * 3)
        before = float(exact(self.factor) / scale)
        middle, corner, shift = (
            three(before * float(v) for v in lengths)
            for lengths in ([e / 2 for e in specimen.extent_nm], specimen.corner_nm, shift_nm)
        )
        expanded = [Scale(three(before * r for r in s.rms_nm), before * s.correlation_nm) for s in scales]
        # the first round's random stream is that of an expansion without rounds
        parts = ("displacement", number)[: 1 + (number > 1)]
        field = Field.of(expanded, specimen.seed, self.stage, *parts) if scales else None
        return Deformation(scale, linear, middle, corner, field, shift)

    def _round(self, frame: Frame) -> Round:
        """How the gel lies in a frame; as it was expanded if rounds are not given, or it is what all share."""
        return self.rounds[frame.round - 1] if self.rounds and frame.round else Round()

    @property
    def _frames(self) -> list[Frame]:
        return [Frame(round=n + 1) for n in range(len(self.rounds))] or [NO_FRAME]

    @property
    def frame_axes(self) -> tuple[FrameAxis, ...]:
        """The rounds, if they are given."""
        return (FrameAxis("round", tuple(range(1, len(self.rounds) + 1))),) if self.rounds else ()

    @property
    def varies(self) -> frozenset[str]:
        """Rounds."""
        return frozenset({"round"}) if self.rounds else frozenset()

    @property
    def moves(self) -> frozenset[str]:
        """Rounds, if the gel moves between them."""
        return self.varies if any(r.moves or r.missing_um for r in self.rounds) else frozenset()

    @property
    def wants_identity(self) -> bool:
        """So that a dye that is lost is the same in all tiles and rounds."""
        return any(r.left < 1 for r in self.rounds)

    def missing(self, geometry: Geometry, frame: Frame) -> list[Box]:
        """See `Stage`."""
        return [box.shifted(geometry.crop.start) for box in self._round(frame).missing(geometry.voxel_nm)]

    def remaining(self, emitters: Emitters, layer: str, state: TileState) -> Emitters:
        """Emitters that the round still has."""
        one, g = self._round(state.frame), state.context.geometry
        if one.missing_um:
            size = np.array([float(v) for v in g.voxel_nm])
            emitters = outside(emitters, np.array([(b.start, b.stop) for b in one.missing(g.voxel_nm)]) * size)
        if one.left < 1:
            emitters = thinned(emitters, one.left, derive_key(state.context.seed, self.stage, "left", layer))
        return emitters

    def described(self, context: RunContext) -> list[tuple[str, str]]:
        """Error of length against length, and what is published."""
        if not self.scales:
            return []
        extent = [float(v) for v in context.specimen.extent_nm]
        curve = expected(self.scales, extent, lengths_of(extent, self.scales))
        own = [f"{e:.0f} nm at {n:g} um" for n, e in zip(curve.length_um, curve.mean_nm, strict=True)]
        beside = [f"{name}: " + ", ".join(f"{e:g} at {n:g}" for n, e in points) for name, points in PUBLISHED.items()]
        return [("distortion", f"{', '.join(own)} ({'; '.join(beside)})")]

    def tile_bytes(self, voxels: Box, context: RunContext) -> int:
        """Lattices of the displacement, and copies of a chunk's coordinates."""
        extent = [n * float(v) for n, v in zip(voxels.shape, context.geometry.voxel_nm, strict=True)]
        return max(_field_bytes(self.transform(context.specimen, frame), extent) for frame in self._frames)


def _field_bytes(transform: Transform, extent_nm: Sequence[float]) -> int:
    """Bytes of the lattices of a transform, for tissue of this extent."""
    if isinstance(transform, Chain):
        later = [n * float(transform.earlier.scale) for n in extent_nm]
        return _field_bytes(transform.earlier, extent_nm) + _field_bytes(transform.later, later)
    if not isinstance(transform, Deformation) or transform.field is None:
        return 0
    return transform.field.region_bytes(extent_nm)
