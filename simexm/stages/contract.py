"""What a stage is: a frozen model that says what it reads, what it writes, how far it looks, and what it does to a block.

What the user writes in a spec and what runs on a block are the same object. To add physics, write a file with one
more subclass of `Stage` and name it in `simexm/stages/__init__.py`, or in a package of your own (`pipelines/stage.md`
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

if TYPE_CHECKING:
    from simexm.stages.roles import ImagingPlan


class Quantity(NamedTuple):
    """Something that stages pass on: its name, axes and unit, and the data type in which it is stored, where it can be."""

    name: str
    axes: str
    unit: str
    dtype: str = ""


LABELS = Quantity("labels", "zyx", "cell id of each voxel")
REGIONS = Quantity("regions", "zyx", "bits of the regions that each voxel belongs to")
EMITTERS = Quantity("emitters", "n", "nm of tissue")
EXPANDED = Quantity("expanded", "n", "nm of expanded tissue")
EXPECTED = Quantity("expected", "czyx", "photo-electrons per pixel", "float32")
IMAGE = Quantity("image", "czyx", "camera counts", "uint16")
LABELLED = Quantity("labelled", "lzyx", "dyes per pixel", "uint32")
TRUTH = Quantity("truth", "zyx", "cell id of each pixel")


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
        Dyes whose chunks differ from round to round.
    """

    dyes: Mapping[str, str]
    reach_nm: float
    chunks: Callable[[str], Iterator[Chunk]]
    varying: frozenset[str] = frozenset()


@dataclass(frozen=True)
class World:
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
        Dye of each layer that labels anything.
    imaging
        What the microscope was resolved to; None only while it is.
    clump_cell_nm
        Size, z y x, nm of tissue, of a cell within which the places of many dyes do not matter; None where they always do.
    clump_above
        Mean dyes in such a cell above which their number is drawn at once.
    device
        `cpu` or `gpu`, for the whole run.
    rounds
        Rounds of imaging; 0 where there is one image.
    identified
        Whether emitters carry their identities, because a stage asks for them.
    """

    seed: int
    geometry: Geometry
    region_bits: Mapping[str, int]
    dye_of_layer: Mapping[str, str]
    imaging: ImagingPlan | None
    clump_cell_nm: tuple[float, float, float] | None = None
    clump_above: float = 32.0
    device: str = "cpu"
    rounds: int = 0
    identified: bool = False

    @property
    def masks(self) -> tuple[str, ...]:
        """Regions that are read from the source, not found from the labels."""
        return tuple(name for name in self.region_bits if name not in ("membrane", "cytosol"))


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
    amplicons
        Amplicons of each cell; None where there are no rounds.
    """

    voxels: ByCell = field(default_factory=counts)
    amplicons: ByCell | None = None
    dyes: dict[str, ByCell] = field(default_factory=dict)
    unspecific: dict[str, int] = field(default_factory=dict)


@dataclass
class Work:
    """One tile in the making: the box of each quantity, the values so far, and the tally.

    Attributes
    ----------
    world
        What all blocks share.
    pixels
        The tile, in pixels of the image.
    boxes
        nm box wanted of each quantity, as the planner walked them back from `pixels`.
    values
        Quantities written so far, by name.
    tally
        Counts.
    counted
        Tables of the passes before.
    stream
        The labels of the tile; None where there are none.
    round
        Which round of imaging is being made, from 1 on; 0 where there are none.
    """

    world: World
    pixels: Box
    boxes: Mapping[str, NmBox]
    values: dict[str, Any]
    tally: Tally
    counted: Counted
    stream: LabelStream | None = None
    round: int = 0

    @property
    def labels(self) -> LabelStream:
        """The labels of the tile."""
        assert self.stream is not None, "this tile has no labels"
        return self.stream

    @property
    def device(self) -> Device:
        """Where the tile is computed."""
        return device(self.world.device)


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
    writes: ClassVar[tuple[Quantity, ...]]
    whole_labels: ClassVar[bool] = False
    """Whether the stage wants the labels of a tile at once, not part by part."""
    on_gpu: ClassVar[bool] = True
    """Whether the stage can work on a GPU: whether it leaves to `Work.device` what takes long."""
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

    def transform(self, frame: Mapping[str, int] | None = None) -> Transform:
        """How this stage moves tissue; the same in all frames where none is given."""
        return IDENTITY

    def passes(self) -> tuple[CountPass, ...]:
        """Sums by cell that the stage must know before it can run, in the order in which they are made."""
        return ()

    def count_box(self, name: str, own: Box, world: World) -> Box | None:
        """Voxels that pass `name` must read to count the voxels `own`; None where nothing is to be counted there."""
        raise TypeError(f"{type(self).__name__} has no pass {name}")

    def count(self, name: str, own: Box, part: LabelPart, work: Work) -> dict[str, NDArray[np.int64]]:
        """Count the voxels `own`, which lie in `part`, for pass `name`; columns by cell index."""
        raise TypeError(f"{type(self).__name__} has no pass {name}")

    def counted_warnings(self, name: str, table: CellTable) -> list[str]:
        """What the table of pass `name` tells that a user should know before the images are made."""
        return []

    def needs(self, wanted: NmBox, world: World) -> dict[str, NmBox]:
        """Box of each quantity read, given the box `wanted` of what the stage writes.

        Boxes are nm from the corner of the specimen, of tissue for what lies before expansion and of expanded tissue for
        what lies after it.
        """
        return {q.name: wanted for q in self.inputs}

    def see(self, part: LabelPart, work: Work) -> None:
        """Take what is wanted of a part of the labels while it is there; stages see it in their order.

        A part that comes `again` has been counted.
        """

    def run(self, work: Work) -> None:
        """Read from and write to `work.values`."""
        raise TypeError(f"{type(self).__name__} does not say what it does")
