"""Movies of frames as inputs: any stack of images, or a result of a simulation."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from simexm.analysis.result_image import channel_number
from simexm.errors import OutputError, SpecError
from simexm.geometry.grid import Box, triple
from simexm.result.place import MARK, SIMULATION
from simexm.result.result import Result, elements
from simexm.sources.identity import digest_of
from simexm.sources.opening import open_stack
from simexm.sources.stack import at_time, times_of
from simexm.store.location import Location, is_url, location

if TYPE_CHECKING:
    from simexm.planning.plan import Plan

Frames = NDArray[np.float32]


class Movie:
    """Frames (t, y, x) of counts; opened again wherever it is unpickled.

    Attributes
    ----------
    path
        Where it is stored.
    shape
        Frames, rows, columns.
    pixel_nm
        Side of a pixel of tissue, None if unknown.
    plane_nm
        Depth of the plane below the image's corner.
    result
        The simulation that it is a result of, if it is.
    """

    def __init__(self, path: str, dataset: str | None = None, channel: str | None = None) -> None:
        self._arguments = (path, dataset, channel)
        self.path = path
        self.result = None if dataset is not None else _simulation(path)
        self.number = 0
        read = self._of_result(channel) if self.result is not None else self._of_stack(dataset, channel)
        self._read: Callable[[int, int], NDArray[Any]] = read

    def __reduce__(self) -> tuple[type[Movie], tuple[Any, ...]]:
        return Movie, self._arguments

    @property
    def places(self) -> list[Location]:
        """Where it is stored, which the output must not be."""
        place = location(self.path) if is_url(self.path) else Path(self.path).expanduser().resolve()
        return [place, place.with_suffix(".run")] if place.suffix == ".zarr" else [place]

    def _of_result(self, channel: str | None) -> Callable[[int, int], NDArray[Any]]:
        result = self.result
        assert result is not None
        result.require_complete()
        series = result.series()
        names = [c["label"] for c in result.channels]
        self.number = channel_number(channel, names, self.path)
        if series.shape[-3] != 1:
            raise OutputError(
                f"{self.path} holds {series.shape[-3]} planes, and localise reads frames of one plane; simulate a movie of one"
            )
        with_time = series.ndim == 5
        self.shape = triple((series.shape[0] if with_time else 1, *series.shape[-2:]))
        self.pixel_nm: float | None = result.pixel_um()[2] * 1000
        self.plane_nm = result.pixel_um()[0] * 1000 / 2
        self.identity = str(result.provenance["hash"])
        if with_time:
            return lambda a, b: elements(series, (slice(a, b), self.number, 0))
        return lambda a, b: elements(series, (self.number, 0))[None][a:b]

    def _of_stack(self, dataset: str | None, channel: str | None) -> Callable[[int, int], NDArray[Any]]:
        if channel is not None:
            raise OutputError(f"{self.path} is no simulation, so it has no channel {channel!r}; name its --dataset")
        stack = open_stack(self.path, dataset=dataset)
        times, (depth, height, width) = times_of(stack), stack.shape
        if times > 1 and depth > 1:
            raise SpecError(
                f"{stack.where} has {times} time points and {depth} planes, and localise reads frames of one plane; save the "
                "frames of one plane"
            )
        if stack.dtype.kind not in "uif":
            raise SpecError(f"{stack.where} holds {stack.dtype}, and frames hold counts; name another --dataset")
        self.shape = (max(times, depth), height, width)
        size = stack.voxel_size_nm
        if size is None and (found := getattr(stack, "pixels", lambda: None)()) is not None:
            size = found[0]
        self.pixel_nm = None if size is None or size[1] != size[2] else float(size[2])
        self.plane_nm = 0.0
        parts = np.linspace(0, self.shape[0] - 1, 16).astype(int)

        def read(a: int, b: int) -> NDArray[Any]:
            if times == 1:
                return stack.read(Box((a, 0, 0), (b, height, width)))
            plane = Box.of_shape((1, height, width))
            return np.concatenate([at_time(stack, t).read(plane) for t in range(a, b)])

        some = [read(int(t), int(t) + 1).tobytes() for t in sorted(set(parts.tolist()))]
        self.identity = digest_of(str(self.shape), str(stack.dtype), *(digest_of(one.hex()) for one in some))
        return read

    def read(self, start: int, stop: int) -> Frames:
        """Return the counts of some frames, (t, y, x)."""
        found: Frames = np.ascontiguousarray(self._read(start, stop), np.float32)
        return found

    @cached_property
    def plan(self) -> Plan:
        """The plan of the simulation."""
        assert self.result is not None
        return self.result.plan()


def _simulation(path: str) -> Result | None:
    """The result of a simulation at a path, if there is one."""
    if not path.rstrip("/").endswith(".zarr"):
        return None
    try:
        found = Result.open(path)
    except OutputError:
        return None
    if found.kind != SIMULATION or MARK not in found.attributes or "spec" not in found.provenance:
        return None
    return found
