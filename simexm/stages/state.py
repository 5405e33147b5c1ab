"""What a stage works with: the context of the run, and the tile being computed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from simexm.geometry.geometry import Geometry
from simexm.geometry.grid import Box, NmBox
from simexm.geometry.transform import Specimen, Transform
from simexm.kernels.devices.device import Device, device
from simexm.kernels.labels.cells import ByCell, counts
from simexm.spectra.fluorophores import Fluorophore
from simexm.stages.frames import IMAGED_ONCE, NO_FRAME, Acquisition, Frame
from simexm.stages.quantities import LABELS, LabelStream, Quantity

if TYPE_CHECKING:
    from simexm.stages.contract import Stage
    from simexm.stages.roles import Detector, ImagingPlan, Labeller, TissueMotion


@dataclass(frozen=True)
class RunContext:
    """Everything that a block needs beside its box; the same on every worker."""

    seed: int
    geometry: Geometry
    """The pixel grid over the ground truth, and the transform between them."""
    region_bits: Mapping[str, int]
    """Bit of each region in `REGIONS`, by name: membrane, cytosol, and the masks in use."""
    dye_of_layer: Mapping[str, str]
    """Dye of each layer that labels cells."""
    imaging: ImagingPlan | None
    """The plan of the microscope; None until it is resolved."""
    clump_cell_nm: tuple[float, float, float] | None = None
    """Size, z y x, nm of tissue, of a cell within which the positions of many dyes do not matter; None: they always
    do."""
    clump_above: float = 32.0
    """Mean number of dyes in such a cell above which their number is drawn at once."""
    device: str = "cpu"
    """`cpu` or `gpu`."""
    identified: bool = False
    """Whether emitters carry identities, because a stage needs them."""
    acquisition: Acquisition = IMAGED_ONCE
    channels: tuple[str, ...] = ()
    """Names of the microscope's channels."""
    dyes: Mapping[str, Fluorophore] = field(default_factory=dict)
    """Dyes in use, by name."""
    id_dtype: str = "uint64"
    labeller: Labeller | None = None
    """The stage that labels cells; None if nothing is labelled."""
    motion: TissueMotion | None = None
    """The stage that moves tissue while it is filmed."""
    detector: Detector | None = None
    """The detector."""
    emits: Mapping[str, str] = field(default_factory=dict)
    """Dye of each layer of emitters, whether it labels cells or not."""
    pixel_time_s: float | None = None
    """Time in which a pixel of a plane collects light; None if the microscope has none."""
    excitations_per_s: Mapping[str, float] = field(default_factory=dict)
    """How often a dye is excited while it is on, by dye, of microscopes that film switching dyes."""
    greys: tuple[str, ...] = ()
    """Grey fields of the source in use."""
    rough: bool = False
    """Whether boxes need only be roughly right; see `Transform.rough`."""
    transforms: Mapping[Frame, Transform] = field(default_factory=dict)
    """Transform of each frame, if tissue moves between them; that of `geometry` is the first frame's or, after `at`, the
    frame's own."""
    missing: Mapping[Frame, Sequence[Box]] = field(default_factory=dict)
    """Voxels of the volume that a frame lacks, likewise."""
    frame: Frame = NO_FRAME
    """The frame of `at`."""

    def at(self, frame: Frame) -> RunContext:
        """The same for one frame."""
        if not self.transforms:
            return self
        return replace(self, geometry=replace(self.geometry, transform=self.transforms[frame]), frame=frame)

    @property
    def distinct(self) -> list[RunContext]:
        """The same for each frame that has a transform of its own; itself if none has."""
        return [self.at(frame) for frame in self.transforms] or [self]

    @property
    def is_first(self) -> bool:
        """Whether this is the frame in which the specimen is counted."""
        return self.frame == NO_FRAME or self.frame == next(iter(self.transforms))

    def roughly(self) -> RunContext:
        """The same for planning; see `Transform.rough`."""
        transform = self.geometry.transform.rough()
        transforms = {frame: one.rough() for frame, one in self.transforms.items()}
        return replace(self, geometry=replace(self.geometry, transform=transform), transforms=transforms, rough=True)

    @property
    def specimen(self) -> Specimen:
        """What deformations depend on."""
        return self.geometry.specimen(self.seed)

    @property
    def read_beside(self) -> tuple[str, ...]:
        """Fields that are read from the source beside the labels: masks and grey values."""
        return self.masks + self.greys

    @property
    def masks(self) -> tuple[str, ...]:
        """Regions that are read from the source, not computed from the labels."""
        return tuple(name for name in self.region_bits if name not in ("membrane", "cytosol"))


class ImageCounts(NamedTuple):
    """One channel of a tile: the number of saturated pixels, and the histogram of counts in quarter octaves."""

    clipped: int
    histogram: NDArray[np.int64]


@dataclass
class Tally:
    """What a block counts: voxels by cell, dyes by layer and cell, unspecific dyes by layer.

    `images` has one entry for each channel of the current frame, and none without a detector.
    """

    voxels: ByCell = field(default_factory=counts)
    dyes: dict[str, ByCell] = field(default_factory=dict)
    unspecific: dict[str, int] = field(default_factory=dict)
    images: list[ImageCounts] = field(default_factory=list)


class CellTable(Protocol):
    """Sums over the whole specimen, by cell."""

    def look_up(self, ids: NDArray[np.uint64]) -> dict[str, NDArray[np.int64]]:
        """Columns at these ids, (n,) each; 0 for ids that the table lacks."""

    def all_ids(self) -> NDArray[np.uint64]:
        """Ids of all rows, ascending."""

    def largest(self, column: str) -> tuple[int, int]:
        """(id, value) of the largest value of a column, the smallest id of equals; (0, 0) if all are 0."""


class NodeMap(Protocol):
    """A map of the whole specimen."""

    def read(self, level: int, box: Box) -> NDArray[np.float32]:
        """Values at the nodes of a box of cells of a level, (layers, *box.shape), to 24 bits; 0 beyond the map."""


class CellSeries(Protocol):
    """Values of all cells in every frame; see `SeriesPass`."""

    @property
    def ids(self) -> NDArray[np.uint64]:
        """Ids of the rows, ascending."""

    def read(self, column: str, first: int, frames: int) -> NDArray[Any]:
        """Values of all cells in some frames, (cells, frames)."""


@dataclass(frozen=True)
class Counted(Mapping[str, CellTable]):
    """What the passes over the specimen found: a mapping of tables by name of the count pass, maps, and series."""

    tables: Mapping[str, CellTable] = field(default_factory=dict)
    maps: Mapping[str, NodeMap] = field(default_factory=dict)
    series: Mapping[str, CellSeries] = field(default_factory=dict)

    def __getitem__(self, name: str) -> CellTable:
        return self.tables[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tables)

    def __len__(self) -> int:
        return len(self.tables)


@dataclass
class Tile:
    """A tile being computed, as the block holds it; a stage sees it through `TileState`."""

    context: RunContext
    pixels: Box
    """The tile, in pixels of the image."""
    boxes: Mapping[str, NmBox] = field(default_factory=dict)
    """Box needed of each quantity, nm, as the planner derived them backwards from `pixels`."""
    counted: Counted = field(default_factory=Counted)
    """Tables of the count passes, and maps."""
    values: dict[str, Any] = field(default_factory=dict)
    """Quantities written so far, by name."""
    tally: Tally = field(default_factory=Tally)
    stream: LabelStream | None = None
    """Labels of the tile; None if it has none."""
    frame: Frame = NO_FRAME
    """Current frame; `NO_FRAME` while computing what all frames share."""
    _scratch: dict[int, dict[str, Any]] = field(default_factory=dict)
    _shared: dict[str, Any] = field(default_factory=dict)

    def of(self, stage: Stage) -> TileState:
        """The view of one stage."""
        return TileState(self, stage, self._scratch.setdefault(id(stage), {}))

    @property
    def device(self) -> Device:
        """Device that computes the tile."""
        return device(self.context.device)

    @property
    def labels(self) -> LabelStream:
        """Labels of the tile."""
        assert self.stream is not None, "this tile has no labels"
        return self.stream

    @property
    def cell_ids(self) -> NDArray[np.uint64]:
        """Ids by cell index, of the labels read so far."""
        return self.labels.cells.ids

    def share(self) -> None:
        """Share the values written so far with all frames. Their arrays become read-only."""
        self._shared = dict(self.values)
        for value in self._shared.values():
            if isinstance(value, np.ndarray):
                value.flags.writeable = False

    def begin(self, frame: Frame) -> None:
        """Begin a frame: drop the values of the one before."""
        self.values, self.frame, self.tally.images = dict(self._shared), frame, []

    def release(self) -> None:
        """Drop all values: streams refer back to the tile, a cycle that would keep it alive."""
        self.stream = None
        for held in (self.values, self._shared, self._scratch):
            held.clear()


@dataclass(frozen=True)
class TileState:
    """A tile as one stage sees it: only quantities that the stage declares can be read or written.

    `scratch` holds the stage's private values for the life of the tile, through all frames.
    """

    _tile: Tile
    _stage: Stage
    scratch: dict[str, Any]

    def read(self, quantity: Quantity) -> Any:
        """Value that an earlier stage wrote; TypeError if the stage does not declare the quantity in `reads`."""
        self._declared(quantity, self._stage.inputs, "reads")
        return self._tile.values[quantity.name]

    def write(self, quantity: Quantity, value: Any) -> None:
        """Pass a value to later stages; TypeError if the stage does not declare the quantity in `writes`."""
        self._declared(quantity, self._stage.writes, "writes")
        self._tile.values[quantity.name] = value

    @property
    def labels(self) -> LabelStream:
        """Labels of the tile; TypeError if the stage does not declare them in `reads`."""
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
        """Box needed of each quantity, nm."""
        return self._tile.boxes

    @property
    def tally(self) -> Tally:
        """Counts of the block."""
        return self._tile.tally

    @property
    def counted(self) -> Counted:
        """Tables of the count passes."""
        return self._tile.counted

    @property
    def mapped(self) -> Mapping[str, NodeMap]:
        """The maps."""
        return self._tile.counted.maps

    @property
    def series(self) -> Mapping[str, CellSeries]:
        """The series of cells."""
        return self._tile.counted.series

    @property
    def frame(self) -> Frame:
        """Current frame; `NO_FRAME` if the specimen is imaged once or the stage is the same in all frames."""
        return self._tile.frame

    @property
    def device(self) -> Device:
        """Device that computes the tile."""
        return self._tile.device

    def _declared(self, quantity: Quantity, declared: tuple[Quantity, ...], what: str) -> None:
        if quantity not in declared:
            raise TypeError(
                f"stage {self._stage.tag!r} {what} {quantity.name!r} without declaring it, so it might be missing and its halo "
                f"would be wrong; add it to `{what}` of {type(self._stage).__name__}"
            )
