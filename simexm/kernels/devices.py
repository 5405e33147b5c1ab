"""Where a tile is computed: what the stages ask for, on the CPU or on a GPU.

A stage asks its device and never which one it is. Arrays that a device returns are its own: they go back to it, or through
`to_host`. The CPU's are NumPy's and its work is done by the compiled kernels; see `array_device` for a GPU's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from simexm.grid import Box, Triple
from simexm.kernels import camera, emit, gather, imaging
from simexm.kernels.amplicons import Amplicons, scatter_dyes
from simexm.kernels.camera import Detector, Profile
from simexm.kernels.deposit import Ring, deposit_counts
from simexm.kernels.emit import Emitters, Law, LayerKeys
from simexm.kernels.imaging import LateralGrid, Transfer
from simexm.kernels.regions import add_mask, regions_of

Floats = tuple[float, float, float]
T = TypeVar("T")


class Cells(NamedTuple):
    """A box of the ground truth on a device.

    Attributes
    ----------
    index, regions
        Cell indices (int32) and region bits (uint8), z y x.
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

    def room(self, capacity: int) -> Emitters:
        """Uninitialised room for emitters."""

    def regions(self, index: Any, neighbourhood: int, masks: Sequence[tuple[int, NDArray[np.bool_]]]) -> Any:
        """Region bits, uint8; `masks` are pairs of bit and mask, cut to cells."""

    def emit(
        self,
        cells: Cells,
        where: Where,
        labelled: Any,
        weights: Any,
        law: Law,
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
        """Write to the host's array `out` the cell indices at each combination of three lists of array indices, where their
        regions have one of the bits `wanted`, else 0."""

    def attempt(self, work: Callable[[], T]) -> T:
        """Do the work, twice where the device's memory was too full the first time."""


class CpuNodePlanes:
    """`NodePlanes` by the compiled kernels; node plane n is held in slot n % slots."""

    def __init__(self, grid: NodeGrid) -> None:
        band_y, band_x = grid.lateral.band
        self._grid = grid
        self._ring = Ring(grid.node, grid.shape, grid.depth)
        self._window = Window(grid, imaging.AT_ONCE)
        slots = self._window.slots
        self._planes = np.zeros((2 * band_y + 1, slots, 2, band_x + 1), np.float32)
        self._used = np.zeros(slots, np.bool_)

    def add(self, emitters: Emitters) -> None:
        """See `NodePlanes`."""
        e, g = emitters, self._grid
        self._ring.add(e.z, e.y, e.x, e.weight, g.per_nm, g.shift)

    def advance(self, plane: int) -> Iterator[range]:
        """See `NodePlanes`."""
        window, slots = self._window, self._window.slots
        for node, held in self._ring.advance(plane):
            while node >= window.first + slots:
                yield from self._seen()
            if node < window.first:  # between the ranges of two image planes
                continue
            imaging.store_plane(imaging.plane_spectrum(held, self._grid.lateral), self._planes, node % slots)
            self._used[node % slots] = True
        while plane >= self._grid.end and window.wanted:
            yield from self._seen()

    def _seen(self) -> Iterator[range]:
        yield self._window.wanted
        for node in self._window.move():
            self._used[node % self._window.slots] = False

    def project(self, response: Transfer, wanted: range, out: NDArray[np.complex64]) -> None:
        """See `NodePlanes`."""
        if self._used.any():
            g, grid = self._grid, self._grid.lateral
            imaging.project(self._planes, self._used, *response, g.step, wanted.start, *grid.pixels, grid.nodes[1], out)


class CpuDevice:
    """The CPU: arrays are NumPy's, and kernels are compiled."""

    name = "cpu"
    capacity = emit.CAPACITY
    slab = 1

    def put(self, array: NDArray[Any]) -> NDArray[Any]:
        """See `Device`."""
        return array

    def to_host(self, array: NDArray[Any]) -> NDArray[Any]:
        """See `Device`."""
        return array

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """See `Device`."""
        return np.zeros(shape, dtype)

    def room(self, capacity: int) -> Emitters:
        """See `Device`."""
        return Emitters.empty(capacity)

    def regions(
        self, index: NDArray[np.int32], neighbourhood: int, masks: Sequence[tuple[int, NDArray[np.bool_]]]
    ) -> NDArray[np.uint8]:
        """See `Device`."""
        bits = regions_of(index, neighbourhood)
        for bit, mask in masks:
            add_mask(index, mask, np.uint8(bit), bits)
        return bits

    def emit(
        self,
        cells: Cells,
        where: Where,
        labelled: NDArray[np.uint8],
        weights: NDArray[np.float64],
        law: Law,
        keys: LayerKeys,
        room: Emitters,
        dyes_of_cell: NDArray[np.int64],
    ) -> Iterator[Emitters]:
        """See `Device`."""
        yield from emit.emit_layer(
            cells.index, cells.regions, labelled, weights, law, keys,
            array=cells.array, specimen=where.specimen, inside=where.inside, own=where.own,
            voxel_nm=where.voxel_nm, room=room, dyes_of_cell=dyes_of_cell,
        )  # fmt: skip

    def scatter(
        self, amplicons: Amplicons, keys: NDArray[np.int64], radius_nm: float, room: Emitters
    ) -> Iterator[Emitters]:
        """See `Device`."""
        yield from scatter_dyes(amplicons, keys, radius_nm, room)

    def deposit_counts(self, emitters: Emitters, per_nm: Floats, start: Triple, out: NDArray[np.int64]) -> None:
        """See `Device`."""
        e = emitters
        deposit_counts(e.z, e.y, e.x, e.weight, per_nm, start, out)

    def node_planes(self, grid: NodeGrid) -> CpuNodePlanes:
        """See `Device`."""
        return CpuNodePlanes(grid)

    def response(self, transfer: Transfer) -> Transfer:
        """See `Device`."""
        return transfer

    def image(
        self,
        spectra: NDArray[np.complex64],
        grid: LateralGrid,
        inner: tuple[slice, slice],
        out: NDArray[np.float32],
    ) -> None:
        """See `Device`."""
        for k, spectrum in enumerate(spectra):
            out[k] = imaging.inverse_plane(spectrum, grid)[inner]

    def draw_counts(
        self,
        expected: NDArray[np.float32],
        start: Triple,
        detector: Detector,
        profile: Profile,
        out: NDArray[np.uint16],
    ) -> tuple[int, NDArray[np.int64]]:
        """See `Device`."""
        clipped = camera.draw_counts(expected, start, detector, profile, out)
        return clipped, camera.quarter_octaves(out)

    def gather_where(
        self,
        cells: Cells,
        wanted: int,
        z: NDArray[np.int64],
        y: NDArray[np.int64],
        x: NDArray[np.int64],
        out: NDArray[np.int32],
    ) -> None:
        """See `Device`."""
        gather.gather_where(cells.index, cells.regions, np.uint8(wanted), z, y, x, out)

    def attempt(self, work: Callable[[], T]) -> T:
        """See `Device`."""
        return work()


CPU = CpuDevice()


def device(name: str) -> Device:
    """The device of this process that a plan names, `cpu` or `gpu`."""
    if name == "cpu":
        return CPU
    from simexm.kernels import cupy_device

    return cupy_device.gpu()
