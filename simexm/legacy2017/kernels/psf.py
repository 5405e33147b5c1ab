"""The kernel of SimExm (2017), 31 samples along each axis, from the `psf` package, in whole numbers.

Whole numbers make the blur exact (`simexm2017_blur`), and an exact result does not depend on the tile that it was computed
in: otherwise a value near one half would be rounded up in one tile and down in another.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

REACH = 15
"""Samples on each side of the middle one."""
_BITS = 27
"""Bits that the norm of a kernel is scaled to: below 2^27, so that photons of a few thousand a voxel need no splitting; and
with 2^26 at least its sum stays within some 1e-6."""


@dataclass(frozen=True, eq=False)
class Kernel:
    """A kernel in units of 2^-bits of its peak.

    Attributes
    ----------
    taps
        int64, (REACH + 1, 2 * REACH + 1, 2 * REACH + 1): planes at |offset| 0 to REACH; even along rows and columns.
    bits
        What 1.0 is: 2^bits.
    """

    taps: NDArray[np.int64]
    bits: int

    @property
    def norms(self) -> NDArray[np.float64]:
        """Euclidean norm of each plane, (REACH + 1,)."""
        norms: NDArray[np.float64] = np.sqrt((self.taps.astype(np.float64) ** 2).sum(axis=(1, 2)))
        return norms

    @property
    def total(self) -> int:
        """Sum over all 31^3 samples."""
        planes = self.taps.sum(axis=(1, 2))
        return int(planes[0] + 2 * planes[1:].sum())


def quantised(volume: NDArray[np.float64]) -> Kernel:
    """The kernel rounded to whole numbers, as many bits as `_BITS` allows.

    Parameters
    ----------
    volume
        (31, 31, 31), not negative, even along each axis.

    Raises
    ------
    ValueError
        If it is none of that.
    """
    side = 2 * REACH + 1
    even = volume.shape == (side,) * 3 and all(np.array_equal(volume, np.flip(volume, axis)) for axis in range(3))
    if not even or not volume.min() >= 0 or not 0 < volume.max() < math.inf:
        raise ValueError(f"a kernel has {side} samples along each axis, is even along each and nowhere negative")
    norm = float(np.sqrt((volume**2).sum(axis=(1, 2))).sum())
    bits = _BITS - math.frexp(norm)[1]
    return Kernel(np.rint(volume[REACH:] * 2.0**bits).astype(np.int64), bits)


def kernel_volume(
    microscope: Literal["confocal", "widefield", "two photon"],
    voxel_nm: tuple[float, float, float],
    factor: float,
    excitation_nm: float,
    emission_nm: float,
    na: float,
    n: float,
    pinhole_um: float,
) -> NDArray[np.float64]:
    """The kernel as the 2017 program made it, peak 1, (31, 31, 31).

    Parameters
    ----------
    microscope
        CONFOCAL, WIDEFIELD or TWOPHOTON of the package's ISOTROPIC model.
    voxel_nm
        Voxel size, z y x; that of the rows serves the columns, too.
    factor
        Linear expansion.
    excitation_nm, emission_nm
        Wavelengths: the laser's, and the dye's emission peak.
    na, n
        Numerical aperture and refractive index, na < n.
    pinhole_um
        Radius of the pinhole, back-projected, in expanded space.

    Raises
    ------
    ValueError
        If the package refuses: for confocal and widefield, an excitation wavelength longer than the emission's.
    """
    import psf

    kind = {"confocal": psf.CONFOCAL, "widefield": psf.WIDEFIELD, "two photon": psf.TWOPHOTON}[microscope]
    if microscope != "two photon" and emission_nm < excitation_nm:
        raise ValueError(f"excitation at {excitation_nm:g} nm is beyond the emission at {emission_nm:g} nm")
    # the package divides by shape - 1: samples are spaced by 16/15 of a voxel and used as if by one
    samples = REACH + 1
    table = psf.PSF(
        psf.ISOTROPIC | kind,
        shape=(samples, samples),
        dims=(samples * voxel_nm[0] * factor / 1e3, samples * voxel_nm[1] * factor / 1e3),
        ex_wavelen=excitation_nm,
        em_wavelen=emission_nm,
        num_aperture=na,
        refr_index=n,
        magnification=1.0,
        pinhole_radius=pinhole_um,
    )
    volume: NDArray[np.float64] = table.volume()
    return volume
