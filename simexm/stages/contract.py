"""What a stage is: a frozen model that says what it reads, what it writes, how far it looks, and what it does to a block.

What the user writes in a spec and what runs on a block are the same object. To add physics, write a file with one
more subclass of `Stage` and name it in `simexm/stages/__init__.py`, or in a package of your own (`docs/stage.md`
shows one); the planner and the block runner need no change.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from simexm.geometry.geometry import Geometry
from simexm.geometry.grid import Box, NmBox
from simexm.geometry.transform import IDENTITY, Transform
from simexm.kernels.devices.device import Cells, Device, device
from simexm.kernels.emission.emit import Emitters
from simexm.kernels.labels.cells import ByCell, CellIndex, counts
from simexm.settings import Frozen
from simexm.spectra.fluorophores import Fluorophore
from simexm.stages.frames import IMAGED_ONCE, NO_FRAME, Acquisition, Frame, FrameAxis
from simexm.stages.products import Product

if TYPE_CHECKING:
    from simexm.stages.roles import ImagingPlan, Labeller


class Quantity(NamedTuple):
    """Something that stages pass on: its name, axes and unit, and the data type in which it is stored, where it can be."""

    name: str
    axes: str
    unit: str
    dtype: str = ""


LABELS = Quantity("labels", "zyx", "cell id of each voxel")
REGIONS = Quantity("regions", "zyx", "bits of the regions that each voxel belongs to")
"""Found part by part, see `LabelPart.regions`; what is written for the tile is a `RegionRule`."""
EMITTERS = Quantity("emitters", "n", "nm of tissue")
EXPANDED = Quantity("expanded", "n", "nm of expanded tissue")
EXPECTED = Quantity("expected", "czyx", "photo-electrons per pixel", "float32")
IMAGE = Quantity("image", "czyx", "camera counts", "uint16")
LABELLED = Quantity("labelled", "lzyx", "dyes per pixel", "uint32")
TRUTH = Quantity("truth", "zyx", "cell id of each pixel")
"""Cell indices, int32, by region; "" stands for all of the cell."""


@dataclass(frozen=True)
class RegionRule:
    """How regions were found: `in_slice` tells whether neighbours count in the slice alone, not in space."""

    in_slice: bool


@dataclass
class LabelPart:
    """A part of the labels of a tile.

    Attributes
    ----------
    core
        Voxels of the whole volume that this part stands for: the cores of all parts share out the tile's labels.
    box
        Voxels that the arrays cover: the core and, inside the tile's labels, one voxel more on each side.
    index
        Cell indices, int32, shape of `box`; see `CellIndex`.
    cells
        Ids by index, of the parts so far.
    masks
        bool, shape of `box`, by name.
    placed, regions
        Cell indices and bits of regions on the device, shape of `box`, once a stage has found the regions.
    opens
        Whether it is the first of those at its height.
    again
        Whether the stages have seen it before.
    """

    core: Box
    box: Box
    index: NDArray[np.int32]
    cells: CellIndex
    masks: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    placed: Any = None
    regions: Any = None
    opens: bool = True
    again: bool = False

    def marked(self) -> Any:
        """The bits of regions."""
        assert self.regions is not None, "no stage has found regions"
        return self.regions

    def on_device(self) -> Cells:
        """Cell indices and the bits of their regions."""
        return Cells(self.placed, self.marked(), self.box)


class LabelStream(ABC):
    """The labels of a tile, part by part, in ascending z; they may be asked for more than once.

    Attributes
    ----------
    box
        Voxels of the whole volume.
    cells
        Ids by index, of the parts so far.
    depth
        Planes of voxels that come in any order: 1 where every part spans the box across the axis, so that planes ascend too.
    seen
        Whether all parts have been read once.
    """

    def __init__(self, box: Box, depth: int) -> None:
        self.box, self.depth = box, depth
        self.cells = CellIndex()
        self.seen = False

    @abstractmethod
    def parts(self) -> Iterator[LabelPart]:
        """Yield the parts, each after all stages have seen it; see `Stage.see`. Buffers are used again."""

    def survey(self) -> None:
        """Make sure that the stages have seen all parts."""
        if not self.seen:
            for _ in self.parts():
                pass

    def whole(self) -> LabelPart:
        """The only part, for stages that want the labels of a tile at once; see `Stage.whole_labels`."""
        (part,) = self.parts()
        return part


@dataclass
class Chunk:
    """A few emitters of one layer; or, with `layer` None, word that all later ones lie at `floor_nm` or above."""

    layer: str | None
    emitters: Emitters
    floor_nm: float


@dataclass(frozen=True)
class EmitterStream:
    """Emitters in chunks, in ascending planes of voxels.

    Attributes
    ----------
    dyes
        Dye of each layer.
    reach_nm
        How far along z an emitter of a chunk may lie above the last announced floor.
    chunks
        Called with a dye: yields its layers' chunks. Buffers are used again; take what you need before the next.
    varying
        Dyes whose chunks differ from frame to frame.
    kept_as
        Name of a layer in the table of emitters, where it is not its own.
    """

    dyes: Mapping[str, str]
    reach_nm: float
    chunks: Callable[[str], Iterator[Chunk]]
    varying: frozenset[str] = frozenset()
    kept_as: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RunContext:
    """All that a block knows beside its own box; the same on every worker.

    Attributes
    ----------
    seed
        Seed of the whole simulation.
    geometry
        The image's grid over the ground truth, and the transform between them.
    region_bits
        Bit of each region in `REGIONS`, by name: membrane, cytosol, and the masks that a layer labels.
    dye_of_layer
        Dye of each layer that labels cells.
    imaging
        What the microscope was resolved to; None only while it is.
    clump_cell_nm
        Size, z y x, nm of tissue, of a cell within which the places of many dyes do not matter; None where they always do.
    clump_above
        Mean dyes in such a cell above which their number is drawn at once.
    device
        `cpu` or `gpu`, for the whole run.
    identified
        Whether emitters carry their identities, because a stage asks for them.
    acquisition
        The frames of imaging.
    channels
        Names of the microscope's channels.
    dyes
        The dyes in use, by name.
    id_dtype
        Data type of the cells' ids.
    labeller
        The stage that labels cells; None only where nothing is labelled.
    emits
        Dye of each layer of emitters, of those that label cells and of further ones.
    """

    seed: int
    geometry: Geometry
    region_bits: Mapping[str, int]
    dye_of_layer: Mapping[str, str]
    imaging: ImagingPlan | None
    clump_cell_nm: tuple[float, float, float] | None = None
    clump_above: float = 32.0
    device: str = "cpu"
    identified: bool = False
    acquisition: Acquisition = IMAGED_ONCE
    channels: tuple[str, ...] = ()
    dyes: Mapping[str, Fluorophore] = field(default_factory=dict)
    id_dtype: str = "uint64"
    labeller: Labeller | None = None
    emits: Mapping[str, str] = field(default_factory=dict)

    @property
    def masks(self) -> tuple[str, ...]:
        """Regions that are read from the source, not found from the labels."""
        return tuple(name for name in self.region_bits if name not in ("membrane", "cytosol"))


class ImageCounts(NamedTuple):
    """What a detector counts in one channel of a tile: pixels cut at the largest count, and all counts in quarter octaves."""

    clipped: int
    histogram: NDArray[np.int64]


@dataclass
class Tally:
    """What a block counts on the way.

    Attributes
    ----------
    voxels
        Voxels of each cell.
    dyes
        Dyes of each layer in each cell.
    unspecific
        Dyes of each layer bound outside any cell's label.
    images
        Of each channel of the frame that is being made; empty where no detector counts.
    """

    voxels: ByCell = field(default_factory=counts)
    dyes: dict[str, ByCell] = field(default_factory=dict)
    unspecific: dict[str, int] = field(default_factory=dict)
    images: list[ImageCounts] = field(default_factory=list)


@dataclass
class Tile:
    """One tile in the making, as the block holds it; stages see it through `TileState`.

    Attributes
    ----------
    context
        What all blocks share.
    pixels
        The tile, in pixels of the image.
    boxes
        nm box wanted of each quantity, as the planner walked them back from `pixels`.
    counted
        Tables of the passes before.
    values
        Quantities written so far, by name.
    tally
        Counts.
    stream
        The labels of the tile; None where there are none.
    frame
        The frame that is being made; all 0 while that is made which all frames share.
    """

    context: RunContext
    pixels: Box
    boxes: Mapping[str, NmBox] = field(default_factory=dict)
    counted: Counted = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)
    stream: LabelStream | None = None
    frame: Frame = NO_FRAME
    _scratch: dict[int, dict[str, Any]] = field(default_factory=dict)
    _shared: dict[str, Any] = field(default_factory=dict)

    def of(self, stage: Stage) -> TileState:
        """The tile as a stage sees it."""
        return TileState(self, stage, self._scratch.setdefault(id(stage), {}))

    @property
    def device(self) -> Device:
        """Where the tile is computed."""
        return device(self.context.device)

    @property
    def labels(self) -> LabelStream:
        """The labels of the tile."""
        assert self.stream is not None, "this tile has no labels"
        return self.stream

    @property
    def cell_ids(self) -> NDArray[np.uint64]:
        """Ids by cell index, of the labels read so far."""
        return self.labels.cells.ids

    def share(self) -> None:
        """Keep what is written so far for all frames. Arrays of it cannot be written to any more."""
        self._shared = dict(self.values)
        for value in self._shared.values():
            if isinstance(value, np.ndarray):
                value.flags.writeable = False

    def begin(self, frame: Frame) -> None:
        """Begin a frame: forget what the one before it made."""
        self.values, self.frame, self.tally.images = dict(self._shared), frame, []

    def release(self) -> None:
        """Let go of all that was made: streams close over the tile, a ring that would outlive it."""
        self.stream = None
        for held in (self.values, self._shared, self._scratch):
            held.clear()


@dataclass(frozen=True)
class TileState:
    """A tile as one stage sees it: it reads and writes what it declares, and has room of its own.

    Attributes
    ----------
    scratch
        The stage's own values; they last as long as the tile, through all frames, and nobody else sees them.
    """

    _tile: Tile
    _stage: Stage
    scratch: dict[str, Any]

    def read(self, quantity: Quantity) -> Any:
        """What an earlier stage wrote.

        Raises
        ------
        TypeError
            If the stage does not declare that it reads this.
        """
        self._declared(quantity, self._stage.inputs, "reads")
        return self._tile.values[quantity.name]

    def write(self, quantity: Quantity, value: Any) -> None:
        """Hand a value on to later stages.

        Raises
        ------
        TypeError
            If the stage does not declare that it writes this.
        """
        self._declared(quantity, self._stage.writes, "writes")
        self._tile.values[quantity.name] = value

    @property
    def labels(self) -> LabelStream:
        """The labels of the tile; raises as `read` where the stage does not declare them."""
        self._declared(LABELS, self._stage.inputs, "reads")
        return self._tile.labels

    @property
    def cell_ids(self) -> NDArray[np.uint64]:
        """Ids by cell index, of the labels read so far."""
        return self._tile.cell_ids

    @property
    def context(self) -> RunContext:
        """What all blocks share."""
        return self._tile.context

    @property
    def pixels(self) -> Box:
        """The tile, in pixels of the image."""
        return self._tile.pixels

    @property
    def boxes(self) -> Mapping[str, NmBox]:
        """Boxes wanted of each quantity, nm, as the planner walked them back from `pixels`."""
        return self._tile.boxes

    @property
    def tally(self) -> Tally:
        """What the block counts."""
        return self._tile.tally

    @property
    def counted(self) -> Counted:
        """Tables of the passes before."""
        return self._tile.counted

    @property
    def frame(self) -> Frame:
        """The frame that is being made; all 0 where the specimen is imaged once, or the stage is the same in all frames."""
        return self._tile.frame

    @property
    def device(self) -> Device:
        """Where the tile is computed."""
        return self._tile.device

    def _declared(self, quantity: Quantity, declared: tuple[Quantity, ...], what: str) -> None:
        if quantity not in declared:
            raise TypeError(
                f"the stage {self._stage.tag!r} {what} {quantity.name!r} without declaring it, so nothing would make sure that "
                f"it is there, and halos would be wrong; add it to `{what}` of {type(self._stage).__name__}"
            )


class CellTable(Protocol):
    """Sums over the whole specimen, by cell."""

    def look_up(self, ids: NDArray[np.uint64]) -> dict[str, NDArray[np.int64]]:
        """Columns at these ids, (n,) each; 0 where the table has no such id."""

    def largest(self, column: str) -> tuple[int, int]:
        """(id, value) of the largest value of a column, the smallest id of equals; (0, 0) where all are 0."""


Counted = Mapping[str, CellTable]
"""Tables that were counted in passes before the images are made, by the pass's name."""


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

    def see(self, part: LabelPart, state: TileState) -> None:
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
