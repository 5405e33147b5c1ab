"""Frames: how often, and along which axes, a specimen is imaged."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

AxisName = Literal["round", "session", "tile", "view", "time"]


class Frame(NamedTuple):
    """One taking of images: its place along each axis, from 1 on; 0 where the acquisition has no such axis."""

    round: int = 0
    session: int = 0
    tile: int = 0
    view: int = 0
    time: int = 0

    @property
    def group(self) -> str:
        """Zarr group of the frame's image below the result's root, such as `round_02`; "" where only time is an axis."""
        return "_".join(f"{axis}_{place:02d}" for axis, place in self.named if axis != "time")

    @property
    def named(self) -> list[tuple[str, int]]:
        """(axis, place) along the axes that there are."""
        return [(axis, place) for axis, place in zip(self._fields, self, strict=True) if place]

    @property
    def key(self) -> tuple[str | int, ...]:
        """Words that tell the random numbers of a frame from those of others; none where there is one frame."""
        return tuple(itertools.chain.from_iterable(self.named))

    def along(self, axes: Collection[str]) -> Frame:
        """The first of all frames that are at the same place along these axes."""
        places = {axis: place if axis in axes else 1 for axis, place in self.named}
        return Frame(**places)


AXES: tuple[str, ...] = Frame._fields
NO_FRAME = Frame()
"""Of a specimen that is imaged once, and of what all frames share."""


@dataclass(frozen=True)
class FrameAxis:
    """One axis of an acquisition.

    Attributes
    ----------
    name
        Which axis it is.
    coordinates
        Of its places, in order: times, angles, or plain numbers.
    unit
        Of the coordinates, as OME-Zarr spells it (`second`); "" for plain numbers.
    """

    name: AxisName
    coordinates: tuple[float, ...]
    unit: str = ""

    def __post_init__(self) -> None:
        if self.name not in AXES or not self.coordinates:
            raise ValueError(
                f"a frame axis {self.name!r} of {len(self.coordinates)} places is none; it is one of {', '.join(AXES)} and has "
                "at least one place"
            )


@dataclass(frozen=True)
class Acquisition:
    """All frames of a run. Time is an axis of the arrays; each place along the other axes has a group of its own.

    Attributes
    ----------
    axes
        In the order of `AXES`; none where a specimen is imaged once.
    """

    axes: tuple[FrameAxis, ...] = ()

    @classmethod
    def of(cls, axes: Iterable[FrameAxis]) -> Acquisition:
        """The acquisition along these axes, in their proper order."""
        return cls(tuple(sorted(axes, key=lambda axis: AXES.index(axis.name))))

    @classmethod
    def from_mapping(cls, data: Iterable[Any]) -> Acquisition:
        """The same from what `to_mapping` gave."""
        return cls(tuple(FrameAxis(a["axis"], tuple(a["coordinates"]), a["unit"]) for a in data))

    def to_mapping(self) -> list[dict[str, Any]]:
        """Plain data."""
        return [{"axis": a.name, "coordinates": list(a.coordinates), "unit": a.unit} for a in self.axes]

    @property
    def names(self) -> frozenset[str]:
        """Names of the axes."""
        return frozenset(axis.name for axis in self.axes)

    def length(self, name: str) -> int:
        """Places along an axis; 0 where there is no such axis."""
        return next((len(axis.coordinates) for axis in self.axes if axis.name == name), 0)

    def frames(self, along: Collection[str] = AXES) -> list[Frame]:
        """All frames, time running fastest; with `along`, only the first of those that differ along other axes."""
        places = [range(1, (len(axis.coordinates) if axis.name in along else 1) + 1) for axis in self.axes]
        names = [axis.name for axis in self.axes]
        return [Frame(**dict(zip(names, place, strict=True))) for place in itertools.product(*places)]

    @property
    def groups(self) -> list[str]:
        """Groups of the images, in order; none where the root is the only image."""
        found = [frame.group for frame in self.frames(AXES[:-1])]
        return found if found != [""] else []

    @property
    def time(self) -> FrameAxis | None:
        """The axis of time, where there is one."""
        return next((axis for axis in self.axes if axis.name == "time"), None)


IMAGED_ONCE = Acquisition()
