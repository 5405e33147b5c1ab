"""Link the localisations of an emitter in consecutive frames, frame by frame in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Columns = Mapping[str, NDArray[Any]]
_TRACK = ("event", "first", "last", "count", "photons", "background", "y", "x", "z", "weight_y", "weight_x", "weight_z")
_ROW = {name: n for n, name in enumerate(_TRACK)}


class Linker:
    """Events: localisations within a radius of the one before, at most a few frames later.

    Of a frame, the nearest pairs are linked first. Places of an event are means weighted by the inverse variance.
    """

    def __init__(self, radius_nm: float, gap_frames: int) -> None:
        self.radius_nm, self.gap = radius_nm, gap_frames
        self._open = np.zeros((0, len(_TRACK)))
        self._last = np.zeros((0, 2))
        self.events = 0

    def add(self, piece: Columns) -> Iterator[tuple[NDArray[np.int64], Array]]:
        """Yield the events of each frame's localisations (n,), and the events that are over, (k, columns)."""
        borders = np.concatenate([[0], np.flatnonzero(np.diff(piece["time"])) + 1, [len(piece["time"])]])
        for begin, end in zip(borders[:-1].tolist(), borders[1:].tolist(), strict=True):
            if end > begin:
                yield self._frame({name: column[begin:end] for name, column in piece.items()})

    def end(self) -> Array:
        """Return the events that are still open."""
        return self._open

    def _frame(self, rows: Columns) -> tuple[NDArray[np.int64], Array]:
        time = int(rows["time"][0])
        over = time - self._open[:, _ROW["last"]] > self.gap + 1
        closed, self._open, self._last = self._open[over], self._open[~over], self._last[~over]
        place = np.column_stack([rows["y_nm"], rows["x_nm"]]).astype(np.float64)
        n = len(place)
        track = np.full(n, -1)
        if len(self._open):
            for one, other in _pairs(self._last, place, self.radius_nm):
                track[other] = one
        new = track < 0
        count = int(new.sum())
        fresh = np.zeros((count, len(_TRACK)))
        fresh[:, 0] = self.events + np.arange(count)
        fresh[:, 1] = time
        track[new] = len(self._open) + np.arange(count)
        self.events += count
        self._open = np.concatenate([self._open, fresh])
        self._last = np.concatenate([self._last, place[new]])
        self._last[track] = place
        self._sum(track, rows, time)
        return self._open[track, 0].astype(np.int64), closed

    def _sum(self, track: NDArray[np.int64], rows: Columns, time: int) -> None:
        held = self._open
        held[track, _ROW["last"]] = time
        held[track, _ROW["count"]] += 1
        for name in ("photons", "background"):
            held[track, _ROW[name]] += rows[name]
        for axis in "yxz":
            weight = np.nan_to_num(1.0 / rows[f"{axis}_precision_nm"].astype(np.float64) ** 2)
            held[track, _ROW[f"weight_{axis}"]] += weight
            held[track, _ROW[axis]] += weight * np.nan_to_num(rows[f"{axis}_nm"])


def event_columns(tracks: Array) -> dict[str, NDArray[Any]]:
    """Columns of the table of events: `time` is the first frame, and `frames` the number in which it was found."""
    at = {name: tracks[:, n] for n, name in enumerate(_TRACK)}
    found: dict[str, NDArray[Any]] = {
        "time": at["first"].astype(np.int64),
        "event": at["event"].astype(np.int64),
        "last_time": at["last"].astype(np.int64),
        "frames": at["count"].astype(np.int64),
    }
    with np.errstate(divide="ignore", invalid="ignore"):
        for axis in "zyx":
            weight = at[f"weight_{axis}"]
            found[f"{axis}_nm"] = np.where(weight > 0, at[axis] / weight, np.nan)
            found[f"{axis}_precision_nm"] = np.where(weight > 0, 1.0 / np.sqrt(weight), np.nan).astype(np.float32)
    found["photons"] = at["photons"].astype(np.float32)
    found["background"] = (at["background"] / np.maximum(at["count"], 1)).astype(np.float32)
    return found


def _pairs(one: Array, other: Array, radius: float) -> list[tuple[int, int]]:
    """Pairs within a radius, the nearest first, each place in at most one."""
    from scipy.spatial import cKDTree

    near = cKDTree(one).sparse_distance_matrix(cKDTree(other), radius, output_type="coo_matrix")
    order = np.lexsort((near.col, near.row, near.data))
    taken, used = set[int](), set[int]()
    found = []
    for a, b in zip(near.row[order].tolist(), near.col[order].tolist(), strict=True):
        if a not in taken and b not in used:
            taken.add(a)
            used.add(b)
            found.append((a, b))
    return found
