"""Preview part of an image before it is run, with exactly the pixels that a run would write."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from simexm.arguments import whole_number, whole_numbers
from simexm.errors import SpecError
from simexm.geometry.grid import Box, Triple, triple
from simexm.planning.plan import Plan
from simexm.run.excerpt import excerpt
from simexm.run.finish import channel_color
from simexm.run.passes import counted_in_memory
from simexm.stages.frames import NO_FRAME, Frame
from simexm.store.atomic_file import atomic_file
from simexm.units import times
from simexm.view.picture import Picture, draw, save, window
from simexm.view.run_record import spacing_um

USUAL: Triple = (24, 512, 512)
"""Most pixels along z, y, x of a preview, unless a shape is given."""


@dataclass(frozen=True, repr=False)
class Preview:
    """Part of an image, as a run would write it."""

    plan: Plan
    box: Box  # pixels of the image
    at: Triple  # the pixel through which the picture's plane and section go
    image: NDArray[Any]  # (channels, z, y, x): counts; photo-electrons or dyes if the plan stops earlier
    labels: NDArray[Any]  # ids of the cells, (z, y, x)
    frame: Frame = NO_FRAME  # all 0 if the specimen is imaged once

    @cached_property
    def picture(self) -> Picture:
        """Plane and section through `at`; display windows follow from the preview's pixels alone."""
        plan, names = self.plan, list(self.plan.outputs[0].channels)
        k, j, _ = (a - b for a, b in zip(self.at, self.box.start, strict=True))
        which = " ".join(["preview", *(f"of {axis} {place}" for axis, place in self.frame.named)])
        return Picture(
            title=f"{plan.simulation.name} ({which})",
            across=self.image[:, k],
            along=self.image[:, :, j],
            truth=self.labels[k],
            truth_along=self.labels[:, j],
            colors=[channel_color(plan, n) for n in names],
            windows=[window(c) for c in self.image],
            names=names,
            pixel_um=spacing_um(plan.geometry.pixel_tissue_nm),
            factor=float(plan.geometry.transform.scale),
        )

    def __str__(self) -> str:
        start, stop, shape = (" ".join(map(str, v)) for v in (self.box.start, self.box.stop, self.plan.shape))
        return f"pixels {start} to {stop} of {shape} (z y x)"

    def __repr__(self) -> str:
        return f"Preview({self.plan.simulation.name!r}: {self})"

    def save(self, path: str | Path) -> None:
        """Write the picture as a PNG."""
        with atomic_file(Path(path)) as partial:
            save(self.picture, partial)

    def _repr_html_(self) -> str:
        from simexm.view.notebook import preview_html

        return preview_html(draw(self.picture), str(self))


def preview(plan: Plan, at: Triple | None = None, shape: Triple | None = None, round: int | None = None) -> Preview:
    """Compute a part of the image; see `Simulation.preview` for the parameters."""
    place = _inside(plan, None if at is None else whole_numbers("at", at))
    if shape is not None:
        shape = whole_numbers("shape", shape)
    box = box_of(plan, place) if shape is None else _box_around(plan, place, shape)
    frame = _known_frame(plan, round)
    source = plan.simulation.source.open()
    counted = counted_in_memory(plan, source, box)
    found = excerpt(plan, source, counted, box, frame)
    # label images that do not vary are computed with the first frame only
    labels = found if "labels/cells" in found else excerpt(plan, source, counted, box)
    return Preview(plan, box, place, found[""], labels["labels/cells"], frame)


def _inside(plan: Plan, at: Triple | None) -> Triple:
    """Return a pixel of the image; by default the middle one."""
    place = at if at is not None else triple(n // 2 for n in plan.shape)
    if not all(0 <= a < n for a, n in zip(place, plan.shape, strict=True)):
        raise SpecError(
            f"the pixel {' '.join(map(str, place))} is outside the image, which has {times(plan.shape)} pixels "
            "(z y x), counted from 0; name one inside"
        )
    return place


def _known_frame(plan: Plan, round: int | None) -> Frame:
    first = plan.frames[0]
    if round is None:
        return first
    rounds = plan.acquisition.length("round")
    if not 1 <= whole_number("round", round, 0) <= rounds:
        known = f"the rounds 1 to {rounds}" if rounds else "one image and no rounds"
        raise SpecError(f"there is no round {round}: the plan has {known}; leave the round out, or name another")
    return first._replace(round=round)


def _box_around(plan: Plan, at: Triple, shape: Triple) -> Box:
    """Return a box of this shape around a pixel, shifted or clipped at the image's ends."""
    if min(shape) < 1:
        raise SpecError(f"a preview of {times(shape)} pixels is empty; give at least 1 along each of z, y, x")
    size = triple(min(n, s) for n, s in zip(plan.shape, shape, strict=True))
    start = triple(min(max(0, a - s // 2), n - s) for a, s, n in zip(at, size, plan.shape, strict=True))
    return Box.at(start, size)


def box_of(plan: Plan, at: Triple) -> Box:
    """Return the default box: planes of the tile that holds a pixel, and of its neighbours if tiles are small.

    Any part of a tile costs all of its rows and columns.
    """
    around = _box_around(plan, at, USUAL)
    (y0, y1), (x0, x1) = (_tiles_around(plan, axis, at[axis]) for axis in (1, 2))
    return Box((around.start[0], y0, x0), (around.stop[0], y1, x1))


def _tiles_around(plan: Plan, axis: int, pixel: int) -> tuple[int, int]:
    """Return start and stop, along one axis, of as many tiles around a pixel as `USUAL` allows."""
    low, high = _tile_along(plan, axis, pixel)
    while True:
        wider = [(_tile_along(plan, axis, low - 1)[0], high)] if low > 0 else []
        wider += [(low, _tile_along(plan, axis, high)[1])] if high < plan.shape[axis] else []
        fitting = [(a, b) for a, b in wider if b - a <= USUAL[axis]]
        if not fitting:
            return low, high
        low, high = min(fitting, key=lambda ends: abs(ends[0] + ends[1] - 2 * pixel))


def _tile_along(plan: Plan, axis: int, pixel: int) -> tuple[int, int]:
    """Return start and stop, along one axis, of the tile that holds a pixel."""
    block = pixel // plan.block[axis] * plan.block[axis]
    start = block + (pixel - block) // plan.tile[axis] * plan.tile[axis]
    return start, min(start + plan.tile[axis], block + plan.block[axis], plan.shape[axis])
