"""Frames: the axes (round, session, tile, view, time) along which a specimen is imaged more than once."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

AxisName = Literal["round", "session", "tile", "view", "time"]


class Frame(NamedTuple):
    """One frame: its position along each axis, from 1; 0 where the acquisition lacks the axis."""

    round: int = 0
    session: int = 0
    tile: int = 0
    view: int = 0
    time: int = 0

    @property
    def group(self) -> str:
        """Zarr group of the frame's image, such as `round_02`; "" (the root) if time is the only axis."""
        return "_".join(f"{axis}_{place:02d}" for axis, place in self.named if axis != "time")

    @property
    def named(self) -> list[tuple[str, int]]:
        """(axis, position) of the axes that the acquisition has."""
        return [(axis, place) for axis, place in zip(self._fields, self, strict=True) if place]

    @property
    def key(self) -> tuple[str | int, ...]:
        """Parts of a random key that are unique to the frame; empty if the specimen is imaged once."""
        return tuple(itertools.chain.from_iterable(self.named))

    def along(self, axes: Collection[str]) -> Frame:
        """The frame at the same position along `axes` and at position 1 along all others."""
        places = {axis: place if axis in axes else 1 for axis, place in self.named}
        return Frame(**places)


AXES: tuple[str, ...] = Frame._fields
NO_FRAME = Frame()
"""The only frame of a specimen imaged once; also stands for whatever all frames share."""


@dataclass(frozen=True)
class FrameAxis:
    """One axis of an acquisition."""

    name: AxisName
    coordinates: tuple[float, ...]
    """One for each position, in order: times, angles, or plain numbers."""
    unit: str = ""
    """Unit of the coordinates as OME-Zarr spells it (`second`); "" for plain numbers."""

    def __post_init__(self) -> None:
        if self.name not in AXES or not self.coordinates:
            raise ValueError(
                f"frame axis {self.name!r} with {len(self.coordinates)} positions: the name must be one of "
                f"{', '.join(AXES)}, with at least one position"
            )


@dataclass(frozen=True)
class Acquisition:
    """All frames of a run. Time is an array axis; each position along the other axes is a Zarr group.

    `axes` are in the order of `AXES`, and empty if the specimen is imaged once.
    """

    axes: tuple[FrameAxis, ...] = ()

    @classmethod
    def of(cls, axes: Iterable[FrameAxis]) -> Acquisition:
        """Sort the axes into the order of `AXES`."""
        return cls(tuple(sorted(axes, key=lambda axis: AXES.index(axis.name))))

    @classmethod
    def from_mapping(cls, data: Iterable[Any]) -> Acquisition:
        """Inverse of `to_mapping`."""
        return cls(tuple(FrameAxis(a["axis"], tuple(a["coordinates"]), a["unit"]) for a in data))

    def to_mapping(self) -> list[dict[str, Any]]:
        """Plain data for JSON."""
        return [{"axis": a.name, "coordinates": list(a.coordinates), "unit": a.unit} for a in self.axes]

    @property
    def names(self) -> frozenset[str]:
        """Names of the axes."""
        return frozenset(axis.name for axis in self.axes)

    def length(self, name: str) -> int:
        """Number of positions along an axis; 0 if the acquisition lacks it."""
        return next((len(axis.coordinates) for axis in self.axes if axis.name == name), 0)

    def frames(self, along: Collection[str] = AXES) -> list[Frame]:
        """All frames, time fastest; axes not in `along` stay at position 1."""
        places = [range(1, (len(axis.coordinates) if axis.name in along else 1) + 1) for axis in self.axes]
        names = [axis.name for axis in self.axes]
        return [Frame(**dict(zip(names, place, strict=True))) for place in itertools.product(*places)]

    @property
    def groups(self) -> list[str]:
        """Zarr groups of the images, in order; empty if the only image is the root."""
        found = [frame.group for frame in self.frames(AXES[:-1])]
        return found if found != [""] else []

    @property
    def time(self) -> FrameAxis | None:
        """The time axis, if any."""
        return next((axis for axis in self.axes if axis.name == "time"), None)


IMAGED_ONCE = Acquisition()
