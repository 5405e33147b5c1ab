"""Imaging by the Python array API, for GPUs: what `image` and `gather` compile for the CPU.

`xp` is the namespace, CuPy or any other library that follows the standard; each call processes many planes. Results
agree with the compiled functions to the rounding of float32, because sums run in a different order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.kernels.imaging.image import Blended, LateralGrid, Planar, Transfer


def plane_spectra(dyes: Any, grid: LateralGrid, xp: Any) -> Any:
    """Forward transforms of node planes, limited to the band; see `image.plane_spectrum`.

    `dyes` are per node, float32, (planes, rows, columns), padded with zeros up to `grid.nodes`. Return complex64,
    (planes, 2 * band_y + 1, band_x + 1); rows are the frequencies 0, 1, ..., band_y, -band_y, ..., -1.
    """
    qy, qx = grid.band
    ny, nx = grid.nodes
    rows = xp.fft.rfft(dyes, n=nx, axis=2)[:, :, : qx + 1]
    columns = xp.fft.fft(rows, n=ny, axis=1)
    return xp.concat([columns[:, : qy + 1, :], columns[:, ny - qy :, :]], axis=1)


class Response:
    """A transfer function on a device, interpolated for one offset at a time (four-point Lagrange)."""

    def __init__(
        self, transfer: Transfer, put: Callable[[NDArray[Any]], Any], xp: Any, blended: Blended | None = None
    ) -> None:
        self._xp, self.put, self.blended = xp, put, blended
        self.offsets = transfer.table.shape[1]
        self._table = put(transfer.table.T)
        y, x = put(transfer.frequency_y)[:, None], put(transfer.frequency_x)[None, :]
        t = xp.sqrt(y * y + x * x) * float(transfer.per_cycle)
        below = xp.floor(t)
        u = t - below
        here = xp.astype(below, xp.int64)
        inside = here + 2 < transfer.table.shape[0]
        here = xp.where(inside, here, xp.zeros_like(here))
        factor = put(transfer.factor_y)[:, None] * put(transfer.factor_x)[None, :]
        self._factor = xp.where(inside, factor, xp.zeros_like(factor))
        self._here = xp.reshape(here, (-1,))
        self._before = xp.where(self._here > 0, self._here - 1, xp.ones_like(self._here))
        self._weights = (
            -u * (u - 1) * (u - 2) / 6, (u + 1) * (u - 1) * (u - 2) / 2, -(u + 1) * u * (u - 2) / 2, (u + 1) * u * (u - 1) / 6
        )  # fmt: skip

    def at(self, offset: int) -> Any:
        """Transfer at an |offset| in node planes, float32, (2 * band_y + 1, band_x + 1), rows as in `plane_spectra`."""
        xp, line = self._xp, self._table[offset, :]
        total = None
        for weight, index in zip(
            self._weights, (self._before, self._here, self._here + 1, self._here + 2), strict=True
        ):
            term = weight * xp.reshape(xp.take(line, index), weight.shape)
            total = term if total is None else total + term
        half = xp.astype(total * self._factor, xp.float32)
        return xp.concat([half, xp.flip(half[1:, :], axis=0)], axis=0)


class PlanarResponse:
    """A `Planar` transfer function on a device; a `Response` to `project_blended`."""

    def __init__(self, planar: Planar, put: Callable[[NDArray[Any]], Any]) -> None:
        self.put, self.blended = put, planar
        self.offsets = planar.response.shape[0]
        self._response = put(planar.response)

    def at(self, offset: int) -> Any:
        """Transfer at one offset of one depth, complex64, (2 * band_y + 1, band_x + 1)."""
        return self._response[offset, :, :]


def project(spectra: Any, response: Response, step: int, centre: int, count: int, xp: Any) -> Any:
    """Sum node planes, from `plane_spectra`, into the fine spectra of image planes, (count, 2 * band_y + 1, band_x + 1).

    The first image plane lies at slot `centre` of `spectra`, the others follow every `step` slots; all offsets must be
    held.
    """
    total = None
    last = centre + step * (count - 1) + 1
    for offset in range(response.offsets):
        both = response.at(offset)[None, :, :]
        here = spectra[centre + offset : last + offset : step, :, :]
        if offset:
            here = here + spectra[centre - offset : last - offset : step, :, :]
        total = both * here if total is None else total + both * here
    return total


def project_blended(
    spectra: Any, response: Response | PlanarResponse, step: int, centre: int, first: int, count: int, xp: Any
) -> Any:
    """`project` with a response that varies with depth; the first image plane is plane `first`."""
    blended = response.blended
    assert blended is not None
    offsets, start = blended.low.shape[1], first - blended.origin
    here = blended.first[start : start + count]
    last = centre + step * (count - 1) + 1
    total = None
    for depth in range(int(here[0]), min(int(here[-1]) + 2, response.offsets // offsets)):
        low, high = (
            np.where((here == depth - shift)[:, None], part[start : start + count], np.float32(0))
            for shift, part in enumerate((blended.low, blended.high))
        )
        share = response.put(low + high)
        for o in range(offsets):
            off = o - offsets // 2
            planes = spectra[centre + off : last + off : step, :, :]
            term = xp.reshape(share[:, o], (count, 1, 1)) * response.at(depth * offsets + o)[None, :, :] * planes
            total = term if total is None else total + term
    return total


def fold(fine: Any, grid: LateralGrid, xp: Any) -> Any:
    """Alias half spectra of the band onto the pixels, complex64, (planes, pixels_y, pixels_x // 2 + 1).

    Equivalent to sampling every m-th node.
    """
    planes = fine.shape[0]
    qy, qx = grid.band
    gy, gx = grid.pixels
    ny, nx = grid.nodes

    def zeros(rows: int, columns: int) -> Any:
        return xp.zeros((planes, rows, columns), dtype=fine.dtype)

    def alias(columns: Any) -> Any:
        """Sum columns modulo the pixels' length."""
        times = -(-columns.shape[2] // gx)
        padded = xp.concat([columns, zeros(gy, times * gx - columns.shape[2])], axis=2)
        return xp.sum(xp.reshape(padded, (planes, gy, times, gx)), axis=2)

    rows = xp.concat([fine[:, : qy + 1, :], zeros(ny - 2 * qy - 1, qx + 1), fine[:, qy + 1 :, :]], axis=1)
    rows = xp.sum(xp.reshape(rows, (planes, grid.subdivision, gy, qx + 1)), axis=1)
    # the other half is the mirrored conjugate, except for columns without a partner
    partners = xp.concat([zeros(gy, 1), rows[:, :, 1 : qx if 2 * qx == nx else qx + 1]], axis=2)
    mirrored = xp.roll(xp.flip(alias(partners), axis=(1, 2)), (1, 1), axis=(1, 2))
    return (alias(rows) + xp.conj(mirrored))[:, :, : gx // 2 + 1]


def inverse_planes(spectra: Any, grid: LateralGrid, xp: Any) -> Any:
    """Inverse transforms of image planes, float32, (planes, *grid.pixels), from coarse half spectra."""
    columns = xp.fft.ifft(spectra, axis=1)
    return xp.fft.irfft(columns, n=grid.pixels[1], axis=2) * (1.0 / grid.subdivision**2)


def gather(volume: Any, z: Any, y: Any, x: Any, xp: Any) -> Any:
    """volume[z, y, x] at all combinations of three lists of indices."""
    return xp.take(xp.take(xp.take(volume, z, axis=0), y, axis=1), x, axis=2)


def keep_where(values: Any, bits: Any, wanted: int, xp: Any) -> Any:
    """Values where `bits` has one of the bits `wanted`, else 0."""
    return xp.where((bits & wanted) != 0, values, xp.zeros_like(values))


def add_masks(regions: Any, index: Any, masks: Any, xp: Any) -> Any:
    """Add to region bits those of masks, pairs of bit and bool array, within cells."""
    for bit, mask in masks:
        regions = regions | (xp.astype(mask & (index != 0), regions.dtype) * bit)
    return regions
