"""Measured point spread functions: stacks of a bead, or the average of several."""

from __future__ import annotations

import hashlib
import math
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from simexm.errors import SourceError, SpecError
from simexm.kernels.diffraction.response import STENCIL, lagrange
from simexm.kernels.diffraction.special import Array
from simexm.settings import Frozen
from simexm.sources.tiff.layout import only_series, opened
from simexm.sources.tiff.sizes import size_and_origin_of

LEAST_PLANES, LEAST_PIXELS = 7, 11
MOST_VALUES = 2**27
LOWEST = -0.02
"""Values below this share of the brightest are no noise about 0."""
MOST_AT_BORDER = 0.1
"""Light in the border of a plane, relative to evenly spread light, above which the plane is taken to be cut off."""
_OFF_PIXELS, _OFF_PLANES = 1.5, 1.5
_BORDER = 12  # the border is this part of the width, on each side


class PsfStack(Frozen):
    """A measured stack of planes z, y, x: what the microscope shows of a point in its middle.

    Planes follow each other as the microscope takes them, deeper ones later. The point is at pixel n // 2 of the n along
    each axis. The background is subtracted, and the pixel's area is divided out up to the frequency of two pixels. For
    widefield and light sheet each plane has unit energy, and the light is that of the model (of a sheet with its profile);
    for other microscopes the plane in focus has the light of the model, and the others are as much darker as they were measured.

    Attributes
    ----------
    path
        A TIFF or OME-TIFF.
    pixel_size_nm, plane_spacing_nm
        Pixels at the specimen, and distance of planes in the sample; by default as the file states them.
    background
        Of each pixel; by default the median in the border, one twelfth of the width, of the plane in focus.
    sha256
        Checksum of the file, to refuse any other; filled in by `plan`.
    """

    path: Path
    pixel_size_nm: float | None = Field(default=None, ge=1, le=1e4)
    plane_spacing_nm: float | None = Field(default=None, ge=1, le=1e5)
    background: float | None = None
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")

    def frozen(self) -> PsfStack:
        """Copy with the absolute path and the checksum; SpecError if the file cannot be used."""
        path = self.path.absolute()
        return self.model_copy(update={"path": path, "sha256": load(self.model_copy(update={"path": path})).sha256})


class Measured(NamedTuple):
    """A stack as it is used: values (nz, n, n) without background, about plane nz // 2 and pixel n // 2, nz and n odd."""

    path: Path
    sha256: str
    values: Array
    pixel_nm: float
    plane_nm: float
    energy: Array  # sum of each plane as it was recorded, per nm^2

    @property
    def extent_nm(self) -> float:
        """Distance of the first and the last plane from the middle."""
        return self.plane_nm * (len(self.values) // 2)

    @property
    def radius_nm(self) -> float:
        """Distance of the outermost pixels from the middle, along y and x."""
        reach: int = self.values.shape[1] // 2
        return self.pixel_nm * reach

    def at(self, z_nm: Array, radius_nm: float, each_alike: bool) -> Array:
        """Images (nz, n, n), per nm^2, of a dye `z_nm` below the plane; energy 1 in each plane, or in focus.

        Between planes by polynomials of degree five; beyond the first and the last they are these. Pixels lie up to
        `radius_nm` from the middle.
        """
        middle = len(self.values) // 2
        cut = max(0, self.values.shape[1] // 2 - int(radius_nm / self.pixel_nm + 1e-9))
        values = self.values[:, cut : self.values.shape[1] - cut, cut : self.values.shape[2] - cut]
        energy = self.energy if each_alike else np.full_like(self.energy, self.energy[middle])
        place = np.clip(middle - z_nm / self.plane_nm, 0, len(values) - 1)
        first = np.clip(np.floor(place).astype(np.int64) - STENCIL // 2 + 1, 0, len(values) - STENCIL)
        images = np.zeros((z_nm.size, *values.shape[1:]))
        for a in range(STENCIL):
            weight = lagrange(place - first, a, 1.0) / energy[first + a]
            images += weight[:, None, None] * values[first + a]
        return images

    def check_range(self, range_nm: float, each_alike: bool) -> None:
        """Raise SpecError if the stack lacks planes within an axial range, or has some that are cut off.

        The light in the border of a plane counts relative to what would be there were the plane's, or if they are not alike
        the sharpest one's, evenly spread.
        """
        if range_nm > self.extent_nm * (1 + 1e-9):
            raise _refused(
                self.path, f"ends {self.extent_nm / 1000:.4g} um from its middle, before axial_range_um {range_nm / 1000:.4g}",
                f"give axial_range_um: {self.extent_nm / 1000:.4g} or record more planes",
            )  # fmt: skip
        middle, held = len(self.values) // 2, -1
        for distance in range(min(middle, math.ceil(range_nm / self.plane_nm - 1e-9)) + 1):
            for k in (middle - distance, middle + distance):
                self._refuse_cut(k, each_alike, held * self.plane_nm / 1000)
            held = distance

    def _refuse_cut(self, k: int, each_alike: bool, held_um: float) -> None:
        """Refuse plane k if it is dark or its border bright; planes up to `held_um` off the middle are neither."""
        middle, plane = len(self.values) // 2, self.values[k]
        off = f"{(k - middle) * self.plane_nm / 1000:+.3g} um off its middle"
        if each_alike and not self.energy[k] > 0:
            raise _refused(
                self.path, f"has no light above the background {off}",
                "give another `background`, or an axial_range_um that leaves the plane out",
            )  # fmt: skip
        share = float(plane[_border(plane)].mean() / (plane if each_alike else self.values[middle]).mean())
        if share > MOST_AT_BORDER:
            shorter = f", or give axial_range_um: {held_um:.4g}" if held_um > 0 else ""
            raise _refused(
                self.path, f"is cut off: {off} the border has {share:.0%} of what evenly spread light would leave there "
                f"({MOST_AT_BORDER:.0%} at most), and what lies beyond would be lost",
                f"cut out more of its surroundings{shorter}",
            )  # fmt: skip


def _border(plane: Array) -> NDArray[np.bool_]:
    rim = max(1, len(plane) // _BORDER)
    border = np.ones(plane.shape, np.bool_)
    border[rim:-rim, rim:-rim] = False
    return border


def load(stack: PsfStack) -> Measured:
    """Read a stack and check it; SpecError if it cannot be used."""
    try:
        state = stack.path.stat()
    except OSError as error:
        raise SpecError(f"psf_stack {stack.path} cannot be read ({error.strerror}); give the path of a TIFF") from error
    return _load(stack, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=8)
def _load(stack: PsfStack, changed_ns: int, size: int) -> Measured:
    path = stack.path
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        values, sizes = _read(path)
    except SourceError as error:
        raise SpecError(f"psf_stack: {error}") from error
    except OSError as error:
        raise SpecError(f"psf_stack {path} cannot be read ({error.strerror}); give the path of a TIFF") from error
    if stack.sha256 not in (None, digest):
        raise SpecError(
            f"psf_stack {path} is another file than the one planned with, so blocks would not fit together; restore it, or "
            "plan again with a new output"
        )
    pixel, plane = (stack.pixel_size_nm or sizes[1]), (stack.plane_spacing_nm or sizes[0])
    if pixel is None or plane is None:
        lacking = [k for k, v in (("pixel_size_nm", pixel), ("plane_spacing_nm", plane)) if v is None]
        raise _refused(path, f"states no {' and no '.join(lacking)}", f"give {' and '.join(lacking)} beside its path")
    return _checked(stack, digest, values, float(pixel), float(plane))


def _read(path: Path) -> tuple[Array, tuple[float | None, float | None]]:
    """Values (z, y, x), and plane spacing and pixel size in nm where the file states them."""
    with opened(path) as tif:
        series = only_series(path, list(tif.series))
        axes = [(a, n) for a, n in zip(series.axes, series.shape, strict=True) if n > 1]
        names, shape = "".join(a for a, _ in axes), tuple(n for _, n in axes)
        if len(shape) != 3 or not names.endswith("YX") or names[0] in "CS":
            raise _refused(
                path, f"has the axes {names or 'none'} ({'x'.join(map(str, shape))})",
                "save one channel as planes z, y, x; channels with different responses each take a `psf_stack` of their own",
            )  # fmt: skip
        if int(np.prod(shape)) > MOST_VALUES:
            raise _refused(path, f"has {np.prod(shape):.1e} values", "cut out the point and its surroundings")
        size, _ = size_and_origin_of(tif)
        values = np.asarray(series.asarray(), np.float64).reshape(shape)
    if size is not None and size[1] != size[2]:
        raise _refused(path, f"has pixels of {float(size[1]):g} x {float(size[2]):g} nm", "resample it to square ones")
    return values, (None, None) if size is None else (float(size[0]), float(size[1]))


def _checked(stack: PsfStack, digest: str, values: Array, pixel: float, plane: float) -> Measured:
    path = stack.path
    if not np.isfinite(values).all():
        bad = int(np.count_nonzero(~np.isfinite(values)))
        raise _refused(path, f"has {bad} values that are no numbers (NaN or infinite)", "average again without them")
    if len(values) < LEAST_PLANES or min(values.shape[1:]) < LEAST_PIXELS:
        sizes = "x".join(map(str, values.shape))
        least = f"{LEAST_PLANES}x{LEAST_PIXELS}x{LEAST_PIXELS}"
        raise _refused(path, f"has {sizes} values, too few to interpolate", f"record at least {least}")
    if values.min() < LOWEST * values.max():
        raise _refused(
            path, f"has values down to {values.min():.4g}, with {values.max():.4g} the brightest: light is not negative",
            "save it as it was recorded; the background is subtracted here",
        )  # fmt: skip
    values = _about_middle(values)
    middle = len(values) // 2
    rim = values[middle][_border(values[middle])]
    values = values - (float(np.median(rim)) if stack.background is None else stack.background)
    energy = values.sum(axis=(1, 2)) * pixel**2
    if not energy[middle] > 0:
        raise _refused(path, "has no light above the background in its middle plane", "give another `background`")
    off = _off_centre(values)
    if max(abs(off[1]), abs(off[2])) > _OFF_PIXELS or abs(off[0]) > _OFF_PLANES:
        raise _refused(
            path, f"is not centred: its brightest spot lies {off[0]:+.1f} planes, {off[1]:+.1f} rows and {off[2]:+.1f} columns "
            "off the middle, and the whole image would be shifted by that",
            "cut it out around the point, which belongs at index n // 2 of each axis",
        )  # fmt: skip
    return Measured(path, digest, values, pixel, plane, energy)


def _about_middle(values: Array) -> Array:
    """The largest part with index n // 2 in its middle, an odd number along each axis, as many along x as along y."""
    middles = [n // 2 for n in values.shape]
    reach = [min(m, n - 1 - m) for m, n in zip(middles, values.shape, strict=True)]
    reach[1] = reach[2] = min(reach[1:])
    return values[tuple(slice(m - r, m + r + 1) for m, r in zip(middles, reach, strict=True))]


def _off_centre(values: Array) -> tuple[float, float, float]:
    """How far the brightest spot lies from the middle, planes, rows and columns, by parabolas through a smoothed peak."""
    smooth = values
    for axis in range(3):
        line = np.moveaxis(smooth, axis, 0)
        padded = np.concatenate([line[:1], line, line[-1:]])
        smooth = np.moveaxis((padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4, 0, axis)
    peak = np.unravel_index(int(smooth.argmax()), smooth.shape)
    off = []
    for axis, n in enumerate(smooth.shape):
        at = tuple(slice(None) if a == axis else p for a, p in enumerate(peak))
        line, p = smooth[at], int(peak[axis])
        part = 0.0
        if 0 < p < n - 1:
            bend = line[p - 1] - 2 * line[p] + line[p + 1]
            part = 0.5 * float(line[p - 1] - line[p + 1]) / float(bend) if bend else 0.0
        off.append(p + part - n // 2)
    return off[0], off[1], off[2]


def _refused(path: Path, fault: str, remedy: str) -> SpecError:
    return SpecError(f"psf_stack {path} {fault}; {remedy}")
