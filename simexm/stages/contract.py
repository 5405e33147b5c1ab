"""The contract of a stage: a frozen model that declares its inputs, its outputs and its halo, and computes one block.

The model that the user writes in a spec is the object that runs. To add physics, write a subclass of `Stage` in a file
of its own and list it in `simexm/stages/__init__.py`, or ship it in a package of your own (see `docs/stage.md`). The
planner and the block runner need no change.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from simexm.geometry.geometry import Geometry
from simexm.geometry.grid import Box, NmBox
from simexm.geometry.transform import IDENTITY, Specimen, Transform
from simexm.kernels.emission.points import Emitters
from simexm.settings import Frozen
from simexm.sources.base import SourceModel
from simexm.spectra.curves import CsvCurve, Curve
from simexm.stages.frames import NO_FRAME, Frame, FrameAxis
from simexm.stages.maps import MapPass
from simexm.stages.products import Product
from simexm.stages.quantities import (
    ACTIVITY,
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
from simexm.stages.state import CellSeries, CellTable, Counted, ImageCounts, NodeMap, RunContext, Tally, Tile, TileState

__all__ = [
    "ACTIVITY", "EMITTERS", "EXPANDED", "EXPECTED", "IMAGE", "LABELLED", "LABELS", "REGIONS", "TRUTH", "CellSeries",
    "CellTable", "Chunk", "CountPass", "Counted", "EmitterStream", "ImageCounts", "LabelPart", "LabelStream",
    "MapPass", "NodeMap", "Quantity", "RegionRule", "RunContext", "SeriesPass", "Stage", "Tally", "Tile", "TileState",
]  # fmt: skip
"""What the module of a stage imports."""


@dataclass(frozen=True)
class CountPass:
    """A pass over the whole specimen that sums quantities by cell before imaging; `name` is also that of its table."""

    name: str
    columns: tuple[str, ...]


@dataclass(frozen=True)
class SeriesPass:
    """Values of every cell in every frame, made before imaging, after the count passes, for some cells at a time.

    They are stored in the result as arrays (cell, t), `name/COLUMN`, with the ids in `name/id`.
    """

    name: str
    cells: str
    """Count pass whose ids are the rows."""
    columns: Mapping[str, str]
    """Data types, by name."""


class Stage(Frozen):
    """One step of a simulation.

    A subclass defines the field `stage` (its name in a spec), `reads`, `writes`, `needs` and `run`.
    """

    reads: ClassVar[tuple[Quantity, ...]]
    """Quantities that the stage reads; earlier stages write them."""
    writes: ClassVar[tuple[Quantity, ...]]
    """Quantities that the stage writes for later ones."""
    whole_labels: ClassVar[bool] = False
    """Whether the stage needs the labels of a tile in one part."""
    always: ClassVar[bool] = False
    """Whether the stage runs even if `until` ends the run at an earlier stage."""
    on_gpu: ClassVar[bool] = True
    """Whether the stage can run on a GPU, that is, computes through `TileState.device`."""
    on_grid: ClassVar[bool] = False
    """Whether the stage puts tissue on the image's grid, so that its output varies as tissue moves between frames."""

    @property
    def wants_identity(self) -> bool:
        """Whether the stage needs the identity of each emitter; see `simexm.kernels.emission.points.IDENTITY`."""
        return False

    @property
    def flashes(self) -> frozenset[str]:
        """Dyes of which the stage passes on few in each frame (`EmitterStream.flashing`); none of them are drawn as clumps."""
        return frozenset()

    @property
    def tag(self) -> str:
        """The stage's name in a spec."""
        return str(type(self).model_fields["stage"].default)

    @property
    def cpu_only(self) -> str:
        """Why this instance cannot run on a GPU; empty if it can. Override where that depends on its fields."""
        return "" if self.on_gpu else f"the stage {self.tag} computes on the CPU only"

    @property
    def inputs(self) -> tuple[Quantity, ...]:
        """Quantities that this instance reads; override where they depend on its fields."""
        return self.reads

    @property
    def frame_axes(self) -> tuple[FrameAxis, ...]:
        """Frame axes that the stage adds: the specimen is imaged once for each place along them."""
        return ()

    @property
    def varies(self) -> frozenset[str]:
        """Frame axes with which the stage itself makes its output vary; variation of its inputs is added automatically."""
        return frozenset()

    @property
    def moves(self) -> frozenset[str]:
        """Frame axes with which the stage's `transform` varies."""
        return frozenset()

    @property
    def emits(self) -> Mapping[str, str]:
        """Dye of each layer of emitters that the stage adds, by layer name."""
        return {}

    @property
    def regions_used(self) -> tuple[tuple[str, str], ...]:
        """Regions that the stage uses, as (region, phrase for messages such as "layer 'a' labels")."""
        return ()

    @property
    def greys_used(self) -> tuple[tuple[str, str], ...]:
        """Grey fields of the source that the stage uses (`LabelPart.greys`), as (field, phrase for messages)."""
        return ()

    def resolved(self, curves: Mapping[str, CsvCurve | Curve]) -> Self:
        """Return the same stage without reference to files; `curves` are those that the spec names.

        Raises SpecError if a file or a curve cannot be used.
        """
        return self

    def fitted(self, source: SourceModel) -> Self:
        """Return the same stage with what it takes from the spec's source, such as a focus by the depth of cells."""
        return self

    def refuse(self, context: RunContext) -> None:
        """Raise SpecError if the stage cannot work with what the plan resolved."""

    def transform(self, specimen: Specimen | None = None, frame: Frame = NO_FRAME) -> Transform:
        """Displacement of tissue by this stage; without `specimen`, a transform of the same scale."""
        return IDENTITY

    def missing(self, geometry: Geometry, frame: Frame) -> Sequence[Box]:
        """Voxels of the volume that a frame lacks, if the stage takes them away; `moves` names the axis."""
        return ()

    def remaining(self, emitters: Emitters, layer: str, state: TileState) -> Emitters:
        """Emitters of a layer that the frame still has, out of those of the tissue; all by default."""
        return emitters

    def passes(self) -> tuple[CountPass, ...]:
        """Count passes that must run before imaging, in order."""
        return ()

    def maps(self, context: RunContext) -> tuple[MapPass, ...]:
        """Maps that must be made before imaging, after all count passes."""
        return ()

    def series(self, context: RunContext) -> tuple[SeriesPass, ...]:
        """Series of cells that must be made before imaging."""
        return ()

    def follow(
        self, wanted: SeriesPass, ids: NDArray[np.uint64], context: RunContext
    ) -> Iterator[dict[str, NDArray[Any]]]:
        """Yield a series of some cells, (cells, frames) by column, frames in order and at most 1024 at a time."""
        raise TypeError(f"{type(self).__name__} has no series {wanted.name}")

    def map(self, wanted: MapPass, cells: Box, state: TileState) -> NDArray[np.int64]:
        """Values of a map at the nodes of `cells`, (layers, *cells.shape), from what the stage reads near them."""
        raise TypeError(f"{type(self).__name__} has no map {wanted.name}")

    def count_box(self, name: str, own: Box, context: RunContext) -> Box | None:
        """Voxels that pass `name` reads to count the voxels `own`; None if it has nothing to count there."""
        raise TypeError(f"{type(self).__name__} has no pass {name}")

    def count(self, name: str, own: Box, part: LabelPart, state: TileState) -> dict[str, NDArray[np.int64]]:
        """Count the voxels `own` of `part` for pass `name`; return columns by cell index."""
        raise TypeError(f"{type(self).__name__} has no pass {name}")

    def counted_warnings(self, name: str, table: CellTable) -> list[str]:
        """Warnings, before imaging, about the table of pass `name`."""
        return []

    def needs(self, wanted: NmBox, context: RunContext) -> dict[str, NmBox]:
        """Box of each input that the stage needs to write the box `wanted` of its output.

        Boxes are in nm from the corner of the specimen: tissue before expansion, expanded tissue after it.
        """
        return {q.name: wanted for q in self.inputs}

    def visit(self, part: LabelPart, state: TileState) -> None:
        """Process a part of the labels while it is in memory; stages are called in order.

        A part with `again` set was processed before.
        """

    def run(self, state: TileState) -> None:
        """Compute one tile: read the inputs, write the outputs. Called once for each frame in which they differ."""
        raise TypeError(f"{type(self).__name__} has no method `run`")

    # ---------------------------------------------------------------- what is stored

    def products(self, context: RunContext) -> tuple[Product, ...]:
        """Images, label images and tables that the stage stores. Several stages can add columns to one table."""
        return ()

    def store(self, product: Product, state: TileState, out: NDArray[Any]) -> None:
        """Write the tile's part of a label image into `out`, (z, y, x)."""
        raise TypeError(f"{type(self).__name__} declares the label image {product.name} but has no method `store`")

    def rows(self, product: Product, state: TileState) -> dict[str, NDArray[Any]]:
        """The tile's rows of a table, from its first frame or, with `Product.each_frame`, from the current one.

        Equally long arrays by column, the key column included.
        """
        raise TypeError(f"{type(self).__name__} declares the table {product.name} but has no method `rows`")

    def table(
        self, product: Product, sums: Mapping[str, NDArray[Any]], context: RunContext, counted: Counted
    ) -> dict[str, NDArray[Any]]:
        """Columns of a table as stored, from a batch of its summed rows (of a derived table: its source's rows).

        By default the summed columns themselves.
        """
        return dict(sums)

    def sums(self, product: Product, sums: Mapping[str, NDArray[Any]]) -> dict[str, int]:
        """Further totals over all rows of a table, from a batch of its summed rows; added over the batches."""
        return {}

    def end_warnings(self, sums: Mapping[str, int]) -> list[str]:
        """Warnings at the end of a run, from its totals by column or as named by `sums`."""
        return []

    def described(self, context: RunContext) -> list[tuple[str, str]]:
        """Lines of a plan, as (what, value), for what the spec does not say itself."""
        return []

    def provenance(self, sums: Mapping[str, int]) -> dict[str, Any]:
        """Attributes of the result, as plain data, from the same totals."""
        return {}

    # ---------------------------------------------------------------- what it costs

    def tile_bytes(self, voxels: Box, context: RunContext) -> int:
        """Bytes that the stage holds for a tile of these voxels, beside ids, regions and pixels."""
        return 0

    def pixel_bytes(self, context: RunContext) -> int:
        """Bytes that the stage holds per pixel of a tile."""
        return 0

    def reach_nm(self, context: RunContext) -> float:
        """Largest distance along an axis between a dye and its voxel, nm of tissue."""
        return 0.0
