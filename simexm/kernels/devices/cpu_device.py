"""The CPU as a `Device`: NumPy arrays and compiled kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from simexm.geometry.grid import Triple
from simexm.kernels.detector import camera
from simexm.kernels.detector.camera import DetectorLaw, PixelMaps, Profile
from simexm.kernels.devices.device import Cells, Floats, Indices, NodeGrid, Where, Window
from simexm.kernels.emission import emit
from simexm.kernels.emission.amplicons import Amplicons, scatter_dyes
from simexm.kernels.emission.points import EmissionLaw, Emitters, Factors, LayerKeys
from simexm.kernels.imaging import image as imaging
from simexm.kernels.imaging.deposit import Ring, deposit_counts
from simexm.kernels.imaging.far import add_planes
from simexm.kernels.imaging.image import Blended, LateralGrid, Planar, Transfer
from simexm.kernels.imaging.nodes import deposit_nodes
from simexm.kernels.labels.regions import add_mask, bits_type_of, regions_of
from simexm.kernels.numbers import gather

T = TypeVar("T")


class _NodePlanes:
    """`NodePlanes` on the CPU; node plane n is held in slot n % slots."""

    def __init__(self, grid: NodeGrid) -> None:
        band_y, band_x = grid.lateral.band
        self._grid = grid
        self._ring = Ring(grid.node, grid.shape, grid.depth, grid.lateral.nodes[1])
        self._window = Window(grid, imaging.AT_ONCE)
        slots = self._window.slots
        self._planes = np.zeros((grid.terms, slots, 2 * band_y + 1, band_x + 1), np.complex64)
        self._used = np.zeros(slots, np.bool_)

    def add(self, emitters: Emitters) -> None:
        e, g = emitters, self._grid
        self._ring.add(e.z, e.y, e.x, e.weight, g.per_nm, g.shift)

    def advance(self, plane: int) -> Iterator[range]:
        window, slots = self._window, self._window.slots
        for node, held, take in self._ring.advance(plane):
            while node >= window.first + slots:
                yield from self._seen()
            if node < window.first:  # between the ranges of two image planes
                continue
            if self._grid.factors is None:
                imaging.plane_spectrum(take, held, self._grid.lateral, self._planes[0, node % slots])
            else:
                self._weighted(take(held.start, held.stop), held, node % slots, self._grid.factors)
            self._used[node % slots] = True
        while plane >= self._grid.end and window.wanted:
            yield from self._seen()

    def _weighted(self, dyes: NDArray[np.float32], held: range, slot: int, factors: NDArray[np.float32]) -> None:
        """Transform a plane once for each term."""
        count = self._grid.shape[2]
        for planes, factor in zip(self._planes, factors, strict=True):
            own = factor if len(factor) == 1 else factor[held.start : held.stop]
            weighted = np.zeros_like(dyes)
            weighted[:, :count] = dyes[:, :count] * own
            imaging.plane_spectrum(partial(_rows, weighted, held.start), held, self._grid.lateral, planes[slot])

    def _seen(self) -> Iterator[range]:
        yield self._window.wanted
        for slot in {node % self._window.slots for node in self._window.move()}:
            if self._used[slot]:
                self._planes[:, slot] = 0
                self._used[slot] = False

    def project(
        self, response: Transfer | Blended | Planar, wanted: range, out: NDArray[np.complex64], term: int = 0
    ) -> None:
        if self._used.any():
            g, grid = self._grid, self._grid.lateral
            planes, sizes = self._planes[term].view(np.float32), (*grid.pixels, grid.nodes[1])
            if isinstance(response, Planar):
                parts = response.response.view(np.float32)
                imaging.project_planar(planes, self._used, parts, response, g.step, wanted.start, *sizes, out)
                return
            project = imaging.project_blended if isinstance(response, Blended) else imaging.project
            project(planes, self._used, response, g.step, wanted.start, *sizes, out)


def _rows(plane: NDArray[np.float32], start: int, first: int, stop: int) -> NDArray[np.float32]:
    """Rows from `first` of a plane that begins with row `start`."""
    return plane[first - start : stop - start]


class _CpuDevice:
    """See `Device`."""

    name = "cpu"
    capacity = emit.CAPACITY
    slab = 2
    xp: Any = np

    def put(self, array: NDArray[Any]) -> NDArray[Any]:
        return array

    def to_host(self, array: NDArray[Any]) -> NDArray[Any]:
        return array

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        return np.zeros(shape, dtype)

    def room(self, capacity: int, identified: bool = False) -> Emitters:
        return Emitters.empty(capacity, identified)

    def regions(
        self, index: NDArray[np.int32], neighbourhood: int, masks: Sequence[tuple[int, NDArray[np.bool_]]]
    ) -> NDArray[np.integer[Any]]:
        bits = regions_of(index, neighbourhood).astype(bits_type_of(masks), copy=False)
        for bit, mask in masks:
            add_mask(index, mask, bits.dtype.type(bit), bits)
        return bits

    def emit(
        self,
        cells: Cells,
        where: Where,
        factors: Factors,
        weights: NDArray[np.float64],
        law: EmissionLaw,
        keys: LayerKeys,
        room: Emitters,
        dyes_of_cell: NDArray[np.int64],
    ) -> Iterator[Emitters]:
        yield from emit.emit_layer(
            cells.index, cells.regions, factors, weights, law, keys,
            array=cells.array, specimen=where.specimen, inside=where.inside, own=where.own,
            voxel_nm=where.voxel_nm, room=room, dyes_of_cell=dyes_of_cell,
        )  # fmt: skip

    def scatter(
        self, amplicons: Amplicons, keys: NDArray[np.int64], radius_nm: float, room: Emitters
    ) -> Iterator[Emitters]:
        yield from scatter_dyes(amplicons, keys, radius_nm, room)

    def deposit_counts(self, emitters: Emitters, per_nm: Floats, start: Triple, out: NDArray[np.int64]) -> None:
        e = emitters
        deposit_counts(e.z, e.y, e.x, e.weight, per_nm, start, out)

    def deposit_nodes(self, emitters: Emitters, per_nm: Floats, start: Triple, out: NDArray[np.int64]) -> None:
        e = emitters
        deposit_nodes(e.z, e.y, e.x, e.weight, per_nm, start, out)

    def add_far(
        self,
        total: NDArray[np.complex64],
        spectra: NDArray[np.complex64],
        tables: NDArray[np.float32],
        shares: NDArray[np.float32],
        first: int,
        distance: NDArray[np.int64],
    ) -> None:
        parts = (a.view(np.float32).reshape(len(a), -1) for a in (total, spectra))
        add_planes(*parts, tables.reshape(*tables.shape[:2], -1), shares, first, distance)

    def node_planes(self, grid: NodeGrid) -> _NodePlanes:
        return _NodePlanes(grid)

    def response(self, transfer: Transfer | Blended | Planar) -> Transfer | Blended | Planar:
        return transfer

    def image(
        self, spectra: NDArray[np.complex64], grid: LateralGrid, inner: tuple[slice, slice], out: NDArray[np.float32]
    ) -> None:
        for k, spectrum in enumerate(spectra):
            out[k] = imaging.inverse_plane(spectrum, grid)[inner]

    def draw_counts(
        self,
        expected: NDArray[np.float32],
        start: Triple,
        law: DetectorLaw,
        profile: Profile,
        maps: PixelMaps | None,
        out: NDArray[np.uint16],
    ) -> tuple[int, NDArray[np.int64]]:
        saturated = camera.draw_counts(expected, start, law, profile, maps, out)
        return saturated, camera.quarter_octaves(out)

    def gather_where(
        self, cells: Cells, wanted: int, z: Indices, y: Indices, x: Indices, out: NDArray[np.int32]
    ) -> None:
        gather.gather_where(cells.index, cells.regions, cells.regions.dtype.type(wanted), z, y, x, out)

    def attempt(self, work: Callable[[], T]) -> T:
        return work()


CPU = _CpuDevice()
