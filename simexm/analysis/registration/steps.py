"""The steps of an alignment, each with its settings. A step begins from what the steps before it found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from simexm.settings import Frozen

Positive = Annotated[float, Field(gt=0)]
Seed = Annotated[int, Field(ge=0, lt=1 << 31)]


class Level(Frozen):
    """A level of resolution.

    Attributes
    ----------
    shrink
        Voxels of the fixed volume, along each axis, in one of this level.
    smooth
        Standard deviation of the Gaussian that smooths the images of this level first, in its voxels.
    iterations
        Most iterations.
    """

    shrink: int = Field(default=1, ge=1, le=64)
    smooth: float = Field(default=1.0, ge=0, le=32)
    iterations: int = Field(default=50, ge=1, le=100_000)


class Centre(Frozen):
    """Put the middles of both volumes (`volume`), or their centres of mass (`mass`), on each other."""

    step: Literal["centre"] = "centre"
    of: Literal["volume", "mass"] = "volume"


class Random(Frozen):
    """Try random rigid motions around what was found before, and keep the most similar.

    Attributes
    ----------
    trials
        Number of motions.
    shift_um
        Largest shift along each axis. Default: a quarter of the fixed volume.
    rotation_deg
        Largest angle of rotation about each axis.
    spacing_um
        Voxels on which images are compared. Default: an eighth of the fixed volume's largest extent over 8.
    seed
        Seed of the motions.
    """

    step: Literal["random"] = "random"
    trials: int = Field(default=1000, ge=1, le=1_000_000)
    shift_um: Positive | None = None
    rotation_deg: float = Field(default=10.0, ge=0, le=180)
    spacing_um: Positive | None = None
    seed: Seed = 0


class Features(Frozen):
    """Match bright spots by the image around them, and fit a transform to the matches that agree; it needs no start.

    Attributes
    ----------
    model
        Kind of transform; `smooth` is an affine map and a smooth displacement through all matches.
    spacing_um
        Voxels on which spots are sought. Default: the largest voxel edge of both volumes.
    radii
        Standard deviations of spots, in these voxels.
    most
        Most spots of each volume, the brightest.
    half
        Half the side of the cube that is compared, in these voxels.
    correlation
        Least correlation of two cubes.
    tolerance_um
        Largest distance of a match from the affine map. Default: six of these voxels.
    strain
        Largest stretch or shrinkage, as a share.
    trials
        Quartets of matches that are tried.
    least_matches
        Fewest matches that agree; the step fails below.
    length_um
        Correlation length of the smooth displacement. Default: 16 of these voxels.
    noise
        Standard error of a match along each axis, in these voxels.
    seed
        Seed of the quartets.
    """

    step: Literal["features"] = "features"
    model: Literal["rigid", "similarity", "affine", "smooth"] = "smooth"
    spacing_um: Positive | None = None
    radii: tuple[Positive, ...] = Field(default=(1.5,), min_length=1, max_length=8)
    most: int = Field(default=3000, ge=8, le=50_000)
    half: int = Field(default=6, ge=1, le=32)
    correlation: float = Field(default=0.5, gt=0, lt=1)
    tolerance_um: Positive | None = None
    strain: float = Field(default=0.25, gt=0, lt=1)
    trials: int = Field(default=4096, ge=1, le=1_000_000)
    least_matches: int = Field(default=12, ge=4)
    length_um: Positive | None = None
    noise: Positive = 0.7
    seed: Seed = 0


class Linear(Frozen):
    """Improve a linear map by the gradient of a metric.

    Attributes
    ----------
    metric
        correlation; local_correlation, in cubes around each voxel; or mutual_information.
    levels
        Levels of resolution, coarse to fine.
    sampling
        Share of the voxels that are compared, chosen at random.
    seed
        Seed of that choice.
    """

    step: Literal["rigid", "similarity", "affine"]
    metric: Literal["correlation", "local_correlation", "mutual_information"] = "correlation"
    levels: tuple[Level, ...] = Field(
        default=(Level(shrink=4, smooth=1.0, iterations=60), Level(shrink=2, smooth=0.5, iterations=40)),
        min_length=1,
        max_length=8,
    )
    sampling: float = Field(default=0.2, gt=0, le=1)
    seed: Seed = 0


class Deform(Frozen):
    """Improve a displacement by demons (Thirion 1998; symmetric forces: Vercauteren et al. 2009), without folds.

    Attributes
    ----------
    levels
        Levels of resolution, coarse to fine.
    smooth_field
        Standard deviation of the Gaussian that smooths the displacement at each iteration, in voxels of the level.
    largest_step
        Longest step of an iteration, in voxels of the level.
    contrast
        How the brightness of the images is matched: `local`, both to mean 0 and deviation 1 around each voxel; `histogram`,
        the moving image to the distribution of the fixed one; `none`.
    contrast_voxels
        Standard deviation of the Gaussian window of `local`, in voxels of the fixed volume.
    least_jacobian
        Smallest permitted ratio of volumes; cells below are smoothed.
    """

    step: Literal["deform"] = "deform"
    levels: tuple[Level, ...] = Field(
        default=(Level(shrink=2, smooth=0.0, iterations=40), Level(shrink=1, smooth=0.7, iterations=4)),
        min_length=1,
        max_length=8,
    )
    smooth_field: float = Field(default=2.0, gt=0, le=32)
    largest_step: float = Field(default=1.0, gt=0, le=8)
    contrast: Literal["local", "histogram", "none"] = "local"
    contrast_voxels: float = Field(default=3.0, gt=0, le=128)
    least_jacobian: float = Field(default=0.1, gt=0, lt=1)


Step = Annotated[Centre | Random | Features | Linear | Deform, Field(discriminator="step")]


def order_fault(steps: Sequence[Step], started: bool) -> str:
    """Why steps cannot follow each other; empty if they can. `started`: they begin from an earlier transform."""
    deformed = False
    for n, step in enumerate(steps):
        where = f"steps[{n}] ({step.step})"
        if step.step in ("centre", "features") and (n or started):
            before = f"steps[{n - 1}] ({steps[n - 1].step})" if n else "the start"
            return f"{where} begins from nothing, so the work of {before} would be lost; make it the first step, without a start"
        if deformed and step.step != "deform":
            return f"{where} is a linear map and would ignore the displacement found before; move it before the deforming steps"
        deformed = deformed or step.step == "deform" or (isinstance(step, Features) and step.model == "smooth")
    return ""
