"""Expansion of the gel: by one factor, and as uneven as tissue does."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Literal, Self

from pydantic import Field as Bound
from pydantic import model_validator

from simexm.geometry.grid import Box, exact, three
from simexm.geometry.transform import Specimen, Transform, UniformExpansion
from simexm.settings import Frozen
from simexm.stages.contract import RunContext
from simexm.stages.expansion.deformation import NO_CHANGE, Deformation, Matrix
from simexm.stages.expansion.distortion import PUBLISHED, expected, fitted, lengths_of
from simexm.stages.expansion.field import Field, Scale
from simexm.stages.expansion.moving import Moving
from simexm.stages.frames import NO_FRAME, Frame

AXES = "zyx"
MOST_STEPS = 12
Stretch = Annotated[float, Bound(ge=0.5, le=2)]
Slope = Annotated[float, Bound(ge=-0.5, le=0.5)]
Rms = Annotated[float, Bound(ge=0, le=1e6)]
Shear = Literal["zy", "zx", "yz", "yx", "xz", "xy"]


class Displacement(Frozen):
    """One scale of a smooth random displacement of the tissue.

    Attributes
    ----------
    rms_nm
        Standard deviation along each axis, nm of tissue: one number, or z, y, x.
    correlation_um
        Distance at which displacements are correlated by 1 / e, um of tissue.
    """

    rms_nm: Rms | tuple[Rms, Rms, Rms]
    correlation_um: float = Bound(ge=0.05, le=1e5)

    @property
    def scale(self) -> Scale:
        """The same, in nm."""
        rms = self.rms_nm if isinstance(self.rms_nm, tuple) else (self.rms_nm,) * 3
        return Scale(three(rms), 1e3 * self.correlation_um)


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
    """

    stage: Literal["expansion"] = "expansion"
    factor: float = Bound(default=4.0, ge=1, le=100)
    anisotropy: tuple[Stretch, Stretch, Stretch] | None = None
    shear: dict[Shear, Slope] = Bound(default_factory=dict)
    matrix: tuple[tuple[float, float, float], tuple[float, float, float], tuple[float, float, float]] | None = None
    displacement: tuple[Displacement, ...] = Bound(default=(), max_length=16)
    distortion: Literal["liconn"] | tuple[tuple[float, float], ...] | None = None

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
        for scale in self.scales:
            if scale.steps > MOST_STEPS:
                rms, correlation = max(scale.rms_nm), scale.correlation_nm / 1e3
                raise ValueError(
                    f"a displacement of {rms:.3g} nm rms that is correlated over only {correlation:.3g} um would fold the tissue "
                    "over itself, and a pixel would have no one place in it; give at most "
                    f"{rms * (MOST_STEPS / scale.steps) ** 0.5:.3g} nm, or a longer correlation"
                )
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
        return "" if self.transform().is_uniform else "uneven expansion is computed on the CPU only"

    def transform(self, specimen: Specimen | None = None, frame: Frame = NO_FRAME) -> Transform:
        """Expansion by the exact decimal factor of the spec, and unevenly if that is asked for."""
        factor, linear = exact(self.factor), self._linear
        if linear == NO_CHANGE and not self.scales:
            return UniformExpansion(factor)
        if specimen is None:
            return Deformation(factor, linear, (0.0,) * 3, (0.0,) * 3)
        field = Field.of(self.scales, specimen.seed, self.stage, "displacement") if self.scales else None
        middle = three(float(e / 2) for e in specimen.extent_nm)
        return Deformation(factor, linear, middle, three(map(float, specimen.corner_nm)), field)

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
        transform = self.transform(context.specimen)
        if not isinstance(transform, Deformation) or transform.field is None:
            return 0
        extent = [n * float(v) for n, v in zip(voxels.shape, context.geometry.voxel_nm, strict=True)]
        return transform.field.region_bytes(extent)
