"""The image of a simulated result as a volume: one channel, and one round of imaging if there are several."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.analysis.grid import Grid
from simexm.analysis.volume import Volume
from simexm.errors import NoResultError, OutputError, SpecError
from simexm.geometry.grid import Box, Spacing, Triple, triple
from simexm.result.place import SIMULATION
from simexm.result.result import Result, elements
from simexm.sources.stack import PlanesByZ
from simexm.sources.state import FilesState
from simexm.store.location import Location

ROUND = re.compile(r"(?P<result>.+)/round_(?P<number>\d\d+)/?")
"""Path of a round of a result."""


class ChannelStack(PlanesByZ):
    """A channel of a result's image; obeys `simexm.sources.stack.Stack`."""

    def __init__(self, result: Result, channel: int) -> None:
        self._array, self._channel = result.array(), channel
        grid = Grid.of(result)
        self.where = f"{result.path} ({result.frame.group or 'image'}, channel {channel})"
        self.shape: Triple = grid.shape
        self.dtype: np.dtype[Any] = self._array.dtype.newbyteorder("=")
        self.grain: Triple = triple(self._array.chunks[-3:])
        self.voxel_size_nm: Spacing | None = grid.pixel_nm
        self.origin_nm: Spacing = grid.origin_nm

    def read(self, box: Box) -> NDArray[Any]:
        """Return the counts in a box, (z, y, x); raises OutputError if they cannot be decoded."""
        return np.ascontiguousarray(elements(self._array, (self._channel, *box.slices)), self.dtype)

    def state(self, box: Box) -> FilesState | None:
        """Return None: what a result holds is decided by its hash."""
        return None


class ImageVolume(Volume):
    """A channel of a result's image; of one round, if it has rounds. It is opened again wherever it is unpickled.

    Parameters
    ----------
    path
        The result.
    channel
        Name or number, from 0 on, of the channel; None for the only one.
    round_number
        The round, from 1 on; None for a result without rounds.
    alone
        Whether it is one of two volumes, not one of all rounds of a result.
    """

    def __init__(self, path: str, channel: str | None, round_number: int | None = None, alone: bool = True) -> None:
        self._reopened = (path, channel, round_number, alone)
        self.path, self.round_number, self.alone = path, round_number, alone
        result = Result.open(path)
        self._result = result if round_number is None else result.at(round=round_number)
        self._result.require_complete()
        self._channel = channel_number(channel, [str(c["label"]) for c in self._result.channels], path)
        self.stack = ChannelStack(self._result, self._channel)
        grid = Grid.of(self._result)
        self.voxel_nm, self.origin_nm = grid.pixel_nm, grid.origin_nm

    def __reduce__(self) -> tuple[type[Volume], tuple[Any, ...]]:
        return ImageVolume, self._reopened

    @property
    def places(self) -> list[Location]:
        """Where the result is stored."""
        return self._result.places

    @cached_property
    def identity(self) -> str:
        """The result's hash, the round and the channel, which decide every value."""
        return f"{self._result.provenance['hash']}/{self.round_number or ''}/{self._channel}"


def channel_number(channel: str | None, names: Sequence[str], path: str) -> int:
    """Number of a channel; raises SpecError if it is unknown or unclear."""
    if channel is None and len(names) == 1:
        return 0
    if channel in names:
        return names.index(channel)
    if channel is not None and channel.isdecimal() and int(channel) < len(names):
        return int(channel)
    fault = "has several channels, and one is read" if channel is None else f"has no channel {channel!r}"
    raise SpecError(f"{path} {fault}; give --channel with one of {', '.join(names)}, or channel in the settings")


def image_of(path: str, channel: str | None) -> ImageVolume | None:
    """The image of a simulated result without rounds, or of a round in it, as NAME.zarr/round_01; None if the path is none.

    Raises SpecError if the result has no such round, or has rounds and none is named.
    """
    found = ROUND.fullmatch(path)
    name, number = (path, None) if found is None else (found["result"], int(found["number"]))
    try:
        result = Result.open(name)
    except NoResultError:
        return None
    if result.kind != SIMULATION:
        return None
    if bool(result.rounds) != (number is not None) or (number or 0) > result.rounds or number == 0:
        held = (
            f"the rounds 1 to {result.rounds}; name one, as {name}/round_01"
            if result.rounds
            else f"no rounds; name {name}"
        )
        raise SpecError(f"{name} holds {held}")
    return ImageVolume(name, channel, number)


def rounds_of(path: str, channel: str | None) -> list[ImageVolume]:
    """All rounds of a result, the first one first; raises OutputError if it has fewer than two."""
    try:
        result = Result.open(path)
    except NoResultError:
        raise OutputError(
            f"{path} is no simexm result, and align reads two volumes, or a result with rounds; type: simexm align FIXED MOVING"
        ) from None
    if result.rounds < 2:
        raise OutputError(
            f"{path} holds {result.rounds or 'no'} rounds of imaging, and align needs two or more to compare; type: simexm align "
            "FIXED MOVING"
        )
    return [ImageVolume(path, channel, n, alone=False) for n in range(1, result.rounds + 1)]
