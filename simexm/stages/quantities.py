"""What stages pass on: quantities, the labels of a tile part by part, and streams of emitters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simexm.geometry.grid import Box
from simexm.kernels.devices.device import Cells
from simexm.kernels.emission.emit import Emitters
from simexm.kernels.labels.cells import CellIndex


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
        """Yield the parts, each after all stages have visited it; see `Stage.visit`. Buffers are used again."""

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
