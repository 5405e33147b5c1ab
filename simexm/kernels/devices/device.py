"""The interface of a device, CPU or GPU, that computes a tile; see `cpu_device` and `array_device`.

Stages use it without knowing which device it is. Arrays that a device returns can only be passed back to it or to
`to_host`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from simexm.geometry.grid import Box, Triple
from simexm.kernels.detector.camera import DetectorLaw, PixelMaps, Profile
from simexm.kernels.emission.amplicons import Amplicons
from simexm.kernels.emission.points import EmissionLaw, Emitters, Factors, LayerKeys
from simexm.kernels.imaging.image import Blended, LateralGrid, Planar, Transfer

Floats = tuple[float, float, float]
Indices = NDArray[np.int64]
T = TypeVar("T")


class Cells(NamedTuple):
    """Cell indices (int32) and region bits (`regions.bits_type`), z y x, of the voxels `array`, on a device."""

    index: Any
    regions: Any
    array: Box


class Where(NamedTuple):
    """Which voxels emit, in voxels of the volume: extent of the specimen, of what emits now, and of what is counted."""

    specimen: Box
    inside: Box
    own: Box
    voxel_nm: Floats


class NodeGrid(NamedTuple):
    """Nodes of the simulation grid around a tile, on which dyes are deposited.

    Position p lies at p * per_nm - shift nodes. Image plane k lies at node plane k * step and sees `reach` node planes
    on each side.
    """

    lateral: LateralGrid
    node: Triple  # first node
    shape: Triple  # number of nodes
    depth: int  # node planes that emitters can touch between two floors of the stream
    per_nm: Floats
    shift: Floats
    wanted: range  # image planes to compute
    step: int
    reach: int
    factors: NDArray[np.float32] | None = None  # (terms, ny or 1, nx or 1): the planes times these are transformed

    @property
    def end(self) -> int:
        """End of the node planes, exclusive."""
        return self.node[0] + self.shape[0]

    @property
    def terms(self) -> int:
        """Transforms of each node plane."""
        return 1 if self.factors is None else len(self.factors)


class NodePlanes(Protocol):
    """Deposit of one dye and spectra of its node planes, plane by plane."""

    def add(self, emitters: Emitters) -> None:
        """Deposit emitters."""

    def advance(self, plane: int) -> Iterator[range]:
        """Transform the node planes below `plane`, which no later emitter touches.

        Yield ascending ranges of image planes whose node planes are all available; `project` each range before the
        next.
        """

    def project(self, response: Any, wanted: range, out: Any, term: int = 0) -> None:
        """Add the node planes of a term to the spectra of image planes; see `image.project` and those after it."""


class Window:
    """The next image planes to compute, `at_once` together, and the node planes that they see."""

    def __init__(self, grid: NodeGrid, at_once: int) -> None:
        self._grid, self._at_once = grid, at_once
        self.slots = min(grid.shape[0], (at_once - 1) * grid.step + 2 * grid.reach + 1)
        """Node planes to hold."""
        self.wanted = range(0)
        self._begin(grid.wanted.start)

    def _begin(self, plane: int) -> None:
        self.wanted = range(plane, min(plane + self._at_once, self._grid.wanted.stop))

    @property
    def first(self) -> int:
        """First node plane that the image planes see."""
        return self.wanted.start * self._grid.step - self._grid.reach

    def move(self) -> range:
        """Move to the next image planes; return the node planes that are no longer seen."""
        before = self.first
        self._begin(self.wanted.stop)
        return range(before, self.first)


class Device(Protocol):
    """A CPU or GPU."""

    name: str
    capacity: int
    """Emitters in one chunk."""
    slab: int
    """Planes of voxels that emit together."""
    xp: Any
    """Namespace of its arrays: NumPy, or another library of the Python array API."""

    def put(self, array: NDArray[Any]) -> Any:
        """Copy an array of the host to the device, if necessary."""

    def to_host(self, array: Any) -> NDArray[Any]:
        """Copy an array of the device to the host, if necessary."""

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """Array of zeros."""

    def room(self, capacity: int, identified: bool = False) -> Emitters:
        """Uninitialised buffers for emitters, with or without identities."""

    def regions(self, index: Any, neighbourhood: int, masks: Sequence[tuple[int, NDArray[np.bool_]]]) -> Any:
        """Region bits, of the dtype `regions.bits_type_of(masks)`; masks are cut to cells."""

    def emit(
        self,
        cells: Cells,
        where: Where,
        factors: Factors,
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

    def deposit_nodes(self, emitters: Emitters, per_nm: Floats, start: Triple, out: Any) -> None:
        """Add emitters to coarse nodes; see `nodes.deposit_nodes`."""

    def add_far(
        self, total: Any, spectra: Any, tables: Any, shares: Any, first: int, distance: NDArray[np.int64]
    ) -> None:
        """Add the far light of planes of coarse nodes to the spectra of image planes; see `far.add_planes`.

        All are complex64, (planes, y, x); the transfer functions `tables`, (sides, distances, y, x), are real.
        """

    def node_planes(self, grid: NodeGrid) -> NodePlanes:
        """Empty node planes."""

    def response(self, transfer: Transfer | Blended | Planar) -> Any:
        """Prepare a transfer function for `NodePlanes.project`."""

    def image(self, spectra: Any, grid: LateralGrid, inner: tuple[slice, slice], out: Any) -> None:
        """Write one channel's expected image, float32, (planes, y, x): the part `inner` of the inverse coarse spectra."""

    def draw_counts(
        self, expected: Any, start: Triple, law: DetectorLaw, profile: Profile, maps: PixelMaps | None, out: Any
    ) -> tuple[int, NDArray[np.int64]]:
        """Draw counts (uint16); return the number of saturated pixels and the histogram `camera.quarter_octaves`."""

    def gather_where(
        self, cells: Cells, wanted: int, z: Indices, y: Indices, x: Indices, out: NDArray[np.int32]
    ) -> None:
        """Write cell indices at all combinations of z, y, x to the host's array `out`; 0 without any of the bits `wanted`."""

    def attempt(self, work: Callable[[], T]) -> T:
        """Call `work`, and once more if the device ran out of memory."""


def device(name: str) -> Device:
    """Device of this process: `cpu` or `gpu`."""
    from simexm.kernels.devices import cpu_device, cupy_device

    if name == "cpu":
        return cpu_device.CPU
    return cupy_device.gpu()
