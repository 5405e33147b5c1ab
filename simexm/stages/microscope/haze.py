"""Light from beyond the axial range: what a coarse map of the whole specimen adds to an image plane.

Far from its plane the image of a dye is wide and has low frequencies only, so that coarse nodes serve; the further, the
coarser. The dyes lie on planes of nodes `coarse_nm` apart, spread over three of them by the quadratic B-spline B. With h the
transfer function on these planes, corrected for that spread, they transfer of a dye at distance z

    taken(z) = sum over j of  w_j B(z / coarse_nm - j) h_j,

and the node planes of the near range are given what is left, H(z) - taken(z). So every dye is counted once, wherever it lies.
The share w rises from 0 to 1 over some planes: what is left ends so gently that node planes resolve it.

The shape of h is tabulated up to `_FAR` depths of field; beyond, it grows with the distance as a cone of light does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simexm.geometry.grid import Spacing, Triple, exact3, triple
from simexm.kernels.diffraction import hankel
from simexm.kernels.diffraction.special import sinc_array
from simexm.kernels.diffraction.tables import SURFACE, Focus
from simexm.kernels.imaging import far
from simexm.kernels.imaging.image import fast_pixels
from simexm.spectra.fluorophores import Fluorophore
from simexm.stages.maps import MapPass
from simexm.stages.microscope import sheet

if TYPE_CHECKING:
    from simexm.stages.microscope.optics import Optics
    from simexm.stages.microscope.optics_plan import OpticsPair, OpticsPlan

Array = NDArray[np.float64]
NOWHERE: Spacing = (Fraction(0),) * 3
NAME = "haze"
"""Name of the map."""
LEAST = 5e-3
"""Part of a plane's light, at one frequency, that a level may lose."""
WHOLE, BAND = 0.42, 0.5
"""Frequencies that a level transfers whole, and at all, cycles per node."""
_SHARE = 0.995
"""Share of a plane's light within the radius of the kernels."""
_THIN = 8
"""Least number of planes of nodes in the near range."""
_RISE = 4
"""Node planes of the simulation grid over which light changes from near to far."""
_FAR = 50.0
"""Distance from which shapes only grow, in depths of field."""
_STEP, _MOST = 0.03, 16.0
"""Steps and end of the tables of shapes, in periods over the radius of the cone."""
_RATIO = 1.12
"""Of two distances tabulated one after the other."""
_COARSEST = 16
"""Pixels of the coarsest nodes: blocks are multiples of it."""


@dataclass(frozen=True)
class HazePlan:
    """Nodes of the map, and which of them serve which distances.

    Attributes
    ----------
    per_plane, coarse_nm
        Planes of nodes to an image plane, and their distance, nm of expanded tissue.
    pixels
        Pixels to a node by level, each twice those of the one before.
    starts
        First offset that each level serves, in planes of nodes, and the end.
    whole
        Offset from which on planes of nodes have their whole share.
    radii
        Radius of each level's kernels, in nodes.
    reach_nm
        Distance from which on the map alone gives the light.
    ends_nm
        Distances at which shapes are tabulated: the first, the first of those that choose the nodes, and the last.
    focus
        Depth for which they are tabulated.
    beyond, origin_nm
        How far dyes are moved; see `MapPass`.
    """

    per_plane: int
    coarse_nm: float
    pixels: tuple[int, ...]
    starts: tuple[int, ...]
    whole: int
    radii: tuple[int, ...]
    reach_nm: float
    ends_nm: tuple[float, float, float]
    focus: Focus = SURFACE
    beyond: Triple = (0, 0, 0)
    origin_nm: tuple[Spacing, Spacing] = (NOWHERE, NOWHERE)

    def moved(self, offsets_nm: tuple[tuple[float, float], ...], pixel_nm: Spacing) -> HazePlan:
        """The same for dyes that lie so far, at least and at most, from where they are seen, z, y, x."""
        low, high = (exact3(f(ends[i]) for ends in offsets_nm) for i, f in ((0, math.floor), (1, math.ceil)))
        most = [max(abs(a), abs(b)) / p for a, b, p in zip(low, high, pixel_nm, strict=True)]
        whole = [1, self.pixels[-1], self.pixels[-1]]
        beyond = triple(math.ceil(m / n) * n for m, n in zip(most, whole, strict=True))
        return replace(self, beyond=beyond, origin_nm=(low, high))

    def map_pass(self, dyes: tuple[str, ...]) -> MapPass:
        """The map of these dyes; it is read as far as the widest kernel and the interpolation reach."""
        reach = max((r + 2 * far.MARGIN) * p for r, p in zip(self.radii, self.pixels, strict=True))
        return MapPass(NAME, dyes, self.per_plane, self.pixels, 1.25, reach, self.beyond, self.origin_nm)

    def nodes(self, offsets: range) -> Array:
        """Distances of planes of nodes, nm."""
        return np.array(offsets, np.float64) * self.coarse_nm

    def share(self, offsets: range) -> Array:
        """Share w of planes of nodes, 0 to 1."""
        first = self.starts[0]
        part = np.clip((np.array(offsets) - first + 1) / (self.whole - first + 1), 0, 1)
        return np.asarray(part**3 * (10 - part * (15 - 6 * part)))


class Shapes(NamedTuple):
    """Transfer functions far from the plane, over their value at frequency 0, by frequency * distance * slope of the cone."""

    distance_nm: Array
    shape: Array  # (distances, frequencies)
    energy: Array  # photo-electrons in the plane over those collected, (distances,)
    radius_nm: Array  # that holds most of the light, (distances,)


def plan_haze(
    optics: Optics,
    seen: list[tuple[str, Fluorophore, float]],
    reach: int,
    node_nm: float,
    depth_nm: float,
    focus: Focus,
) -> HazePlan | None:
    """Choose the nodes beyond a near range in a specimen of this thickness; None if pixels are too coarse for that range.

    `seen` are (channel, dye, emission wavelength), the range ends `reach` node planes of the simulation grid from a plane.
    """
    range_nm = reach * node_nm
    plane_nm, pixel_nm = (float(s) for s in optics.spacing_nm[:2])
    per_plane = max(1, math.ceil(plane_nm * _THIN / range_nm))
    per_plane += 1 - per_plane % 2
    coarse = plane_nm / per_plane
    first = max(3, math.floor(range_nm / coarse - 0.5))
    rise = min(math.ceil(_RISE * node_nm / coarse), first - 3)
    last = max(first + 3, math.ceil(depth_nm / coarse) + 2)
    ends = (
        (first - rise - 2.5) * coarse,
        (first - 2.5) * coarse,
        max(4 * range_nm, max(e for *_, e in seen) * _FAR / optics.lens.widest**2),
    )
    tables = [shapes(optics, c, d, e, ends, focus, side) for c, d, e in seen for side in sides(optics)]
    slope = optics.lens.slope

    def fits(pixels: int, distance_nm: float) -> bool:
        limit = WHOLE / (pixels * pixel_nm) * distance_nm * slope
        return all(_cutoff(t, distance_nm) <= limit for t in tables)

    finest = [p for p in (1, 2, 4, 8, 16) if fits(p, (first + 0.5) * coarse)]
    if not finest:
        return None
    pixels, starts = [finest[-1]], [first - rise]
    while 2 * pixels[-1] <= _COARSEST:
        start = next(
            (j for j in range(max(first, starts[-1]) + 3, last) if fits(2 * pixels[-1], (j - 1.5) * coarse)), None
        )
        if start is None:
            break
        pixels.append(2 * pixels[-1])
        starts.append(start)
    starts.append(last)
    radii = tuple(
        max(math.ceil(_radius(t, (stop - 0.5) * coarse) / (p * pixel_nm)) for t in tables)
        for p, stop in zip(pixels, starts[1:], strict=True)
    )
    return HazePlan(per_plane, coarse, tuple(pixels), tuple(starts), first, radii, (first + 0.5) * coarse, ends, focus)


@lru_cache(maxsize=32)
def shapes(
    optics: Optics,
    channel_name: str,
    dye: Fluorophore,
    emission_nm: float,
    ends_nm: tuple[float, float, float],
    focus: Focus,
    side: int,
) -> Shapes:
    """Tabulate the shapes of a dye's image in a channel over these distances, below the plane (1) or above it (-1)."""
    channel = next(c for c in optics.all_channels if c.name == channel_name)
    lowest, low, high = ends_nm
    steps = max(3, math.ceil(math.log(high / low) / math.log(_RATIO)))
    nearer = math.ceil(math.log(low / lowest) / math.log(high / low) * steps)
    count = nearer + steps + 1
    z = low * (high / low) ** (np.arange(-nearer, steps + 1) / steps)
    step = emission_nm / (12.0 * optics.lens.widest)
    reach = high * optics.lens.slope + 20.0 * emission_nm / optics.lens.widest
    r = np.arange(max(17, math.ceil(reach / step)), dtype=np.float64) * step
    table = (optics.unlit if optics.by_terms else optics.response)(channel, dye, emission_nm, side * z, r, focus)
    weights = hankel.radial_weights(r.size, step)
    rings = np.cumsum(table * weights, axis=1)
    radius = r[np.maximum(np.argmax(rings >= _SHARE * rings[:, -1:], axis=1), 16)]
    photons = np.ones(count) if optics.by_terms else optics.emitted(channel, dye, z)
    collected = photons * optics.collected(channel, dye)
    lit = rings[:, -1] > 1e-12 * rings[:, -1].max(initial=0.0)
    u = np.arange(math.ceil(_MOST / _STEP) + 3) * _STEP
    shape, energy = np.zeros((count, u.size)), np.zeros(count)
    for i in np.flatnonzero(lit):
        # as in the near range, light beyond the radius is lost
        inside = r[r <= radius[i]]
        spectrum = hankel.radial_spectrum(table[i : i + 1, : inside.size], inside, u / (z[i] * optics.lens.slope))[0]
        energy[i] = spectrum[0]
        shape[i] = spectrum / energy[i]
    shape[:, u > _MOST] = 0.0
    share = np.where(lit, energy / np.maximum(collected, 1e-300), 0.0)
    return Shapes(z, shape, share, radius)


def sides(optics: Optics) -> tuple[int, ...]:
    """Sides of a plane that have shapes of their own: below it, and above it unless that is the same."""
    return (1,) if optics.lens.matched and not optics.by_terms else (1, -1)


def _cutoff(table: Shapes, distance_nm: float) -> float:
    """Frequency, times distance and slope, above which a plane's light at no frequency is more than `LEAST`."""
    i = min(int(np.searchsorted(table.distance_nm, distance_nm)), len(table.distance_nm) - 1)
    return float(np.flatnonzero(np.abs(table.shape[i]) >= LEAST).max(initial=0) * _STEP)


def _radius(table: Shapes, distance_nm: float) -> float:
    last = float(table.distance_nm[-1])
    within = float(np.interp(distance_nm, table.distance_nm, table.radius_nm))
    return within * max(1.0, distance_nm / last)


def transfer(
    optics: Optics,
    plan: OpticsPlan,
    pair: OpticsPair,
    dye: Fluorophore,
    offsets: range,
    k: Array,
    side: int,
    term: int = 0,
) -> Array:
    """Transfer functions w h of planes of nodes on one side, photo-electrons, (offsets, *k.shape), at frequencies per nm.

    Of one term where the light is a sum of several.
    """
    haze = _haze(plan)
    wider = range(offsets.start - 2, offsets.stop + 2)
    found = np.zeros((len(wider), *k.shape))
    table = shapes(optics, pair.channel, dye, pair.emission_nm, haze.ends_nm, haze.focus, side)
    channel = next(c for c in optics.all_channels if c.name == pair.channel)
    distance = haze.nodes(wider)
    if plan.terms is None:
        light = optics.emitted(channel, dye, distance)
    else:
        light = sheet.photons(optics, plan, pair, dye, side * distance)[term]
    light = light * (optics.collected(channel, dye) * pair.efficiency)
    for row, nm, photons in zip(found, distance, light, strict=True):
        nearest = float(np.clip(nm, table.distance_nm[0], table.distance_nm[-1]))
        i = min(max(int(np.searchsorted(table.distance_nm, nearest)) - 1, 0), len(table.distance_nm) - 2)
        # shapes change with the inverse distance
        a, b = 1 / table.distance_nm[i], 1 / table.distance_nm[i + 1]
        part = (a - 1 / nearest) / (a - b)
        shape = table.shape[i] * (1 - part) + table.shape[i + 1] * part
        energy = table.energy[i] * (1 - part) + table.energy[i + 1] * part
        row[...] = photons * energy * at(shape, k * (nm * optics.lens.slope / _STEP))
    second = np.diff(found, n=2, axis=0)
    exact = found[2:-2] - second[1:-1] / 8 + np.diff(second, n=2, axis=0) * (37 / 1920)
    return np.asarray(exact * haze.share(offsets).reshape(-1, *(1,) * k.ndim))


def at(line: Array, place: Array) -> Array:
    """Even function at places in samples, by cubics through four of them; 0 beyond the end."""
    i = np.minimum(place.astype(np.int64), line.size - 3)
    u = place - i
    w = (
        -u * (u - 1) * (u - 2) / 6,
        (u + 1) * (u - 1) * (u - 2) / 2,
        -(u + 1) * u * (u - 2) / 2,
        (u + 1) * u * (u - 1) / 6,
    )
    value = w[0] * line[np.abs(i - 1)] + w[1] * line[i] + w[2] * line[i + 1] + w[3] * line[i + 2]
    return np.where(place < line.size - 3, value, 0.0)


def kept(haze: HazePlan, pixel_nm: float, level: int, k: Array) -> Array:
    """Factor by which a level keeps each lateral frequency, 0 to 1."""
    cycles = k * haze.pixels[level] * pixel_nm
    share: Array = np.cos(np.clip((cycles - WHOLE) / (BAND - WHOLE), 0, 1) * (math.pi / 2)) ** 2
    return np.where(cycles < BAND, share, 0.0)


def taken(
    optics: Optics, plan: OpticsPlan, pair: OpticsPair, dye: Fluorophore, z_nm: Array, k: Array, term: int = 0
) -> Array:
    """What the map transfers of dyes at distances (nz,), in units of the response's transform, (nz, nk)."""
    haze = _haze(plan)
    first = haze.starts[0]
    place = np.abs(z_nm) / haze.coarse_nm
    offsets = range(first, max(first + 1, math.ceil(float(place.max()) + 1.5)))
    t = np.abs(place[:, None] - np.array(offsets))
    spread = np.where(t < 0.5, 0.75 - t * t, np.where(t < 1.5, 0.5 * (1.5 - t) ** 2, 0.0))
    found = spread @ transfer(optics, plan, pair, dye, offsets, k, 1, term)
    if -1 in sides(optics):
        found[z_nm < 0] = (spread @ transfer(optics, plan, pair, dye, offsets, k, -1, term))[z_nm < 0]
    return np.asarray(found) * kept(haze, float(optics.spacing_nm[1]), 0, k)


@lru_cache(maxsize=64)
def kernels(
    optics: Optics, plan: OpticsPlan, pair: OpticsPair, dye: Fluorophore, level: int, side: int, term: int = 0
) -> NDArray[np.float32]:
    """Kernels of a level on one side, photo-electrons per pixel and dye, (offsets, radius + 1, radius + 1) from the centre."""
    haze, pixel = _haze(plan), float(optics.spacing_nm[1])
    radius, times = haze.radii[level], haze.pixels[level]
    length = fast_pixels(4 * radius + 2, 1)
    length += length % 2
    f = np.arange(length // 2 + 1) / length  # cycles per node
    k = np.hypot(f[:, None], f[None, :]) / (times * pixel)
    # the pixel's aperture, over the spread of a dye on nodes: the B-spline of the finest, joined to the level's
    spread = sinc_array(f * (haze.pixels[0] / times)) ** 2 * sinc_array(f)
    along = sinc_array(f / times) / (times * spread)
    offsets = range(haze.starts[level], haze.starts[level + 1])
    h = transfer(optics, plan, pair, dye, offsets, k, side, term) * (
        along[:, None] * along[None, :] * kept(haze, pixel, level, k)
    )
    rows = np.minimum(np.arange(length), length - np.arange(length))
    cut = slice(0, radius + 1)
    found = np.empty((len(offsets), radius + 1, radius + 1), np.float32)
    for one, spectrum in zip(found, h, strict=True):
        one[...] = np.fft.irfft2(spectrum[rows], (length, length))[cut, cut]
    return found


def _haze(plan: OpticsPlan) -> HazePlan:
    assert plan.haze is not None
    return plan.haze
