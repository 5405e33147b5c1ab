"""Where a tile is computed: what the stages ask for, on the CPU or on a GPU.

A stage asks its device and never which one it is. Arrays that a device returns are its own: they go back to it, or through
`to_host`. See `cpu_device` and `array_device`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from simexm.geometry.grid import Box, Triple
from simexm.kernels.detector.camera import Detector, Profile
from simexm.kernels.emission.amplicons import Amplicons
from simexm.kernels.emission.emit import EmissionLaw, Emitters, LayerKeys
from simexm.kernels.imaging.image import LateralGrid, Transfer

Floats = tuple[float, float, float]
T = TypeVar("T")


class Cells(NamedTuple):
    """A box of the ground truth on a device.

    Attributes
    ----------
    index, regions
        Cell indices (int32) and region bits (see `regions.bits_type`), z y x.
    array
        Voxels of the whole volume that they cover.
    """

    index: Any
    regions: Any
    array: Box


class Where(NamedTuple):
    """Which voxels emit, boxes in voxels of the whole volume.

    Attributes
    ----------
    specimen, inside, own
        What exists, what emits now, and what is counted.
    voxel_nm
        Size of a voxel, nm of tissue.
    """

    specimen: Box
    inside: Box
    own: Box
    voxel_nm: Floats


class NodeGrid(NamedTuple):
    """Where dyes are deposited: nodes of the simulation grid around a tile.

    Attributes
    ----------
    lateral
        Shape of the lateral transforms.
    node, shape
        First node, and nodes along z, y, x.
    depth
        Node planes that emitters can touch between two floors.
    per_nm, shift
        Position p lies at p * per_nm - shift nodes.
    wanted, step, reach
        Planes of the image that are wanted; plane k lies at node plane k * step, and sees so many to either side.
    """

    lateral: LateralGrid
    node: Triple
    shape: Triple
    depth: int
    per_nm: Floats
    shift: Floats
    wanted: range
    step: int
    reach: int

    @property
    def end(self) -> int:
        """First node plane that the grid no longer holds."""
        return self.node[0] + self.shape[0]


class NodePlanes(Protocol):
    """Dyes of one kind on their way to spectra, plane by plane of the simulation grid."""

    def add(self, emitters: Emitters) -> None:
        """Deposit emitters."""

    def advance(self, plane: int) -> Iterator[range]:
        """No emitter will touch a plane below this one: transform those.

        Yields the planes of the image, in ascending order, of which all that they see is there: `project` them then.
        """

    def project(self, response: Any, wanted: range, out: Any) -> None:
        """Add what image planes see to their spectra; see `imaging.project`."""


class Window:
    """The image planes to be made next, and the node planes that they see.

    Parameters
    ----------
    grid
        Where dyes are deposited.
    at_once
        Image planes that are made together.
    """

    def __init__(self, grid: NodeGrid, at_once: int) -> None:
        self._grid, self._at_once = grid, at_once
        self.slots = min(grid.shape[0], (at_once - 1) * grid.step + 2 * grid.reach + 1)
        """Node planes that are held."""
        self.wanted = range(0)
        self._begin(grid.wanted.start)

    def _begin(self, plane: int) -> None:
        self.wanted = range(plane, min(plane + self._at_once, self._grid.wanted.stop))

    @property
    def first(self) -> int:
        """First node plane that they see."""
        return self.wanted.start * self._grid.step - self._grid.reach

    def move(self) -> range:
        """Go on to the next image planes; the node planes that they and all later ones do not see."""
        before = self.first
        self._begin(self.wanted.stop)
        return range(before, self.first)


class Device(Protocol):
    """What stages ask for."""

    name: str
    capacity: int
    """Emitters in one chunk."""
    slab: int
    """Planes of voxels that emit together."""

    def put(self, array: NDArray[Any]) -> Any:
        """The device's copy of an array of the host, or the array itself."""

    def to_host(self, array: Any) -> NDArray[Any]:
        """The host's copy of an array of the device, or the array itself."""

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """An array of zeros."""

    def room(self, capacity: int, identified: bool = False) -> Emitters:
        """Uninitialised room for emitters, with their identities or without."""

    def regions(self, index: Any, neighbourhood: int, masks: Sequence[tuple[int, NDArray[np.bool_]]]) -> Any:
        """Region bits, of `regions.bits_type_of(masks)`; `masks` are pairs of bit and mask, cut to cells."""

    def emit(
        self,
        cells: Cells,
        where: Where,
        labelled: Any,
        weights: Any,
        law: EmissionLaw,
        keys: LayerKeys,
        room: Emitters,
        dyes_of_cell: Any,
    ) -> Iterator[Emitters]:
        """Yield the emitters of one layer's voxels; see `emit.emit_layer`."""

    def scatter(self, amplicons: Amplicons, keys: Any, radius_nm: float, room: Emitters) -> Iterator[Emitters]:
        """Yield the dyes of amplicons; see `amplicons.scatter_dyes`."""

    def deposit_counts(self, emitters: Emitters, per_nm: Floats, start: Triple, out: Any) -> None:
        """Add emitters to the pixels that hold them; see `deposit.deposit_counts`."""

    def node_planes(self, grid: NodeGrid) -> NodePlanes:
        """Empty planes."""

    def response(self, transfer: Transfer) -> Any:
        """A transfer function as `NodePlanes.project` takes it."""

    def image(self, spectra: Any, grid: LateralGrid, inner: tuple[slice, slice], out: Any) -> None:
        """Expected image, float32, (planes, y, x), the part `inner` of each plane, of one channel's coarse spectra."""

    def draw_counts(
        self, expected: Any, start: Triple, detector: Detector, profile: Profile, out: Any
    ) -> tuple[int, NDArray[np.int64]]:
        """Draw counts (uint16); return the number of pixels cut at the top, and `camera.quarter_octaves` of the counts."""

    def gather_where(
        self,
        cells: Cells,
        wanted: int,
        z: NDArray[np.int64],
        y: NDArray[np.int64],
        x: NDArray[np.int64],
        out: NDArray[np.int32],
    ) -> None:
        """Write cell indices at each combination of three lists of array indices to the host's array `out`.

        Where a voxel's regions have none of the bits `wanted`, 0 is written.
        """

    def attempt(self, work: Callable[[], T]) -> T:
        """Do the work, twice where the device's memory was too full the first time."""


def device(name: str) -> Device:
    """The device of this process that a plan names, `cpu` or `gpu`."""
    from simexm.kernels.devices import cpu_device, cupy_device

    if name == "cpu":
        return cpu_device.CPU
    return cupy_device.gpu()
