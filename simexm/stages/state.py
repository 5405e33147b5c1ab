"""What a stage works with: what is the same for a whole run, and the tile in the making."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from simexm.geometry.geometry import Geometry
from simexm.geometry.grid import Box, NmBox
from simexm.kernels.devices.device import Device, device
from simexm.kernels.labels.cells import ByCell, counts
from simexm.spectra.fluorophores import Fluorophore
from simexm.stages.frames import IMAGED_ONCE, NO_FRAME, Acquisition, Frame
from simexm.stages.quantities import LABELS, LabelStream, Quantity

if TYPE_CHECKING:
    from simexm.stages.contract import Stage
    from simexm.stages.roles import ImagingPlan, Labeller


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
