"""Focused beams and images of dyes on square grids, for pupils without symmetry about the axis.

The fields are those of `tables`, before the integral over the direction phi of a ray: with e the polarisation behind the
objective of a beam that is polarised along x or y,

    E(r) = int P sqrt(c1) e exp(i k0 path) exp(i k0 p (x cos(phi) + y sin(phi))) dc1 dphi / (2 pi),

    e(x) = (tp c2 cos^2 + ts sin^2, (tp c2 - ts) sin cos, -tp s2 cos),

and |E|^2 is averaged over both polarisations, or taken of one. Emission is the average, as reciprocity says. Rays lie on
Gauss-Legendre nodes over c1 and evenly over phi, which converges exponentially; their sum is a Fourier transform of
scattered frequencies, gridded by the kernels of `plane_spectrum`.

`r` is the place of the dye relative to the axis, so an image of a dye at the axis is mirrored.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simexm.compiled import njit
from simexm.kernels.diffraction import tables
from simexm.kernels.diffraction.objective import Objective, zernike
from simexm.kernels.diffraction.plane_spectrum import WIDTH, kernel, kernel_transform
from simexm.kernels.diffraction.response import pinhole_table
from simexm.kernels.diffraction.special import Array, bessel_01_array, gauss_legendre, sin_cos_array
from simexm.kernels.diffraction.tables import SURFACE, Focus
from simexm.kernels.imaging.image import fast_pixels

_EDGE = 10  # places by which the weights of `reassigned` reach beyond the disc
_COMPONENTS = (
    5  # of the field: x, y, z of a beam polarised along x, then y and z of one along y; x of it is y of the first
)


class Square(NamedTuple):
    """Places (size, size) about the middle one, rows along y and columns along x; `size` is odd."""

    pitch_nm: float
    size: int

    @property
    def radius_nm(self) -> float:
        """Distance of the corners from the middle."""
        return math.sqrt(0.5) * self.pitch_nm * self.size


def excitation(
    z_nm: Array, at: Array | Square, wavelength_nm: float, objective: Objective, focus: Focus = SURFACE
) -> Array:
    """`tables.excitation_table` at radii (nr,), or the same on a square without the assumption of symmetry, (nz, size, size)."""
    if isinstance(at, Square):
        return _table(z_nm, at, wavelength_nm, objective, focus, True)
    return tables.excitation_table(z_nm, at, wavelength_nm, objective, focus)


def emission(
    z_nm: Array, at: Array | Square, wavelength_nm: float, objective: Objective, focus: Focus = SURFACE
) -> Array:
    """`tables.emission_table` in the same way."""
    if isinstance(at, Square):
        return _table(z_nm, at, wavelength_nm, objective, focus, False)
    return tables.emission_table(z_nm, at, wavelength_nm, objective, focus)


def through_pinhole(
    z_nm: Array,
    at: Array | Square,
    wavelength_nm: float,
    objective: Objective,
    radius_nm: float,
    focus: Focus = SURFACE,
) -> Array:
    """`response.pinhole_table` in the same way."""
    if not isinstance(at, Square):
        return pinhole_table(z_nm, at, wavelength_nm, objective, radius_nm, focus)

    from scipy import fft

    margin = math.ceil(radius_nm / at.pitch_nm) + 1
    wide = at._replace(size=at.size + 2 * margin)
    n = fast_pixels(wide.size + margin, 1)
    y, x = np.abs(fft.fftfreq(n, at.pitch_nm)), fft.rfftfreq(n, at.pitch_nm)
    disc = _disc_transform(np.hypot(y[:, None], x), radius_nm)
    inner = slice(margin, margin + at.size)
    image = _table(z_nm, wide, wavelength_nm, objective, focus, False)
    return np.stack([fft.irfft2(fft.rfft2(plane, (n, n)) * disc, (n, n))[inner, inner] for plane in image])


def _disc_transform(frequency: Array, radius: float) -> Array:
    """Fourier transform of a disc of this radius."""
    turn = 2.0 * math.pi * radius * frequency
    j1 = bessel_01_array(turn.ravel())[1].reshape(turn.shape)
    return np.asarray(math.pi * radius**2 * np.where(turn > 0.0, 2.0 * j1 / np.where(turn > 0.0, turn, 1.0), 1.0))


def reassigned(beam: Array, image: Array, pitch_nm: float, radius_nm: float) -> Array:
    """`scanning.reassigned` of a beam and images on squares (nz, n, n): both are shortened by the same margin on each side.

    Detectors lie at even places of the grid. Their weights are those of the disc up to a quarter of a cycle per place, which
    must be the highest frequency of a product of beam and image.
    """
    margin = reassigned_margin(radius_nm, pitch_nm)
    weights = _disc_weights(margin, radius_nm / 2.0 / pitch_nm) * (4.0 * pitch_nm**2)
    n = beam.shape[1] - 2 * margin
    total = np.zeros((len(beam), n, n))
    for i in range(-margin, margin + 1):
        for j in range(-margin, margin + 1):
            plus = (slice(None), slice(margin + i, margin + i + n), slice(margin + j, margin + j + n))
            minus = (slice(None), slice(margin - i, margin - i + n), slice(margin - j, margin - j + n))
            total += weights[i + margin, j + margin] * beam[plus] * image[minus]
    return total


def reassigned_margin(radius_nm: float, pitch_nm: float) -> int:
    """Places on each side by which `reassigned` shortens its input."""
    return math.ceil(radius_nm / 2.0 / pitch_nm) + _EDGE


def _disc_weights(reach: int, radius: float) -> Array:
    """Weights at integer places that integrate over a disc what has no frequency above a quarter of a cycle, (n, n)."""
    from scipy import fft

    n = fast_pixels(4 * reach, 1)
    k = np.abs(fft.fftfreq(n))
    k = np.hypot(k[:, None], k)
    _, fading = sin_cos_array(math.pi * np.clip(4.0 * k - 1.0, 0.0, 1.0))
    weights = fft.ifft2(_disc_transform(k, radius) * (0.5 + 0.5 * fading)).real
    at = np.arange(-reach, reach + 1)
    return np.asarray(weights[at[:, None], at])


def _table(z_nm: Array, at: Square, wavelength_nm: float, objective: Objective, focus: Focus, excited: bool) -> Array:
    objective.check()
    if objective.matched:
        focus = SURFACE
    wavenumber = 2.0 * math.pi / wavelength_nm
    rays = _Rays(z_nm, at, wavenumber, objective, focus, excited)
    table = np.empty((z_nm.size, at.size, at.size))
    angle = objective.polarisation_deg if excited else None
    for i, z in enumerate(z_nm.tolist()):
        table[i] = _intensity(rays.fields(z), angle)
    table /= rays.gridding**2
    flat = objective.rays(*gauss_legendre(tables.FEWEST))
    over_k1 = 2.0 * math.pi / (wavenumber * objective.n1) ** 2
    if excited:
        table *= objective.gel / objective.n1 / (over_k1 * tables.beam_power(flat, objective))
    else:
        table /= over_k1 * tables.plane_integral(flat, objective, False)
    return table


def _intensity(fields: NDArray[np.complex64], angle_deg: float | None) -> Array:
    """4 |E|^2 of a beam polarised at this angle, or its mean over all."""
    xx, xy, xz, yy, yz = fields
    if angle_deg is None:
        total = xy.real**2 + xy.imag**2
        total *= 2.0
        for f in (xx, xz, yy, yz):
            total += f.real**2 + f.imag**2
        return np.asarray(2.0 * total)
    sine, cosine = (np.float32(v[0]) for v in sin_cos_array(np.array([math.pi / 180.0 * angle_deg])))
    turned = (cosine * xx + sine * xy, cosine * xy + sine * yy, cosine * xz + sine * yz)
    return np.asarray(4.0 * sum(f.real**2 + f.imag**2 for f in turned))


class _Rays:
    """Rays over the pupil, and the places of the grid that they make an image on."""

    def __init__(
        self, z_nm: Array, at: Square, wavenumber: float, objective: Objective, focus: Focus, excited: bool
    ) -> None:
        self._wavenumber, self._objective, self._focus = wavenumber, objective, focus
        bent = sum(abs(nm) * (n + 1.0) ** 1.5 for n, _, nm in objective.aberrations) * 2.0 * wavenumber
        across = wavenumber * objective.widest * at.radius_nm
        per_nm = wavenumber * objective.lower * math.sqrt(0.5 * (1.0 - objective.least_cosine))
        degree = tables.axial_degree(z_nm, wavenumber, objective, focus) + per_nm * at.radius_nm + bent
        self._rays = rays = objective.rays(*gauss_legendre(tables.rule(degree)))
        turns = 4 * math.ceil((across + 8.0 * across ** (1.0 / 3.0) + bent + 40.0) / 4.0)
        sine, cosine = sin_cos_array(2.0 * math.pi * (np.arange(turns) + 0.5) / turns)
        s, p = rays.ts[:, None], rays.tp[:, None]
        c, sine2 = rays.c2[:, None], rays.p[:, None] / objective.gel
        weight = (rays.weight * tables.pupil(rays, objective, excited))[:, None] / turns
        self._vectors = weight * np.stack(
            [p * c * cosine**2 + s * sine**2, (p * c - s) * sine * cosine, -p * sine2 * cosine,
             p * c * sine**2 + s * cosine**2, -p * sine2 * sine]
        )  # fmt: skip
        self._aberration = np.zeros((rays.p.size, turns))
        radius = rays.p / objective.aperture
        for n, m, nm in objective.aberrations:
            self._aberration += nm * zernike(n, m, radius[:, None], sine, cosine)
        self._at, self._length = at, fast_pixels(2 * at.size + 2, 1)
        steps = rays.p[:, None] * (
            wavenumber / (2.0 * math.pi) * self._length * at.pitch_nm
        )  # of the lattice of frequencies
        self._most = math.ceil(float(steps.max())) + WIDTH
        turn = 2.0 * math.pi * (at.size // 2) / self._length * np.arange(2 * self._most + 1, dtype=np.float64)
        sines, cosines = sin_cos_array(turn)
        self._shift = (cosines - 1j * sines).astype(np.complex64)
        self._first_y, self._weight_y = self._stencil(steps * sine)
        self._first_x, self._weight_x = self._stencil(steps * cosine)

    def _stencil(self, steps: Array) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        place = steps.ravel() + self._most
        first = np.floor(place).astype(np.int64) - WIDTH // 2 + 1
        return first, kernel(place[:, None] - first[:, None] - np.arange(WIDTH)).astype(np.float32)

    def fields(self, z_nm: float) -> NDArray[np.complex64]:
        """Components of the field at one depth, (5, size, size), times `gridding` and a phase that they share."""
        from scipy import fft

        phase = tables.phases(np.array([z_nm]), self._wavenumber, self._objective, self._focus, self._rays)[0]
        sine, cosine = sin_cos_array((phase[:, None] + self._wavenumber * self._aberration).ravel())
        values = (self._vectors.reshape(_COMPONENTS, -1) * (cosine + 1j * sine)).T.astype(np.complex64)
        size = 2 * self._most + 1
        gridded = np.zeros((size, size, 2 * _COMPONENTS), np.float32)
        values = np.ascontiguousarray(values).view(np.float32)
        _spread(values, self._first_y, self._weight_y, self._first_x, self._weight_x, gridded)
        # all frequencies are shifted alike, which changes phases alone; the first place is the first of the square
        spectrum = np.ascontiguousarray(np.moveaxis(gridded.view(np.complex64), -1, 0))
        spectrum *= self._shift[:, None] * self._shift
        n, length = self._at.size, self._length
        columns = fft.ifft(spectrum, n=length, axis=1, norm="forward")[:, :n]
        return np.asarray(fft.ifft(columns, n=length, axis=2, norm="forward")[:, :, :n])

    @property
    def gridding(self) -> Array:
        """Factor that the kernels leave in each field, (size, size)."""
        line = kernel_transform((np.arange(self._at.size, dtype=np.float64) - self._at.size // 2) / self._length)
        return line[:, None] * line


@njit(cache=True, nogil=True)
def _spread(values, first_y, weight_y, first_x, weight_x, out):  # type: ignore[no-untyped-def]
    for j in range(values.shape[0]):
        for a in range(weight_y.shape[1]):
            row = out[first_y[j] + a]
            for b in range(weight_x.shape[1]):
                share = weight_y[j, a] * weight_x[j, b]
                cell = row[first_x[j] + b]
                for c in range(values.shape[1]):
                    cell[c] += share * values[j, c]


def along_z(values: Array, table: Array) -> Array:
    """Values of depths (nz,) as factors of a table (nz, nr) or (nz, size, size)."""
    return np.reshape(values, (-1,) + (1,) * (table.ndim - 1))
