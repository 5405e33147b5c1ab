"""The kernel of SimExm (2017), 31 samples along each axis, from the `psf` package, in whole numbers.

Whole numbers make the blur exact, so it does not depend on the tile: otherwise a value near one half could be rounded up in one
tile and down in another.
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
"""Bits of a kernel's norm: below 2^27, so that a few thousand photons per voxel need no splitting; with at least 2^26,
the error of its sum is about 1e-6."""


@dataclass(frozen=True, eq=False)
class Kernel:
    """A kernel in units of 2^-bits of its peak.

    `taps` is int64, (REACH + 1, 2 * REACH + 1, 2 * REACH + 1): planes at |offset| 0 to REACH, even along rows and columns.
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
    """Round a kernel, (31, 31, 31), nonnegative and even along each axis, to whole numbers of `_BITS` bits.

    Raises ValueError for another kernel.
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
    """Return the kernel of the 2017 program, peak 1, (31, 31, 31), from the `psf` package's ISOTROPIC model.

    The voxel size, z y x, of the rows is also used for the columns; `factor` is the linear expansion. For confocal and
    widefield, the laser's wavelength must be below the dye's emission peak, or ValueError is raised. `na` < `n` are
    numerical aperture and refractive index; `pinhole_um` is the radius of the pinhole, back-projected, in expanded
    space.
    """
    import psf

    kind = {"confocal": psf.CONFOCAL, "widefield": psf.WIDEFIELD, "two photon": psf.TWOPHOTON}[microscope]
    if microscope != "two photon" and emission_nm < excitation_nm:
        raise ValueError(f"excitation at {excitation_nm:g} nm is beyond the emission at {emission_nm:g} nm")
    # the package divides by shape - 1, so samples are 16/15 of a voxel apart but used as if one voxel apart
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
