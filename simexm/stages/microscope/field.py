"""What changes over the field of a microscope: where its channels show dyes, and the surface that is in focus.

Each channel may focus deeper and show dyes sideways and larger, and an objective may have its best focus on a surface that is
curved about the optical axis, z = r^2 / (2 R). Both only move a dye relative to the focus and the pixels, so that the images
are those of moved dyes:

    z' = z - axial - r^2 / (2 R),   y' = axis + magnification * (y - axis) + lateral.

The optical axis is the middle of the detector's frame. An image of several frames is cut along their seams, and each frame
sees all dyes near it by its own axis.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

from pydantic import Field

from simexm.errors import SpecError
from simexm.geometry.geometry import Geometry
from simexm.geometry.grid import Box, NmBox, exact3, three
from simexm.settings import Frozen

Points = tuple[Any, Any, Any]
Range = tuple[float, float]
"""Lowest and highest value."""
_Shift = Annotated[float, Field(ge=-1e6, le=1e6)]


class ChromaticShift(Frozen):
    """How a channel's image lies relative to the pixels and the planes of the stage, as measured with beads.

    Attributes
    ----------
    axial_nm
        How much deeper than the plane the channel focuses, nm of expanded tissue.
    lateral_nm
        How far the image of a dye lies from its place on the optical axis, y and x, nm of expanded tissue.
    magnification
        Size of the image about the optical axis, relative to that of the pixels.
    """

    axial_nm: _Shift = 0.0
    lateral_nm: tuple[_Shift, _Shift] = (0.0, 0.0)
    magnification: float = Field(default=1.0, ge=0.9, le=1.1)


IN_PLACE = ChromaticShift()


class Part(NamedTuple):
    """Pixels of a tile within one frame, and the frame's optical axis, y and x, nm of expanded tissue."""

    box: Box
    axis_nm: tuple[float, float]


@dataclass(frozen=True)
class FieldPlan:
    """The frame and its optics.

    Attributes
    ----------
    frame, image
        Rows and columns of a frame and of the image, in pixels.
    pixel_nm
        Pixel pitch, nm of expanded tissue.
    radius_nm
        Radius R of the surface of best focus; positive if it lies deeper away from the axis, infinite if it is flat.
    shifts
        Shift of each pair of the plan.
    seamed
        Whether frames differ in anything but their place.
    """

    frame: tuple[int, int]
    image: tuple[int, int]
    pixel_nm: float
    radius_nm: float
    shifts: tuple[ChromaticShift, ...]
    seamed: bool

    def parts(self, tile: Box) -> list[Part]:
        """Cut a tile along the seams of the frames."""
        if not self.seamed:
            return [Part(tile, self.axis_nm((tile.start[1], tile.start[2])))]
        along = (_cuts(tile.start[a], tile.stop[a], n) for a, n in zip((1, 2), self.frame, strict=True))
        found = []
        for (y, v), (x, u) in itertools.product(*along):
            box = Box((tile.start[0], y, x), (tile.stop[0], v, u))
            found.append(Part(box, self.axis_nm((y, x))))
        return found

    def axis_nm(self, pixel: tuple[int, int]) -> tuple[float, float]:
        """Optical axis of the frame that holds a pixel."""
        y, x = ((p // n + 0.5) * n * self.pixel_nm for p, n in zip(pixel, self.frame, strict=True))
        return y, x

    def pieces(self, axis: int, pixels: int) -> int:
        """Most parts into which frames cut so many pixels along y (1) or x (2)."""
        n, whole = self.frame[axis - 1], self.image[axis - 1]
        return 1 + -(-(pixels - 1) // n) if self.seamed and whole > n else 1

    def depth_nm(self, y_nm: Any, x_nm: Any) -> Any:
        """How much deeper the focus lies at distances from the axis than on it."""
        return (y_nm * y_nm + x_nm * x_nm) * (0.5 / self.radius_nm)

    def moved(self, shift: ChromaticShift, axis_nm: tuple[Any, Any], points: Points) -> Points:
        """Where dyes would lie that give the same image through flat optics without shifts."""
        z, y, x = points
        y, x = y - axis_nm[0], x - axis_nm[1]
        z = z - shift.axial_nm if math.isinf(self.radius_nm) else z - (self.depth_nm(y, x) + shift.axial_nm)
        y, x = y * shift.magnification, x * shift.magnification
        return z, y + (axis_nm[0] + shift.lateral_nm[0]), x + (axis_nm[1] + shift.lateral_nm[1])

    def moved_by_frame(self, shift: ChromaticShift, points: Points, xp: Any) -> Points:
        """`moved`, each dye by the axis of its own frame."""
        if not self.seamed:
            return self.moved(shift, (0.0, 0.0), points)
        axes = []
        for at, n, whole in zip(points[1:], self.frame, self.image, strict=True):
            length = n * self.pixel_nm
            last = -(-whole // n) - 1
            axes.append((xp.clip(xp.floor(at * (1 / length)), 0.0, float(last)) + 0.5) * length)
        return self.moved(shift, (axes[0], axes[1]), points)

    def from_axis(self, place_nm: Any, axis_nm: float, shift: ChromaticShift, axis: int) -> Any:
        """Distance from the optical axis of the dyes whose images lie at a place, along y (1) or x (2)."""
        return (place_nm - (axis_nm + shift.lateral_nm[axis - 1])) * (1 / shift.magnification)

    def extent_nm(self, halo_nm: float) -> tuple[Range, Range]:
        """Places from the axis, along y and x, of dyes that any frame of the image sees, within a halo."""
        found = []
        for axis, (n, whole) in enumerate(zip(self.frame, self.image, strict=True), 1):
            low = -0.5 * n * self.pixel_nm - halo_nm
            high = (min(n, whole) - 0.5 * n) * self.pixel_nm + halo_nm
            ends = [self.from_axis(e, 0.0, s, axis) for e in (low, high) for s in self.shifts]
            found.append((min(ends), max(ends)))
        return found[0], found[1]

    def depths_nm(self, y: Range, x: Range) -> Range:
        """Lowest and highest `depth_nm` within a rectangle."""
        if math.isinf(self.radius_nm):
            return 0.0, 0.0
        nearest = [min(max(0.0, low), high) for low, high in (y, x)]
        furthest = [max(abs(low), abs(high)) for low, high in (y, x)]
        a, b = float(self.depth_nm(*nearest)), float(self.depth_nm(*furthest))
        return min(a, b), max(a, b)

    def axial_nm(self, halo_nm: float) -> Range:
        """How much deeper dyes lie than where their image shows them, over the field."""
        low, high = self.depths_nm(*self.extent_nm(halo_nm))
        shifts = [s.axial_nm for s in self.shifts]
        return low + min(shifts), high + max(shifts)

    def reach_nm(self, part: Part, shift: ChromaticShift, halo_nm: float) -> Range:
        """How much deeper dyes lie than where a channel shows them, around a part of a tile."""
        ends = []
        for axis in (1, 2):
            a, b = (edge * self.pixel_nm for edge in (part.box.start[axis], part.box.stop[axis]))
            low, high = (self.from_axis(e, part.axis_nm[axis - 1], shift, axis) for e in (a - halo_nm, b + halo_nm))
            ends.append((low, high))
        low, high = self.depths_nm(ends[0], ends[1])
        return low + shift.axial_nm, high + shift.axial_nm

    def offsets_nm(self, halo_nm: float) -> tuple[Range, Range, Range]:
        """How far dyes lie from where their image shows them, z, y, x, over the field within a halo."""
        found = [self.axial_nm(halo_nm)]
        for axis, (n, whole) in enumerate(zip(self.frame, self.image, strict=True), 1):
            edges = (-0.5 * n * self.pixel_nm - halo_nm, (min(n, whole) - 0.5 * n) * self.pixel_nm + halo_nm)
            if not self.seamed:
                edges = (0.0, 0.0)
            ends = [self.from_axis(e, 0.0, s, axis) - e for e in edges for s in self.shifts]
            found.append((min(ends), max(ends)))
        return three(found)

    def origin(self, wanted: NmBox, halo_nm: float) -> NmBox:
        """Box of the dyes that show in a box of the image."""
        offsets = self.offsets_nm(halo_nm)
        low, high = (exact3(math.floor(o[0]) for o in offsets), exact3(math.ceil(o[1]) for o in offsets))
        start = exact3(a + o for a, o in zip(wanted.start, low, strict=True))
        stop = exact3(b + o for b, o in zip(wanted.stop, high, strict=True))
        return NmBox(start, stop)


def plan_field(
    geometry: Geometry,
    channels: Iterable[tuple[str, ChromaticShift | None]],
    radius_mm: float | None,
    along: str | None,
    by_terms: bool,
) -> FieldPlan | None:
    """The field of an image, with the shift of each pair's channel; None if nothing depends on it.

    `along` is the axis along which the light that excites dyes changes, and `by_terms` whether it is a sum of terms.

    Raises
    ------
    SpecError
        If a shift is larger than the specimen, or the focus is so curved that the law of a paraboloid does not hold.
    """
    given = [(name, shift or IN_PLACE) for name, shift in channels]
    shifts = tuple(shift for _, shift in given)
    if radius_mm is None and not by_terms and all(s == IN_PLACE for s in shifts):
        return None
    pixel_nm, image = float(geometry.pixel_nm[1]), (geometry.shape[1], geometry.shape[2])
    scaled = any(s.magnification != 1.0 for s in shifts)
    radius_nm = math.inf if radius_mm is None else radius_mm * 1e6
    frame = geometry.frame or image
    plan = FieldPlan(frame, image, pixel_nm, radius_nm, shifts, scaled or along is not None or radius_mm is not None)
    box = geometry.transform.bound(geometry.voxels_nm(Box.of_shape(geometry.crop.shape)))
    size = [float(b - a) for a, b in zip(box.start, box.stop, strict=True)]
    for name, shift in given:
        for axis, nm, length in zip("zyx", (shift.axial_nm, *shift.lateral_nm), size, strict=True):
            if abs(nm) >= length:
                key = "axial_nm" if axis == "z" else "lateral_nm"
                raise SpecError(
                    f"channel {name!r}: chromatic.{key} {nm:g} along {axis} is more than the specimen, which is {length:g} nm of "
                    "expanded tissue, so the channel would show nothing of it in focus; give the shift in nm, not in um"
                )
    far = max(abs(e) for ends in plan.extent_nm(0.0) for e in ends)
    if abs(radius_nm) < 2 * far:
        raise SpecError(
            f"field_curvature_radius_mm {radius_mm:g} is less than the width of the field: the frame of {frame[0]} x {frame[1]} "
            f"pixels reaches {far / 1e6:.3g} mm from its middle, and the focus would be bent into a bowl; objectives have radii "
            "of some mm; correct it, or the detector's frame_pixels"
        )
    return plan


def _cuts(start: int, stop: int, length: int) -> list[tuple[int, int]]:
    """Cut a range at the multiples of a length."""
    edges = [start, *range((start // length + 1) * length, stop, length), stop]
    return list(itertools.pairwise(edges))
