"""Data that stages exchange: quantities, labels of a tile part by part, and emitter streams."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simexm.geometry.grid import Box
from simexm.kernels.devices.device import Cells
from simexm.kernels.emission.points import Emitters
from simexm.kernels.labels.cells import CellIndex


class Quantity(NamedTuple):
    """A quantity that stages exchange: name, axes, unit, and the dtype in which it can be stored, if it can."""

    name: str
    axes: str
    unit: str
    dtype: str = ""


LABELS = Quantity("labels", "zyx", "cell id of each voxel")
REGIONS = Quantity("regions", "zyx", "bits of the regions that each voxel belongs to")
"""Computed part by part (`LabelPart.regions`); the value written for the tile is a `RegionRule`."""
EMITTERS = Quantity("emitters", "n", "nm of tissue")
EXPANDED = Quantity("expanded", "n", "nm of expanded tissue")
ACTIVITY = Quantity("activity", "nt", "series of all cells")
"""A `CellSeries`; None if the specimen is imaged once."""
EXPECTED = Quantity("expected", "czyx", "photo-electrons per pixel", "float32")
IMAGE = Quantity("image", "czyx", "camera counts", "uint16")
LABELLED = Quantity("labelled", "lzyx", "dyes per pixel", "uint32")
TRUTH = Quantity("truth", "zyx", "cell id of each pixel")
"""Cell indices, int32, by region; "" stands for all of the cell."""


@dataclass(frozen=True)
class RegionRule:
    """How regions were found; `in_slice`: by neighbours within the slice only."""

    in_slice: bool


@dataclass
class LabelPart:
    """A part of the labels of a tile."""

    core: Box
    """Voxels, in volume coordinates, that this part covers; the cores of all parts tile the labels."""
    box: Box
    """Voxels of the arrays: the core with a halo of one voxel, clipped to the tile's labels."""
    index: NDArray[np.int32]
    """Cell indices, int32, shape of `box`; see `CellIndex`."""
    cells: CellIndex
    """Ids by index, of the parts read so far."""
    masks: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    """Masks by name, bool, shape of `box`."""
    greys: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    """Grey values by name, float32, shape of `box`."""
    placed: Any = None
    """Cell indices on the device, shape of `box`, once a stage has found the regions."""
    regions: Any = None
    """Region bits, likewise."""
    opens: bool = True
    """Whether this is the first part at its z."""
    again: bool = False
    """Whether the stages have processed it before."""

    def marked(self) -> Any:
        """Region bits."""
        assert self.regions is not None, "no stage has found regions"
        return self.regions

    def on_device(self) -> Cells:
        """Cell indices and region bits."""
        return Cells(self.placed, self.marked(), self.box)


class LabelStream(ABC):
    """The labels of a tile, part by part, in ascending z; can be read more than once.

    `box` are the voxels of the labels, in volume coordinates, and `cells` the ids by index, of the parts read so far.
    `depth` planes of voxels may come in any order: 1 if every part spans whole planes, so that planes ascend, too.
    `seen` says whether all parts have been read once.
    """

    def __init__(self, box: Box, depth: int) -> None:
        self.box, self.depth = box, depth
        self.cells = CellIndex()
        self.seen = False

    @abstractmethod
    def parts(self) -> Iterator[LabelPart]:
        """Yield the parts, each after all stages have processed it (`Stage.visit`). Buffers are reused."""

    def survey(self) -> None:
        """Have the stages process all parts, unless they have already."""
        if not self.seen:
            for _ in self.parts():
                pass

    def whole(self) -> LabelPart:
        """The only part, for stages with `Stage.whole_labels`."""
        (part,) = self.parts()
        return part


@dataclass
class Chunk:
    """Some emitters of one layer; or, if `layer` is None, a promise that all later ones lie at `floor_nm` or above."""

    layer: str | None
    emitters: Emitters
    floor_nm: float


@dataclass(frozen=True)
class EmitterStream:
    """Emitters in chunks, in ascending planes of voxels."""

    dyes: Mapping[str, str]
    """Dye of each layer."""
    reach_nm: float
    """Largest distance along z of an emitter above the last announced floor."""
    chunks: Callable[[str], Iterator[Chunk]]
    """Called with a dye; yields the chunks of its layers. Buffers are reused: copy what you need before the next."""
    varying: frozenset[str] = frozenset()
    """Dyes whose chunks differ from frame to frame."""
    kept_as: Mapping[str, str] = field(default_factory=dict)
    """Name of a layer in the table of emitters, if not its own."""
    flashing: Mapping[str, float] = field(default_factory=dict)
    """Dyes whose weights are times on in a frame, and the share of the exposure that weight 1 stands for."""
