"""A GPU as a `Device`: primitives of `cuda/` through a launcher, everything else by the Python array API.

This module does not depend on CuPy: `cupy_device` provides the namespace and launcher of a real GPU. Tests provide a
strict array-API namespace and primitives compiled for the host, so that this code runs without a GPU, too.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from simexm.geometry.grid import Triple
from simexm.kernels.detector import camera
from simexm.kernels.detector.camera import DetectorLaw, PixelMaps, Profile
from simexm.kernels.devices.array_planes import ArrayNodePlanes, Backend, batch, reals, wholes
from simexm.kernels.devices.device import Cells, Floats, Indices, NodeGrid, Where
from simexm.kernels.emission.amplicons import Amplicons
from simexm.kernels.emission.emit import refuse_crowded
from simexm.kernels.emission.points import IDENTITY, EmissionLaw, Emitters, Factors, LayerKeys
from simexm.kernels.imaging import planes
from simexm.kernels.imaging.far import add_planes_elementwise
from simexm.kernels.imaging.image import Blended, LateralGrid, Planar, Transfer
from simexm.kernels.labels.regions import bits_type_of
from simexm.kernels.numbers.gamma import pulse_table

T = TypeVar("T")

CAPACITY = 1 << 22
"""Emitters in one chunk."""
COUNTED = 1 << 24
"""Most sub-cells per launch of the count, unless a single row has more."""
SLAB = 8
"""Planes of voxels that emit together, for fewer, larger launches."""

_REAL, _WHOLE = "<f8", "<i8"
EMISSION = np.dtype(
    [
        ("mean", _REAL), ("dyes", _REAL), ("kept", _REAL), ("most", _REAL),
        ("sigma", _REAL, 3), ("voxel_nm", _REAL, 3), ("size", _REAL, 3),
        ("by_surface", _WHOLE), ("region_bits", _WHOLE), ("bits_bytes", _WHOLE), ("kind", _WHOLE), ("clumped", _WHOLE),
        ("marked", _WHOLE), ("identified", _WHOLE), ("by_depth", _WHOLE), ("by_grey", _WHOLE), ("grey", _REAL, 3),
        ("subcells", _WHOLE, 3), ("number", _WHOLE, 2), ("place", _WHOLE, 2), ("linker", _WHOLE, 2),
        ("origin", _WHOLE, 3), ("specimen", _WHOLE, 3), ("shape", _WHOLE, 3),
        ("lo", _WHOLE, 3), ("hi", _WHOLE, 3), ("own_lo", _WHOLE, 3), ("own_hi", _WHOLE, 3),
    ]
)  # fmt: skip
"""The struct `Emission` of `cuda/emit.cuh`."""
DETECTOR = np.dtype(
    [
        ("lit", _REAL), ("dark", _REAL), ("full_well", _REAL), ("dead_share", _REAL),
        ("variance", _REAL), ("multiplication", _REAL), ("register_e", _REAL),
        ("read_noise", _REAL), ("gain", _REAL), ("offset", _REAL), ("top", _REAL),
        ("shot", _WHOLE, 2), ("multiply", _WHOLE, 2), ("read", _WHOLE, 2), ("start", _WHOLE, 3), ("shape", _WHOLE, 3),
        ("tabled", _WHOLE), ("mapped", _WHOLE),
    ]
)  # fmt: skip
"""The struct `Detector` of `cuda/camera.cuh`."""


class DeviceMemoryError(MemoryError):
    """A tile does not fit into GPU memory."""


class ArrayDevice:
    """See the module."""

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

    def room(self, capacity: int, identified: bool = False) -> Emitters:
        """See `Device`."""
        xp = self.xp
        kinds = (xp.float64, xp.float64, xp.float64, xp.int32, xp.int32, xp.uint8)
        identity = xp.empty((capacity * identified, len(IDENTITY)), dtype=xp.int32)
        return Emitters(*(xp.empty(capacity, dtype=kind) for kind in kinds))._replace(identity=identity)

    # ---------------------------------------------------------------- labels

    def regions(self, index: Any, neighbourhood: int, masks: Sequence[tuple[int, NDArray[np.bool_]]]) -> Any:
        """See `Device`."""
        out = self.xp.empty(index.shape, dtype=self.xp.uint8)
        self.launch("cell_regions", math.prod(index.shape), index, *index.shape, int(neighbourhood == 8), out)
        out = self.xp.astype(out, getattr(self.xp, bits_type_of(masks).name), copy=False)
        return planes.add_masks(out, index, [(bit, self.put(mask)) for bit, mask in masks], self.xp)

    def gather_where(
        self, cells: Cells, wanted: int, z: Indices, y: Indices, x: Indices, out: NDArray[np.int32]
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
        factors: Factors,
        weights: Any,
        law: EmissionLaw,
        keys: LayerKeys,
        room: Emitters,
        dyes_of_cell: Any,
    ) -> Iterator[Emitters]:
        """See `Device`."""
        inside = where.inside.intersect(where.specimen).intersect(cells.array).relative_to(cells.array.start)
        per_plane = inside.shape[1] * inside.shape[2] * math.prod(law.subcells)
        if inside.is_empty:
            return
        bits_bytes = self.xp.iinfo(cells.regions.dtype).bits // 8
        emission = _emission(cells, where, law, keys, self.to_host(weights), bits_bytes)
        emission["identified"] = room.identity.shape[0] > 0
        emission["by_depth"], emission["by_grey"] = factors.depth.shape[0] > 0, factors.grey.shape[0] > 0
        if law.region_bits != 0:
            emission["most"] *= float(self.xp.max(factors.cell))
        inputs = (cells.index, cells.regions, *factors, weights)
        step = max(1, COUNTED // per_plane)
        rows = max(1, inside.shape[1] if per_plane <= COUNTED else inside.shape[1] * COUNTED // per_plane)
        for low in range(inside.start[0], inside.stop[0], step):
            high = min(inside.stop[0], low + step)
            for row in range(inside.start[1], inside.stop[1], rows):
                end = min(row + rows, inside.stop[1])
                emission["lo"], emission["hi"] = (low, row, inside.start[2]), (high, end, inside.stop[2])
                subcells = (high - low) * (end - row) * (per_plane // inside.shape[1])
                yield from self._emit(emission, subcells, inputs, room, dyes_of_cell)

    def _emit(
        self, emission: NDArray[Any], subcells: int, inputs: tuple[Any, ...], room: Emitters, dyes_of_cell: Any
    ) -> Iterator[Emitters]:
        """Count the emitters of each sub-cell, sum the counts, and write emitters in chunks that fit into `room`."""
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
                float(radius_nm), first, stop, *room, int(room.identity.shape[0] > 0),
            )  # fmt: skip
            reached = int(ends[stop - 1])
            if reached > base:
                yield room.first(reached - base)
            first, base = stop, reached

    def deposit_counts(self, emitters: Emitters, per_nm: Floats, start: Triple, out: Any) -> None:
        """See `Device`."""
        e, n = emitters, emitters.z.shape[0]
        self.launch("deposit_counts", n, e.z, e.y, e.x, e.weight, n, reals(per_nm), wholes(start), *out.shape, out)

    def deposit_nodes(self, emitters: Emitters, per_nm: Floats, start: Triple, out: Any) -> None:
        """See `Device`."""
        e, n = emitters, emitters.z.shape[0]
        self.launch("deposit_nodes", n, e.z, e.y, e.x, e.weight, n, reals(per_nm), wholes(start), *out.shape, out)

    # ---------------------------------------------------------------- light

    def add_far(
        self, total: Any, spectra: Any, tables: Any, shares: Any, first: int, distance: NDArray[np.int64]
    ) -> None:
        """See `Device`."""
        add_planes_elementwise(total, spectra, tables, shares, first, distance, self.put)

    def node_planes(self, grid: NodeGrid) -> ArrayNodePlanes:
        """See `Device`."""
        return ArrayNodePlanes(self._backend, grid)

    def response(self, transfer: Transfer | Blended | Planar) -> planes.Response | planes.PlanarResponse:
        """See `Device`."""
        if isinstance(transfer, Planar):
            return planes.PlanarResponse(transfer, self.put)
        if isinstance(transfer, Blended):
            return planes.Response(transfer.transfer, self.put, self.xp, transfer)
        return planes.Response(transfer, self.put, self.xp)

    def image(self, spectra: Any, grid: LateralGrid, inner: tuple[slice, slice], out: Any) -> None:
        """See `Device`."""
        step = batch(24 * grid.pixels[0] * grid.pixels[1])
        for k in range(0, spectra.shape[0], step):
            stop = min(k + step, spectra.shape[0])
            some = planes.inverse_planes(spectra[k:stop, :, :], grid, self.xp)
            out[k:stop, :, :] = some[:, inner[0], inner[1]]

    def draw_counts(
        self, expected: Any, start: Triple, law: DetectorLaw, profile: Profile, maps: PixelMaps | None, out: Any
    ) -> tuple[int, NDArray[np.int64]]:
        """See `Device`."""
        table = pulse_table(law.pulse_variance) if law.pulse_variance > 0 else np.zeros((0, 0))
        values = np.zeros(1, DETECTOR)
        values[0] = (*law, start, expected.shape, table.shape[0], maps is not None)
        each = maps if maps is not None else (np.zeros((1, 1), np.float32),) * 4
        histogram = self.zeros((camera.BINS,), np.int64)
        problems = self.zeros((2,), np.int64)
        self.launch(
            "draw_counts", math.prod(expected.shape), values, expected, self.put(profile.y), self.put(profile.x),
            self.put(table if table.size else np.zeros((1, 1))), *map(self.put, each), self._bin_of, out, histogram,
            problems,
        )  # fmt: skip
        saturated, impossible = (int(n) for n in self.to_host(problems))
        if impossible:
            raise ValueError(f"{impossible} pixels expect more electrons than can be drawn, or NaN")
        return saturated, self.to_host(histogram)

    def attempt(self, work: Callable[[], T]) -> T:
        """See `Device`; releases all free memory before the second call, and raises DeviceMemoryError if that fails, too."""
        try:
            return work()
        except self._backend.out_of_memory:
            pass  # leave the block: the traceback of the error refers to arrays
        gc.collect()  # as do suspended generators
        self._backend.free()
        try:
            return work()
        except self._backend.out_of_memory as error:
            raise DeviceMemoryError(str(error)) from error


def _emission(
    cells: Cells, where: Where, law: EmissionLaw, keys: LayerKeys, weights: NDArray[np.float64], bits_bytes: int
) -> NDArray[Any]:
    """Parameters of a layer for a launch, without `lo`, `hi` and `identified`; (1,) of `EMISSION`."""
    parts = math.prod(law.subcells)
    own = where.own.relative_to(cells.array.start)
    values = np.zeros(1, EMISSION)
    values["mean"] = law.mean / parts
    values["most"] = law.mean / parts * (float(weights.sum()) if law.by_surface else 1.0)
    values["marked"], values["grey"] = law.marked, law.grey
    values["dyes"], values["kept"], values["sigma"] = law.dyes, law.kept, law.sigma
    values["voxel_nm"] = where.voxel_nm
    values["size"] = [v / n for v, n in zip(where.voxel_nm, law.subcells, strict=True)]
    values["by_surface"], values["region_bits"], values["kind"] = law.by_surface, law.region_bits, law.kind
    values["bits_bytes"] = bits_bytes
    values["clumped"], values["subcells"] = law.clumped, law.subcells
    values["number"], values["place"], values["linker"] = keys
    values["origin"], values["specimen"], values["shape"] = cells.array.start, where.specimen.start, cells.array.shape
    values["own_lo"], values["own_hi"] = own.start, own.stop
    return values
