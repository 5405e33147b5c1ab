"""The blur of SimExm (2017): convolve a volume of photons, padded by reflection, with a kernel of 31^3 samples, and round.

Photons and kernel are whole numbers, and so are their sums of products, which are computed by FFTs in double precision
and rounded to whole numbers. So the result is the same in any tile. The error before rounding is at most about 2e-3,
and an error above 1/8 raises.

Only the wanted planes are computed. Each plane of photons has a 2-D FFT; a wanted plane is the sum of 31 spectra times
those of the kernel's planes, and one inverse FFT.

If photons are so many that the error might grow, a plane is split into digits to the base 2^b, the lowest from -2^(b-1) to
2^(b-1), which are transformed separately and added as whole numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from simexm.compiled import njit
from simexm.legacy2017.kernels.psf import REACH, Kernel

Photons = Callable[[int], NDArray[np.int64]]
"""Returns a source plane: the photons of the voxels `Blur.source`."""

RING = 40
"""Spectra of source planes in memory, at least the 31 of one plane."""
_LARGEST = 2**62
_BOUND = 4.0
"""Limit of `error_factor` times the norms: actual errors are about 1e-4 of that bound, and `_WORST` is checked."""
_WORST = 0.125


def reflected(start: int, stop: int, size: int) -> NDArray[np.int64]:
    """Voxel of 0..size - 1 at each place in start..stop, reflected as by `numpy.pad` with mode `reflect`, at any distance."""
    if size == 1:
        return np.zeros(stop - start, np.int64)
    period = 2 * (size - 1)
    place = np.arange(start, stop, dtype=np.int64) % period
    return np.minimum(place, period - place)


def source_range(start: int, stop: int, size: int) -> tuple[int, int]:
    """Start and stop of the voxels that the blurred voxels start..stop of an axis of `size` depend on."""
    places = reflected(start - REACH, stop + REACH, size)
    return int(places.min()), int(places.max()) + 1


def error_factor(samples: int) -> float:
    """Bound on the largest error of a convolution by FFTs over `samples` points, per product of the operands' norms.

    Percival, "Rapid multiplication modulo the sum and difference of highly composite numbers", Math. Comp. 72 (2003),
    theorem 5.1 (with Brent, Percival & Zimmermann, Math. Comp. 76, 2007): ((1 + e)^3n (1 + e sqrt 5)^(3n+1) (1 + m)^3n - 1)
    for 2^n points, rounding error e and error m of the roots of unity, here 2 e. The sum over 31 planes adds at most 32 e.
    The theorem is for radix 2 and the worst case; measured errors are about 1e-4 of it.
    """
    n = math.log2(samples) + 1.0
    return 2.0**-53 * (3 * n + math.sqrt(5.0) * (3 * n + 1) + 6 * n + 32)


@njit(cache=True, nogil=True)
def _gather(plane, rows, columns, out):  # type: ignore[no-untyped-def]
    """Copy the plane, padded by reflection, to `out` as floats; return the sum of squares."""
    total = 0.0
    for r in range(rows.size):
        line = plane[rows[r]]
        for c in range(columns.size):
            value = np.float64(line[columns[c]])
            out[r, c] = value
            total += value * value
    return total


@njit(cache=True, nogil=True)
def _take_digit(values, bits, digit):  # type: ignore[no-untyped-def]
    """Split each whole number into its lowest digit, from -2^(bits - 1) up, and the rest / 2^bits; return the rest's norm^2."""
    base = 2.0**bits
    total = 0.0
    for r in range(values.shape[0]):
        for c in range(values.shape[1]):
            rest = np.floor(values[r, c] / base + 0.5)
            digit[r, c] = values[r, c] - rest * base
            values[r, c] = rest
            total += rest * rest
    return total


@njit(cache=True, nogil=True)
def _store(spectrum, slot, ring):  # type: ignore[no-untyped-def]
    for r in range(spectrum.shape[0]):
        for c in range(spectrum.shape[1]):
            ring[r, slot, 0, c] = spectrum[r, c].real
            ring[r, slot, 1, c] = spectrum[r, c].imag


@njit(cache=True, nogil=True)
def _sum_planes(ring, slots, used, transfer, out):  # type: ignore[no-untyped-def]
    """out[k] = sum over offsets of ring[slots[k, offset]] times the kernel's spectrum at |offset|; unused slots hold zeros."""
    rows, _, _, columns = ring.shape
    re = np.empty(columns)
    im = np.empty(columns)
    for r in range(rows):
        for k in range(slots.shape[0]):
            here = slots[k, REACH]
            weight = transfer[r, 0]
            for c in range(columns):
                re[c] = weight[c] * ring[r, here, 0, c]
                im[c] = weight[c] * ring[r, here, 1, c]
            for offset in range(1, REACH + 1):
                below, above = slots[k, REACH - offset], slots[k, REACH + offset]
                if used[below] or used[above]:
                    weight = transfer[r, offset]
                    a, b = ring[r, below], ring[r, above]
                    for c in range(columns):
                        re[c] += weight[c] * (a[0, c] + b[0, c])
                        im[c] += weight[c] * (a[1, c] + b[1, c])
            for c in range(columns):
                out[k, r, c] = complex(re[c], im[c])


@njit(cache=True, nogil=True)
def _add_digit(values, weight, out):  # type: ignore[no-untyped-def]
    """Add weight * rounded values to `out`; return the largest rounding error."""
    worst = 0.0
    for r in range(out.shape[0]):
        for c in range(out.shape[1]):
            whole = np.rint(values[r, c])
            worst = max(worst, abs(values[r, c] - whole))
            out[r, c] += weight * np.int64(whole)
    return worst


@njit(cache=True, nogil=True)
def _shift_down(bits, out):  # type: ignore[no-untyped-def]
    """Divide `out` by 2^bits, rounded half to even."""
    half = np.int64(1) << (bits - 1)
    for r in range(out.shape[0]):
        for c in range(out.shape[1]):
            whole = out[r, c] >> bits
            rest = out[r, c] - (whole << bits)
            if rest > half or (rest == half and whole & 1):
                whole += 1
            out[r, c] = whole


def _fast_length(n: int) -> int:
    """Smallest length >= n without a prime factor above 7."""
    while True:
        rest = n
        for prime in (2, 3, 5, 7):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return n
        n += 1


class Blur:
    """The blur of one tile by one kernel.

    `rows` and `columns` are (start, stop, size): the tile's range, and the size of the crop. `source` holds (start, stop) of the
    rows and columns of photons that the tile needs.
    """

    def __init__(self, kernel: Kernel, rows: tuple[int, int, int], columns: tuple[int, int, int]) -> None:
        self._kernel = kernel
        self.source = source_range(*rows), source_range(*columns)
        axes = zip((rows, columns), self.source, strict=True)
        self._places = [reflected(a - REACH, b + REACH, n) - first for (a, b, n), (first, _) in axes]
        self._inner = rows[1] - rows[0], columns[1] - columns[0]
        self._shape = tuple(_fast_length(p.size) for p in self._places)
        samples = math.prod(self._shape)
        norms = kernel.norms
        self._largest_norm = _BOUND / (error_factor(samples) * float(norms[0] + 2 * norms[1:].sum()))
        self._bits = math.floor(math.log2(self._largest_norm / math.sqrt(samples))) + 1
        if self._bits < 1:
            raise ValueError(f"a tile of {self._inner} voxels is too large for an exact blur; choose a smaller --tile")
        self._rings: list[NDArray[np.float64]] = []
        self._used = np.zeros((0, RING), np.bool_)
        self._transfer = self._spectra()

    def _spectra(self) -> NDArray[np.float64]:
        """The kernel's spectrum, real since the kernel is even, (rows, REACH + 1, columns // 2 + 1)."""
        out = np.empty((self._shape[0], REACH + 1, self._shape[1] // 2 + 1))
        plane = np.zeros(self._shape)
        at = [np.arange(-REACH, REACH + 1) % n for n in self._shape]
        for offset, taps in enumerate(self._kernel.taps):
            plane[np.ix_(*at)] = taps
            out[:, offset] = np.fft.rfft2(plane).real
        return out

    def _load(self, plane: NDArray[np.int64], slot: int) -> None:
        """Store the spectrum of one source plane in a slot of the rings, digit by digit."""
        for ring, used in zip(self._rings, self._used, strict=True):
            if used[slot]:
                ring[:, slot] = 0
        self._used[:, slot] = False
        values = np.zeros(self._shape)
        norm = math.sqrt(_gather(plane, *self._places, values))
        digit = 0
        while norm > 0:
            if digit == len(self._rings):
                self._rings.append(np.zeros((self._shape[0], RING, 2, self._shape[1] // 2 + 1)))
                self._used = np.concatenate([self._used, np.zeros((1, RING), np.bool_)])
            if norm <= self._largest_norm:
                part, norm = values, 0.0
            else:
                part = np.empty(self._shape)
                norm = math.sqrt(_take_digit(values, self._bits, part))
            _store(np.fft.rfft2(part), slot, self._rings[digit])
            self._used[digit, slot] = True
            digit += 1

    def planes(self, photons: Photons, depth: int, wanted: range) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Yield number and blurred voxels, int64, rounded half to even, of each wanted plane of a crop of `depth` planes.

        `photons` is called once for each source plane, in ascending order. Raises ValueError if photons are too many for 64 bits.
        """
        done = 0
        group = (RING - 2 * REACH - 1) // wanted.step + 1
        for first in range(0, len(wanted), group):
            some = wanted[first : first + group]
            slots = np.stack([reflected(z - REACH, z + REACH + 1, depth) for z in some])
            for z in range(max(done, int(slots.min())), int(slots.max()) + 1):
                plane = photons(z)
                if int(plane.max()) * self._kernel.total >= _LARGEST:
                    raise ValueError(f"{plane.max()} photons in one voxel are too many for the image to be counted")
                self._load(plane, z % RING)
                done = z + 1
            slots %= RING
            images = np.zeros((len(some), *self._inner), np.int64)
            spectra = np.empty((len(some), self._shape[0], self._shape[1] // 2 + 1), np.complex128)
            for digit, ring in enumerate(self._rings):
                if not self._used[digit][slots].any():
                    continue
                _sum_planes(ring, slots, self._used[digit], self._transfer, spectra)
                for image, spectrum in zip(images, spectra, strict=True):
                    blurred = np.fft.irfft2(spectrum, s=self._shape)
                    ny, nx = self._inner
                    inner = blurred[REACH : REACH + ny, REACH : REACH + nx]
                    worst = _add_digit(inner, np.int64(1) << (digit * self._bits), image)
                    if worst > _WORST:
                        raise ArithmeticError(f"a transform was off by {worst:.2g} of a unit: its sums are not exact")
            for z, image in zip(some, images, strict=True):
                _shift_down(self._kernel.bits, image)
                yield z, image
