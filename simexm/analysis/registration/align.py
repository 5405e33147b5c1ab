"""Align moving volumes with a fixed one: find the transforms, and store them with the aligned image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from simexm.analysis.contract import Analysis, Bench
from simexm.analysis.registration.sides import Side, absolute, name_of
from simexm.analysis.registration.steps import Deform, Features, Step, order_fault
from simexm.analysis.registration.transform import StoredTransform
from simexm.analysis.result_image import rounds_of
from simexm.analysis.volume import Volume
from simexm.errors import OutputError
from simexm.kernels.registration import warp
from simexm.names import FreeText
from simexm.settings import Frozen
from simexm.sources.base import VoxelSizeNm

BlockStep = Annotated[Features | Deform, Field(discriminator="step")]


class Blocks(Frozen):
    """Align block by block, at any size: coarsely as a whole, then each block and what surrounds it at full resolution.

    Attributes
    ----------
    voxels
        Side of a block, voxels of the fixed volume. Unlike elsewhere, it is part of what is computed.
    overlap
        Voxels around a block that are aligned with it. Blocks fade into each other over the inner half of them, on both sides
        of the border.
    steps
        What is done in each block, beginning from the coarse transform, or from `start`: `deform`, and `features`, of which
        those matches count that lie within `tolerance_um` of the transform so far.
    coarse_voxels
        Most voxels of the averaged volumes on which `steps` of the whole run.
    smooth_voxels
        Standard deviation of the Gaussian that smooths the coarse displacement first, voxels of the fixed volume: what is finer
        is found in the blocks.
    least_jacobian
        Smallest permitted ratio of volumes of a block's displacement.
    least_signal
        Smallest standard deviation of a block, averaged over cubes of 4 voxels, as a share of that of the whole volume. A block
        below is empty, and takes the transform around it.
    least_covered
        Smallest share of a block that the moving volume must cover.
    """

    voxels: int = Field(default=128, ge=16, le=512)
    overlap: int = Field(default=16, ge=4, le=256)
    steps: tuple[BlockStep, ...] = Field(default=(Features(), Deform()), min_length=1, max_length=8)
    coarse_voxels: int = Field(default=1_500_000, ge=4096)
    smooth_voxels: float = Field(default=7.0, ge=0, le=128)
    least_jacobian: float = Field(default=0.1, gt=0, lt=1)
    least_signal: float = Field(default=0.1, ge=0, lt=1)
    least_covered: float = Field(default=0.1, gt=0, lt=1)

    @model_validator(mode="after")
    def _room(self) -> Self:
        if self.overlap > self.voxels // 2:
            raise ValueError(
                f"overlap {self.overlap} is more than half of a block of {self.voxels} voxels, so more than two blocks would "
                "meet at a border; choose a smaller overlap or larger blocks"
            )
        return self


class Align(Analysis):
    """Find the transform from a fixed volume to a moving one, and store it with the moving image on the fixed grid.

    The inputs are two volumes, of any size of voxels, or a result with rounds, whose later rounds are aligned with the first.
    They are aligned in the memory of one worker, or block by block.

    Attributes
    ----------
    steps
        What to do, in this order. Default: match features and draw a smooth displacement through them, then deform; with a
        `start` deform only.
    start
        Begin from this transform: a result of align, or a text file with the 3 rows of an affine map, um, z y x.
    blocks
        How to align block by block: {} for the defaults, or some of voxels, overlap, steps, coarse_voxels, smooth_voxels,
        least_jacobian, least_signal and least_covered. Default: in memory.
    fixed, moving
        Dataset, level, voxel size, channel and mask of each volume, if needed.
    voxel_size_nm
        Size of a voxel of both along z, y, x, if the metadata do not hold it.
    channel
        Name or number of the channel of both, of simulated results with several.
    interpolation
        Of the aligned image: linear or cubic.
    outside
        Values of the aligned image where the moving one has none: zero, or those of the nearest voxel.
    """

    analysis: Literal["align"] = "align"
    steps: tuple[Step, ...] = Field(default=(Features(), Deform()), max_length=32)
    start: FreeText | None = None
    blocks: Blocks | None = None
    fixed: Side = Side()
    moving: Side = Side()
    voxel_size_nm: VoxelSizeNm | None = None
    channel: FreeText | None = None
    interpolation: Literal["linear", "cubic"] = "linear"
    outside: warp.Outside = "zero"

    @model_validator(mode="before")
    @classmethod
    def _steps_after_start(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("start") is not None and "steps" not in given:
            return {**given, "steps": () if given.get("blocks") is not None else (Deform(),)}
        return given

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.steps and (self.blocks is None or self.start is None):
            raise ValueError("steps is empty, so nothing would be aligned; name a step, or leave steps out")
        if fault := order_fault(self.steps, self.start is not None):
            raise ValueError(fault)
        return self

    def opened(self, inputs: Sequence[Any]) -> tuple[Any, ...]:
        """Open the volumes, the fixed one first, and after them the starts, if any."""
        volumes: list[Volume]
        if all(isinstance(one, Volume) for one in inputs):
            volumes = [*inputs]
        elif len(inputs) == 1:
            volumes = [*rounds_of(absolute(_path(inputs[0])), self.channel)]
        elif len(inputs) == 2:
            sides = (self.side("fixed"), self.side("moving"))
            volumes = [side.open(_path(one)) for side, one in zip(sides, inputs, strict=True)]
        else:
            raise OutputError(
                f"align reads two volumes, or a result with rounds, not {len(inputs)} inputs; type: simexm align FIXED MOVING"
            )
        if self.start is None:
            return tuple(volumes)
        names = [f"/{name}" if (name := name_of(v)) else "" for v in volumes[1:]]
        return (*volumes, *(StoredTransform(absolute(f"{self.start}{name}")) for name in names))

    def side(self, name: str) -> Side:
        """The side `fixed` or `moving`, with what is said for both."""
        side: Side = getattr(self, name)
        both: dict[str, Any] = {"channel": self.channel}
        if self.voxel_size_nm is not None:
            both["voxel_um"] = tuple(v / 1000 for v in self.voxel_size_nm)
        return side.model_copy(update={k: v for k, v in both.items() if getattr(side, k) is None})

    def open(self, inputs: tuple[Any, ...]) -> Bench:
        """Open the volumes; raises SpecError if they cannot be compared."""
        from simexm.analysis.registration.piecewise import Piecewise
        from simexm.analysis.registration.whole import Whole

        return Whole(self, inputs) if self.blocks is None else Piecewise(self, inputs, self.blocks)


def _path(one: Any) -> str:
    return str(getattr(one, "path", one))
