"""What a stage is: a frozen model that says what it reads, what it writes, how far it looks, and what it does to a block.

What the user writes in a spec and what runs on a block are the same object. To add physics, write a file with one
more subclass of `Stage` and name it in `simexm/stages/__init__.py`, or in a package of your own (`docs/stage.md`
shows one); the planner and the block runner need no change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from simexm.geometry.grid import Box, NmBox
from simexm.geometry.transform import IDENTITY, Transform
from simexm.settings import Frozen
from simexm.stages.frames import FrameAxis
from simexm.stages.products import Product
from simexm.stages.quantities import (
    EMITTERS,
    EXPANDED,
    EXPECTED,
    IMAGE,
    LABELLED,
    LABELS,
    REGIONS,
    TRUTH,
    Chunk,
    EmitterStream,
    LabelPart,
    LabelStream,
    Quantity,
    RegionRule,
)
from simexm.stages.state import CellTable, Counted, ImageCounts, RunContext, Tally, Tile, TileState

__all__ = [
    "EMITTERS",
    "EXPANDED",
    "EXPECTED",
    "IMAGE",
    "LABELLED",
    "LABELS",
    "REGIONS",
    "TRUTH",
    "CellTable",
    "Chunk",
    "CountPass",
    "Counted",
    "EmitterStream",
    "ImageCounts",
    "LabelPart",
    "LabelStream",
    "Quantity",
    "RegionRule",
    "RunContext",
    "Stage",
    "Tally",
    "Tile",
    "TileState",
]
"""All that the file of a stage needs."""


@dataclass(frozen=True)
class CountPass:
    """A pass over the whole specimen that adds something up by cell, before any image is made.

    Attributes
    ----------
    name
        Of the pass and its table.
    columns
        Of the table.
    """

    name: str
    columns: tuple[str, ...]


class Stage(Frozen):
    """One step of a simulation.

    Subclasses give the tag `stage` that names them in a spec, `reads` and `writes`, and the two methods.
    """

    reads: ClassVar[tuple[Quantity, ...]]
    """What the stage reads of what earlier stages wrote."""
    writes: ClassVar[tuple[Quantity, ...]]
    """What the stage writes for later ones."""
    whole_labels: ClassVar[bool] = False
    """Whether the stage wants the labels of a tile at once, not part by part."""
    always: ClassVar[bool] = False
    """Whether the stage runs however early a run stops."""
    on_gpu: ClassVar[bool] = True
    """Whether the stage can work on a GPU: whether it leaves to `TileState.device` what takes long."""
    wants_identity: ClassVar[bool] = False
    """Whether the stage asks for the identities of emitters; see `simexm.kernels.emission.points.IDENTITY`."""

    @property
    def tag(self) -> str:
        """The stage's name in a spec."""
        return str(type(self).model_fields["stage"].default)

    @property
    def inputs(self) -> tuple[Quantity, ...]:
        """What this very stage reads, where that follows from its values."""
        return self.reads

    @property
    def frame_axes(self) -> tuple[FrameAxis, ...]:
        """Axes along which this stage has the specimen imaged again."""
        return ()

    @property
    def varies(self) -> frozenset[str]:
        """Frame axes with which what it writes varies by its own doing; what follows from its inputs is known without."""
        return frozenset()

    @property
    def emits(self) -> Mapping[str, str]:
        """Dye of each layer of emitters that the stage adds, by the layer's name."""
        return {}

    @property
    def regions_used(self) -> tuple[tuple[str, str], ...]:
        """(region, what is done there, in words) of every region that the stage asks for."""
        return ()

    def transform(self, frame: Mapping[str, int] | None = None) -> Transform:
        """How this stage moves tissue; the same in all frames where none is given."""
        return IDENTITY

    def passes(self) -> tuple[CountPass, ...]:
        """Sums by cell that the stage must know before it can run, in the order in which they are made."""
        return ()

    def count_box(self, name: str, own: Box, context: RunContext) -> Box | None:
        """Voxels that pass `name` must read to count the voxels `own`; None where nothing is to be counted there."""
        raise TypeError(f"{type(self).__name__} has no pass {name}")

    def count(self, name: str, own: Box, part: LabelPart, state: TileState) -> dict[str, NDArray[np.int64]]:
        """Count the voxels `own`, which lie in `part`, for pass `name`; columns by cell index."""
        raise TypeError(f"{type(self).__name__} has no pass {name}")

    def counted_warnings(self, name: str, table: CellTable) -> list[str]:
        """What the table of pass `name` tells that a user should know before the images are made."""
        return []

    def needs(self, wanted: NmBox, context: RunContext) -> dict[str, NmBox]:
        """Box of each quantity read, given the box `wanted` of what the stage writes.

        Boxes are nm from the corner of the specimen, of tissue for what lies before expansion and of expanded tissue for
        what lies after it.
        """
        return {q.name: wanted for q in self.inputs}

    def visit(self, part: LabelPart, state: TileState) -> None:
        """Take what is wanted of a part of the labels while it is there; stages see it in their order.

        A part that comes `again` has been counted.
        """

    def run(self, state: TileState) -> None:
        """Read and write what the stage declares, for one tile; once for each frame where that makes a difference."""
        raise TypeError(f"{type(self).__name__} does not say what it does")

    # ---------------------------------------------------------------- what is stored

    def products(self, context: RunContext) -> tuple[Product, ...]:
        """Images, label images and tables that the stage makes. Columns of a table can come from several stages."""
        return ()

    def store(self, product: Product, state: TileState, out: NDArray[Any]) -> None:
        """Write the tile's part of a label image into `out`, (z, y, x)."""
        raise TypeError(f"{type(self).__name__} does not say what the label image {product.name} holds")

    def rows(self, product: Product, state: TileState) -> dict[str, NDArray[Any]]:
        """The tile's rows of a table, of its first frame: arrays of one length by column, the key's among them."""
        raise TypeError(f"{type(self).__name__} does not say what the rows of {product.name} are")

    def table(
        self, product: Product, sums: Mapping[str, NDArray[Any]], context: RunContext, counted: Counted
    ) -> dict[str, NDArray[Any]]:
        """Columns of a table as it is stored, from a part of its summed rows; of a derived one, from those of its source.

        Left as it is, just these.
        """
        return dict(sums)

    def sums(self, product: Product, sums: Mapping[str, NDArray[Any]]) -> dict[str, int]:
        """Numbers to add up over all rows of a table beside the sums of its columns, from a part of them."""
        return {}

    def end_warnings(self, sums: Mapping[str, int]) -> list[str]:
        """What a user should know of the sums of a whole run, by column or as `sums` names them."""
        return []

    def provenance(self, sums: Mapping[str, int]) -> dict[str, Any]:
        """What a result's attributes keep of these sums, as plain data."""
        return {}

    # ---------------------------------------------------------------- what it costs

    def tile_bytes(self, voxels: Box, context: RunContext) -> int:
        """Bytes that the stage holds of a tile of so many voxels, beside those of ids, regions and pixels."""
        return 0

    def pixel_bytes(self, context: RunContext) -> int:
        """Bytes that the stage holds for each pixel of a tile."""
        return 0

    def reach_nm(self, context: RunContext) -> float:
        """How far along an axis a dye may lie from the voxel that it belongs to, nm of tissue."""
        return 0.0
