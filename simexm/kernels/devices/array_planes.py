"""From dyes to spectra of node planes on a GPU: deposit by a primitive, transforms by the array API; see `array_device`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from simexm.kernels.devices.device import NodeGrid, Window
from simexm.kernels.emission.points import Emitters
from simexm.kernels.imaging import planes
from simexm.kernels.imaging.deposit import refuse_early
from simexm.kernels.imaging.gridding import UNIT, WEIGHTS

AT_ONCE = 64
"""Image planes whose node-plane spectra are held together."""
BATCH_BYTES = 256 << 20
"""Approximate limit of temporary arrays, which sets how many planes are processed together."""


class Backend(Protocol):
    """Source of arrays, and launcher of primitives."""

    xp: Any
    """Namespace of the Python array API."""
    out_of_memory: type[Exception]
    """Exception of a failed allocation."""

    def launch(self, name: str, count: int, *arguments: Any) -> None:
        """Run a primitive over `count` elements.

        Arrays of `xp` are passed by address, integers as 64 bits, floats as doubles, NumPy arrays by value as
        structures.
        """

    def to_host(self, array: Any) -> NDArray[Any]:
        """Copy an array of `xp` to NumPy."""

    def free(self) -> None:
        """Release pooled memory and FFT plans."""


def reals(values: Sequence[float]) -> NDArray[np.float64]:
    """Pack doubles that a primitive takes by value."""
    return np.array(values, np.float64)


def wholes(values: Sequence[int]) -> NDArray[np.int64]:
    """Pack 64-bit integers that a primitive takes by value."""
    return np.array(values, np.int64)


class ArrayNodePlanes:
    """`NodePlanes` on a device, in batches of planes; held spectra start at the first node plane of the window."""

    def __init__(self, backend: Backend, grid: NodeGrid) -> None:
        self._backend, self._grid = backend, grid
        xp = backend.xp
        self._base = grid.node[0]
        """Node planes below it are transformed."""
        self._reached = grid.node[0]
        """Node planes from it on are empty."""
        self._ring = xp.zeros((grid.depth, *grid.shape[1:]), dtype=xp.int64)
        self._early = xp.zeros(1, dtype=xp.int64)
        self._weights = xp.asarray(WEIGHTS)
        self._window = Window(grid, AT_ONCE)
        self._spectra = [self._dark(self._window.slots) for _ in range(grid.terms)]
        self._factors = None if grid.factors is None else xp.asarray(grid.factors)
        self._lit = False
        """Whether any plane so far had dyes."""

    def _dark(self, count: int) -> Any:
        band_y, band_x = self._grid.lateral.band
        return self._backend.xp.zeros((count, 2 * band_y + 1, band_x + 1), dtype=self._backend.xp.complex64)

    def add(self, emitters: Emitters) -> None:
        """See `NodePlanes`."""
        e, g, n = emitters, self._grid, emitters.z.shape[0]
        self._reached = min(g.end, self._base + g.depth)
        self._backend.launch(
            "deposit", n, e.z, e.y, e.x, e.weight, n, reals(g.per_nm), reals(g.shift), wholes(g.node),
            self._base, g.end, *self._ring.shape, self._weights, self._ring, self._early,
        )  # fmt: skip

    def advance(self, plane: int) -> Iterator[range]:
        """See `NodePlanes`; ValueError at the last plane if emitters lay beyond the ring."""
        g, window = self._grid, self._window
        plane = min(plane, g.end)
        nodes_y, nodes_x = g.lateral.nodes
        step = batch(12 * g.shape[1] * g.shape[2] + 24 * nodes_y * (nodes_x // 2 + 1))
        while self._base < plane:
            room = window.first + window.slots - self._base
            if room <= 0:
                yield from self._seen()
                continue
            if self._base >= self._reached:  # empty planes: their spectra are 0
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
            refuse_early(int(self._early[0]))

    def _transform(self, slot: int, count: int) -> None:
        xp, at = self._backend.xp, self._base - self._window.first
        held = self._ring[slot : slot + count, :, :]
        dyes = xp.astype(xp.astype(held, xp.float64) * (1.0 / UNIT), xp.float32)
        for term, spectra in enumerate(self._spectra):
            own = dyes if self._factors is None else dyes * self._factors[term, :, :][None, :, :]
            spectra[at : at + count, :, :] = planes.plane_spectra(own, self._grid.lateral, xp)
        self._lit = True

    def _seen(self) -> Iterator[range]:
        yield self._window.wanted
        gone = len(self._window.move())
        slots = self._window.slots
        for term, spectra in enumerate(self._spectra):
            if gone >= slots:
                self._spectra[term] = self._dark(slots)
            elif self._window.wanted:
                self._spectra[term] = self._backend.xp.concat([spectra[gone:, :, :], self._dark(gone)], axis=0)

    def project(self, response: Any, wanted: range, out: Any, term: int = 0) -> None:
        """See `NodePlanes`."""
        if not self._lit:
            return
        xp, g, spectra = self._backend.xp, self._grid, self._spectra[term]
        fine = spectra.shape[1] * spectra.shape[2] + g.lateral.nodes[0] * spectra.shape[2]
        most = batch(24 * fine)
        for k in range(0, len(wanted), most):
            count = min(most, len(wanted) - k)
            centre = (wanted.start + k) * g.step - self._window.first
            if response.blended is None:
                some = planes.project(spectra, response, g.step, centre, count, xp)
            else:
                some = planes.project_blended(spectra, response, g.step, centre, wanted.start + k, count, xp)
            out[k : k + count, :, :] += planes.fold(some, g.lateral, xp)


def batch(bytes_each: int) -> int:
    """Number of planes to process together if each needs `bytes_each` of temporary memory."""
    return max(1, BATCH_BYTES // bytes_each)
