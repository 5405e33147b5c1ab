"""Score an alignment: against the true transform, places known in both volumes, or labels of both."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from simexm.analysis.contract import Analysis, Bench
from simexm.analysis.registration.points import TABLES
from simexm.analysis.registration.scores.against_labels import LabelsBench
from simexm.analysis.registration.scores.against_points import Landmarks, PointsBench
from simexm.analysis.registration.scores.against_transform import TransformBench
from simexm.analysis.registration.sides import Side, absolute
from simexm.analysis.registration.transform import StoredTransform
from simexm.analysis.registration.truth import transform_at
from simexm.analysis.volume import Volume
from simexm.errors import OutputError
from simexm.geometry.grid import three
from simexm.names import FreeText, Name


class AlignmentScore(Analysis):
    """Score the transform of an alignment, and beside it the identity.

    Inputs are the transform that was found and the truth, which may be: the true transform, a round of a simulation
    (`OUT.zarr/round_02`), a result of align or a file with a transform; a table, .csv or .parquet, of places in both volumes,
    with the columns z_um, y_um, x_um, moving_z_um, moving_y_um, moving_x_um; or, with `moving_labels`, the labels of the fixed
    volume.

    Against a true transform, residuals count where it ends in the moving volume: elsewhere nothing could be found. They stand
    beside those of the best affine map, drawn through the truth, which no linear alignment can beat, and with `nodes_um` of the
    truth known at nodes only, which no displacement on such nodes can.

    Attributes
    ----------
    regions
        Masks on the grid of the fixed volume, by name; residuals in each are scored by themselves, too.
    depth_um
        Borders of ranges of depth along z, from the fixed volume's first plane; residuals in each range are scored, too.
    nodes_um
        Distance of the nodes of the method's own displacement. Default: no such score.
    moving_labels
        Labels of the moving volume. The same object has the same id in both; others do not count.
    fixed, moving
        Dataset, level and voxel size of the labels of each volume, if needed.
    block_voxels
        Side of a block. It changes speed and memory, no number.
    """

    analysis: Literal["alignment"] = "alignment"
    regions: Mapping[Name, FreeText] = {}
    depth_um: tuple[float, ...] = Field(default=(), max_length=64)
    nodes_um: float | None = Field(default=None, gt=0)
    moving_labels: FreeText | None = None
    fixed: Side = Side()
    moving: Side = Side()
    block_voxels: int = Field(default=128, ge=16, le=512)

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if any(a >= b for a, b in itertools.pairwise(self.depth_um)) or len(self.depth_um) == 1:
            raise ValueError(f"depth_um: {list(self.depth_um)} are no borders of ranges; give two or more, ascending")
        if self.moving_labels is not None and (self.regions or self.depth_um or self.nodes_um):
            raise ValueError(
                "regions, depth_um and nodes_um are for residuals, and labels are scored with moving_labels; score both apart"
            )
        return self

    def opened(self, inputs: Sequence[Any]) -> tuple[Any, ...]:
        """Open the transform, the truth, and masks or labels."""
        if len(inputs) != 2:
            raise OutputError(
                f"alignment compares a transform with the truth, not {len(inputs)} inputs; name the one found, then the truth"
            )
        found, truth = inputs
        if isinstance(truth, Volume | Landmarks) or isinstance(found, Volume):
            raise OutputError("alignment reads paths or transforms; name the one found, then the truth")
        path = str(getattr(truth, "path", truth))
        if self.moving_labels is not None:
            return (_transform(found), self.fixed.open(path), self.moving.open(self.moving_labels))
        transform = _transform(found)
        opened: Any = Landmarks(absolute(path)) if path.lower().endswith(TABLES) else _transform(truth)
        frame = transform.frame or getattr(opened, "frame", None)
        nm = None if frame is None else three(1000 * v for v in frame.voxel_um)  # masks need not say it again
        return (transform, opened, *(Volume(absolute(mask), None, 0, nm) for mask in self.regions.values()))

    def open(self, inputs: tuple[Any, ...]) -> Bench:
        """Check that all belong to one pair."""
        found, truth, *others = inputs
        if isinstance(truth, Volume):
            return LabelsBench(found, truth, others[0], self.block_voxels)
        masks = dict(zip(self.regions, others, strict=True))
        if isinstance(truth, Landmarks):
            return PointsBench(found, truth, masks, self.depth_um)
        return TransformBench(found, truth, masks, self.depth_um, self.nodes_um, self.block_voxels)


def _transform(one: Any) -> StoredTransform:
    return one if isinstance(one, StoredTransform) else transform_at(absolute(str(getattr(one, "path", one))))
