"""A GPU as a `Device`: the primitives of `cuda/` through a launcher, all else on arrays of a standard namespace.

Nothing here knows CuPy: `cupy_device` gives the namespace and the launcher of a real GPU. The tests give a namespace that has
nothing but the standard, and the primitives compiled for the host, so that all of this runs without a GPU, too.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from simexm.grid import Triple
from simexm.kernels import camera, planes
from simexm.kernels.amplicons import Amplicons
from simexm.kernels.camera import Detector, Profile
from simexm.kernels.deposit import UNIT, told_early
from simexm.kernels.devices import Cells, Floats, NodeGrid, Where, Window
from simexm.kernels.emit import Emitters, Law, LayerKeys, refuse_crowded
from simexm.kernels.imaging import LateralGrid, Transfer

T = TypeVar("T")

CAPACITY = 1 << 22
"""Emitters in one chunk."""
COUNTED = 1 << 24
"""Sub-cells whose emitters are counted in one launch, at most: a row, where that has more."""
SLAB = 8
"""Planes of voxels that emit together: fewer, larger launches."""
AT_ONCE = 64
"""Planes of the image for which spectra of node planes are held."""
BATCH_BYTES = 256 << 20
"""Arrays in between are about so large at most, where planes go through many at a time."""

_REAL, _WHOLE = "<f8", "<i8"
EMISSION = np.dtype(
    [
        ("mean", _REAL), ("dyes", _REAL), ("kept", _REAL), ("most", _REAL),
        ("sigma", _REAL, 3), ("voxel_nm", _REAL, 3), ("size", _REAL, 3),
        ("by_surface", _WHOLE), ("region_bits", _WHOLE), ("kind", _WHOLE), ("clumped", _WHOLE),
        ("subcells", _WHOLE, 3), ("number", _WHOLE, 2), ("place", _WHOLE, 2), ("linker", _WHOLE, 2),
        ("origin", _WHOLE, 3), ("specimen", _WHOLE, 3), ("shape", _WHOLE, 3),
        ("lo", _WHOLE, 3), ("hi", _WHOLE, 3), ("own_lo", _WHOLE, 3), ("own_hi", _WHOLE, 3),
    ]
)  # fmt: skip
"""`Emission` of `cuda/emit.cuh`."""
DETECTOR = np.dtype(
    [
        ("lit", _REAL), ("dark", _REAL), ("read_noise", _REAL), ("excess", _REAL),
        ("gain", _REAL), ("offset", _REAL), ("top", _REAL),
        ("shot", _WHOLE, 2), ("read", _WHOLE, 2), ("surplus", _WHOLE, 2), ("start", _WHOLE, 3), ("shape", _WHOLE, 3),
    ]
)  # fmt: skip
"""`Detector` of `cuda/camera.cuh`."""


class DeviceMemoryError(MemoryError):
    """A tile does not fit into the GPU's memory."""


class Backend(Protocol):
    """What makes arrays and runs primitives."""

    xp: Any
    """Namespace of the Python array API."""
    out_of_memory: type[Exception]
    """Raised where an array does not fit."""

    def launch(self, name: str, count: int, *arguments: Any) -> None:
        """Run a primitive over `count` elements.

        Arrays of `xp` are passed by their address, whole numbers as 64 bits, floats as doubles, arrays of NumPy by value, as
        the structure that they are.
        """

    def to_host(self, array: Any) -> NDArray[Any]:
        """Copy an array of `xp`."""

    def free(self) -> None:
        """Give back the memory that is kept for arrays to come, and what FFT plans hold."""


def _reals(values: Sequence[float]) -> NDArray[np.float64]:
    return np.array(values, np.float64)


def _wholes(values: Sequence[int]) -> NDArray[np.int64]:
    return np.array(values, np.int64)


class ArrayDevice:
    """See `Device`."""

    name = "gpu"
    slab = SLAB

    def __init__(self, backend: Backend, capacity: int = CAPACITY) -> None:
        self._backend = backend
        self.xp = backend.xp
        self.launch = backend.launch
        self.capacity = capacity
        self._bin_of = self.put(camera.BIN_OF)

    # ---------------------------------------------------------------- arrays

    def put(self, array: NDArray[Any]) -> Any:
        """See `Device`."""
        return self.xp.asarray(np.ascontiguousarray(array))

    def to_host(self, array: Any) -> NDArray[Any]:
        """See `Device`."""
        return array if isinstance(array, np.ndarray) else self._backend.to_host(array)

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """See `Device`."""
        return self.xp.zeros(shape, dtype=getattr(self.xp, np.dtype(dtype).name))

    def room(self, capacity: int) -> Emitters:
        """See `Device`."""
        xp = self.xp
        kinds = (xp.float64, xp.float64, xp.float64, xp.int32, xp.int32, xp.uint8)
        return Emitters(*(xp.empty(capacity, dtype=kind) for kind in kinds))

    # ---------------------------------------------------------------- labels

    def regions(self, index: Any, neighbourhood: int, masks: Sequence[tuple[int, NDArray[np.bool_]]]) -> Any:
        """See `Device`."""
        out = self.xp.empty(index.shape, dtype=self.xp.uint8)
        self.launch("cell_regions", math.prod(index.shape), index, *index.shape, int(neighbourhood == 8), out)
        return planes.add_masks(out, index, [(bit, self.put(mask)) for bit, mask in masks], self.xp)

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
        at = (self.put(z), self.put(y), self.put(x))
        values, bits = (planes.gather(v, *at, self.xp) for v in (cells.index, cells.regions))
        out[...] = self.to_host(planes.keep_where(values, bits, wanted, self.xp))

    # ---------------------------------------------------------------- emitters

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
        """See `Device`."""
        inside = where.inside.intersect(where.specimen).intersect(cells.array).relative_to(cells.array.start)
        per_plane = inside.shape[1] * inside.shape[2] * math.prod(law.subcells)
        if inside.is_empty:
            return
        emission = _emission(cells, where, law, keys, self.to_host(weights))
        step = max(1, COUNTED // per_plane)
        rows = max(1, inside.shape[1] if per_plane <= COUNTED else inside.shape[1] * COUNTED // per_plane)
        for low in range(inside.start[0], inside.stop[0], step):
            high = min(inside.stop[0], low + step)
            for row in range(inside.start[1], inside.stop[1], rows):
                end = min(row + rows, inside.stop[1])
                emission["lo"], emission["hi"] = (low, row, inside.start[2]), (high, end, inside.stop[2])
                subcells = (high - low) * (end - row) * (per_plane // inside.shape[1])
                yield from self._emit(
                    emission, subcells, (cells.index, cells.regions, labelled, weights), room, dyes_of_cell
                )

    def _emit(
        self, emission: NDArray[Any], subcells: int, inputs: tuple[Any, ...], room: Emitters, dyes_of_cell: Any
    ) -> Iterator[Emitters]:
        """Count the emitters of each sub-cell, add the counts up, and write them, as many at a time as there is room for."""
        xp = self.xp
        counts = xp.empty(subcells, dtype=xp.int32)
        self.launch("count_emitters", subcells, emission, *inputs, subcells, counts)
        ends = xp.cumulative_sum(counts, dtype=xp.int64)
        del counts
        total, first, base = int(ends[-1]), 0, 0
        while base < total:
            stop, reached = subcells, total
            if total - base > room.z.shape[0]:
                stop = int(xp.searchsorted(ends, xp.asarray([base + room.z.shape[0]], dtype=xp.int64), side="right")[0])
                reached = int(ends[stop - 1]) if stop > first else base
                if reached == base:
                    refuse_crowded(room.z.shape[0])
            self.launch("write_emitters", stop - first, emission, *inputs, ends, first, stop, base, *room, dyes_of_cell)
            yield room.first(reached - base)
            first, base = stop, reached

    def scatter(self, amplicons: Amplicons, keys: Any, radius_nm: float, room: Emitters) -> Iterator[Emitters]:
        """See `Device`."""
        ends = np.cumsum(amplicons.dyes, dtype=np.int64)
        columns = [self.put(c) for c in (*amplicons, ends)]
        keys = self.put(keys)
        place, voxel, number, cell, dyes, region, own, running = columns
        first, base = 0, 0
        while first < ends.size:
            stop = int(np.searchsorted(ends, base + room.z.shape[0], side="right"))
            self.launch(
                "scatter_dyes", stop - first, place, voxel, number, cell, dyes, region, own, running, keys,
                float(radius_nm), first, stop, *room,
            )  # fmt: skip
            reached = int(ends[stop - 1])
            if reached > base:
                yield room.first(reached - base)
            first, base = stop, reached

    def deposit_counts(self, emitters: Emitters, per_nm: Floats, start: Triple, out: Any) -> None:
        """See `Device`."""
        e, n = emitters, emitters.z.shape[0]
        self.launch("deposit_counts", n, e.z, e.y, e.x, e.weight, n, _reals(per_nm), _wholes(start), *out.shape, out)

    # ---------------------------------------------------------------- light

    def node_planes(self, grid: NodeGrid) -> ArrayNodePlanes:
        """See `Device`."""
        return ArrayNodePlanes(self, grid)

    def response(self, transfer: Transfer) -> planes.Response:
        """See `Device`."""
        return planes.Response(transfer, self.put, self.xp)

    def image(self, spectra: Any, grid: LateralGrid, inner: tuple[slice, slice], out: Any) -> None:
        """See `Device`."""
        step = batch(24 * grid.pixels[0] * grid.pixels[1])
        for k in range(0, spectra.shape[0], step):
            stop = min(k + step, spectra.shape[0])
            some = planes.inverse_planes(spectra[k:stop, :, :], grid, self.xp)
            out[k:stop, :, :] = some[:, inner[0], inner[1]]

    def draw_counts(
        self, expected: Any, start: Triple, detector: Detector, profile: Profile, out: Any
    ) -> tuple[int, NDArray[np.int64]]:
        """See `Device`."""
        d = detector
        values = np.zeros(1, DETECTOR)
        values[0] = (
            d.lit_e, d.dark_e, d.read_noise_e, d.excess_noise - 1, d.gain, d.offset, d.top,
            d.shot, d.read, d.excess, start, expected.shape,
        )  # fmt: skip
        histogram = self.zeros((camera.BINS,), np.int64)
        problems = self.zeros((2,), np.int64)
        self.launch(
            "draw_counts", math.prod(expected.shape), values, expected, self.put(profile.y), self.put(profile.x),
            self._bin_of, out, histogram, problems,
        )  # fmt: skip
        clipped, impossible = (int(n) for n in self.to_host(problems))
        if impossible:
            raise ValueError(f"{impossible} pixels expect more electrons than a count can tell, or no number at all")
        return clipped, self.to_host(histogram)

    def attempt(self, work: Callable[[], T]) -> T:
        """See `Device`: with all free memory given back before the second time.

        Raises
        ------
        DeviceMemoryError
            If the memory was too small even then.
        """
        try:
            return work()
        except self._backend.out_of_memory:
            pass  # first let go of the error, whose traceback holds the arrays
        gc.collect()  # and so do generators that stopped half-way
        self._backend.free()
        try:
            return work()
        except self._backend.out_of_memory as error:
            raise DeviceMemoryError(str(error)) from error


class ArrayNodePlanes:
    """`NodePlanes` on a device, in batches of planes; the spectra held begin with the first node plane that is seen."""

    def __init__(self, device: ArrayDevice, grid: NodeGrid) -> None:
        self._device, self._grid = device, grid
        xp = device.xp
        self._base = grid.node[0]
        """Node planes below are transformed."""
        self._reached = grid.node[0]
        """Node planes from here on hold nothing."""
        self._ring = xp.zeros((grid.depth, *grid.shape[1:]), dtype=xp.int64)
        self._early = xp.zeros(1, dtype=xp.int64)
        self._window = Window(grid, AT_ONCE)
        self._spectra = self._dark(self._window.slots)
        self._lit = False
        """Whether any plane held so far had dyes."""

    def _dark(self, count: int) -> Any:
        band_y, band_x = self._grid.lateral.band
        return self._device.xp.zeros((count, 2 * band_y + 1, band_x + 1), dtype=self._device.xp.complex64)

    def add(self, emitters: Emitters) -> None:
        """See `NodePlanes`."""
        e, g, n = emitters, self._grid, emitters.z.shape[0]
        self._reached = min(g.end, self._base + g.depth)
        self._device.launch(
            "deposit", n, e.z, e.y, e.x, e.weight, n, _reals(g.per_nm), _reals(g.shift), _wholes(g.node),
            self._base, g.end, *self._ring.shape, self._ring, self._early,
        )  # fmt: skip

    def advance(self, plane: int) -> Iterator[range]:
        """See `NodePlanes`.

        Raises
        ------
        ValueError
            If emitters reached beyond the ring, when the last plane is handed over.
        """
        g, window = self._grid, self._window
        plane = min(plane, g.end)
        nodes_y, nodes_x = g.lateral.nodes
        step = batch(12 * g.shape[1] * g.shape[2] + 24 * nodes_y * (nodes_x // 2 + 1))
        while self._base < plane:
            room = window.first + window.slots - self._base
            if room <= 0:
                yield from self._seen()
                continue
            if self._base >= self._reached:  # the spectra held are 0 there
                self._base = min(plane, self._base + room)
                continue
            slot = self._base % g.depth
            count = min(min(plane, self._reached) - self._base, g.depth - slot)
            unseen = window.first - self._base  # between the ranges of two image planes
            count = min(count, unseen) if unseen > 0 else min(count, room, step)
            if unseen <= 0:
                self._transform(slot, count)
            self._ring[slot : slot + count, :, :] = 0
            self._base += count
        if plane == g.end:
            while window.wanted:
                yield from self._seen()
            if early := int(self._early[0]):
                raise ValueError(told_early(early))

    def _transform(self, slot: int, count: int) -> None:
        xp, at = self._device.xp, self._base - self._window.first
        held = self._ring[slot : slot + count, :, :]
        dyes = xp.astype(xp.astype(held, xp.float64) * (1.0 / UNIT), xp.float32)
        self._spectra[at : at + count, :, :] = planes.plane_spectra(dyes, self._grid.lateral, xp)
        self._lit = True

    def _seen(self) -> Iterator[range]:
        yield self._window.wanted
        gone = len(self._window.move())
        slots = self._spectra.shape[0]
        if gone >= slots:
            self._spectra = self._dark(slots)
        elif self._window.wanted:
            self._spectra = self._device.xp.concat([self._spectra[gone:, :, :], self._dark(gone)], axis=0)

    def project(self, response: Any, wanted: range, out: Any) -> None:
        """See `NodePlanes`."""
        if not self._lit:
            return
        xp, g = self._device.xp, self._grid
        fine = self._spectra.shape[1] * self._spectra.shape[2] + g.lateral.nodes[0] * self._spectra.shape[2]
        most = batch(24 * fine)
        for k in range(0, len(wanted), most):
            count = min(most, len(wanted) - k)
            centre = (wanted.start + k) * g.step - self._window.first
            some = planes.project(self._spectra, response, g.step, centre, count, xp)
            out[k : k + count, :, :] += planes.fold(some, g.lateral, xp)


def batch(bytes_each: int) -> int:
    """How many planes go through at a time, when each needs so many bytes in between."""
    return max(1, BATCH_BYTES // bytes_each)


def _emission(cells: Cells, where: Where, law: Law, keys: LayerKeys, weights: NDArray[np.float64]) -> NDArray[Any]:
    """All that a launch is told of a layer, but for `lo` and `hi`; (1,) of `EMISSION`."""
    parts = math.prod(law.subcells)
    own = where.own.relative_to(cells.array.start)
    values = np.zeros(1, EMISSION)
    values["mean"] = law.mean / parts
    values["most"] = law.mean / parts * (float(weights.sum()) if law.by_surface else 1.0)
    values["dyes"], values["kept"], values["sigma"] = law.dyes, law.kept, law.sigma
    values["voxel_nm"] = where.voxel_nm
    values["size"] = [v / n for v, n in zip(where.voxel_nm, law.subcells, strict=True)]
    values["by_surface"], values["region_bits"], values["kind"] = law.by_surface, law.region_bits, law.kind
    values["clumped"], values["subcells"] = law.clumped, law.subcells
    values["number"], values["place"], values["linker"] = keys
    values["origin"], values["specimen"], values["shape"] = cells.array.start, where.specimen.start, cells.array.shape
    values["own_lo"], values["own_hi"] = own.start, own.stop
    return values
