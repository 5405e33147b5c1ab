"""Score localisations, paired with the truth frame by frame like the SMLM challenge (Sage et al., Nat. Methods 16, 387, 2019)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
from numpy.typing import NDArray
from pydantic import Field

from simexm.analysis.contract import Analysis, Bench, Conclusion, Score
from simexm.analysis.localisation.pictures import Halves
from simexm.analysis.localisation.tables import LocalisationTable
from simexm.analysis.localisation.tally import Tally
from simexm.analysis.stored_table import StoredTable, hashes
from simexm.errors import OutputError
from simexm.jobs.keyed_rows import Keyed, MergedRows
from simexm.sources.localisations import Dialects

ROWS, MATCHES = "rows", "matches"
FOUND, TRUTH = 0, 1
NEEDED = ("time", "y_nm", "x_nm", "photons")
VALUES = ("z_nm", "y_nm", "x_nm", "photons", "z_precision_nm", "y_precision_nm", "x_precision_nm")
_KEYED = Keyed(("time", "side", "row"), dict.fromkeys(VALUES, "max"))
_COPIES = 12
Columns = dict[str, NDArray[Any]]


class LocalisationScore(Analysis):
    """Score localisations (first input) against the emitters that were on (second): how many were found, and how well.

    Both are tables with the columns time (frame, from 0), y_nm, x_nm, photons and, if known, z_nm: results, Parquet or CSV. In
    each frame as many pairs as possible are made, and of these choices that of the least total distance. It writes the table
    `matches`.

    Attributes
    ----------
    lateral_nm, axial_nm
        Largest distances of a pair.
    least_photons
        Emitters with fewer photons in a frame do not count: neither they nor what was found there is right or wrong.
    axial
        Whether z is compared. Default: where both tables have it.
    dialect
        Program that wrote the first table: thunderstorm, picasso, smlm-challenge or smap. Default: the only one
        that the file can be of.
    table_pixel_nm
        Side of a pixel, for dialects that count from the first pixel's centre and do not state it.
    frc_pixel_nm
        Of the pictures for the Fourier ring correlation, whose halves are alternating parts of the movie.
    frc_parts
        Number of these parts.
    """

    analysis: Literal["localisation_score"] = "localisation_score"
    lateral_nm: float = Field(default=250.0, gt=0)
    axial_nm: float = Field(default=500.0, gt=0)
    least_photons: float = Field(default=0.0, ge=0)
    axial: bool | None = None
    dialect: Dialects | None = None
    table_pixel_nm: float | None = Field(default=None, gt=0, le=1e5)
    frc_pixel_nm: float = Field(default=10.0, gt=0)
    frc_parts: int = Field(default=20, ge=2, le=10_000)

    def opened(self, inputs: Sequence[Any]) -> tuple[Any, ...]:
        """Open both tables."""
        if len(inputs) != 2:
            raise OutputError(
                f"localisations are compared in two tables, not {len(inputs)}; name those found, then the true ones"
            )
        found, truth = inputs
        chosen = (self.dialect, self.table_pixel_nm)
        return LocalisationTable.opened(found, NEEDED, *chosen), LocalisationTable.opened(truth, NEEDED)

    def open(self, inputs: tuple[StoredTable, ...]) -> Bench:
        """Check that there is a truth."""
        if not inputs[1].rows:
            raise OutputError(f"{inputs[1].path} holds no emitter, so nothing could be found; name the truth second")
        return _ScoreBench(self, *inputs)


class _ScoreBench(Bench):
    """Both tables, piece by piece."""

    def __init__(self, settings: LocalisationScore, found: StoredTable, truth: StoredTable) -> None:
        self.settings, self.tables = settings, (found, truth)
        has_z = [_has_z(table) for table in self.tables]
        if settings.axial and not all(has_z):
            raise OutputError(
                f"{self.tables[has_z.index(False)].path} has no z_nm, so nothing can be compared along z; leave axial out"
            )
        self.axial = all(has_z) if settings.axial is None else settings.axial
        self.keyed = {ROWS: _KEYED}
        self.inputs = hashes({"found": found, "truth": truth})
        self.blocks, self.voxels = found.pieces + truth.pieces, found.rows + truth.rows
        self.core_seconds = 1e-5 * self.voxels
        self.block_bytes = max(_COPIES * 8 * len(t.columns) * t.largest_piece for t in self.tables) + (1 << 20)

    def measure(self, number: int) -> Mapping[str, Any]:
        """Bring one piece of a table into order."""
        side = FOUND if number < self.tables[0].pieces else TRUTH
        own = number - side * self.tables[0].pieces
        piece = self.tables[side].piece(own)
        n = len(piece["time"])
        time = piece["time"].astype(np.int64)
        if n and time.min() < 0:
            raise OutputError(f"{self.tables[side].path} has the frame {time.min()}; frames are counted from 0")
        found: Columns = {
            "time": time.astype(np.uint64),
            "side": np.full(n, side, np.uint64),
            "row": (np.uint64(own) << np.uint64(32)) + np.arange(n, dtype=np.uint64),
        }
        for name in VALUES:
            values = np.asarray(piece[name], np.float64) if name in piece else np.full(n, np.nan)
            if name in ("y_nm", "x_nm", "photons") and not np.isfinite(values).all():
                raise OutputError(
                    f"{self.tables[side].path} holds values of {name} that are not finite, which have no distance; remove them"
                )
            found[name] = np.ascontiguousarray(values).view(np.int64)
        return {ROWS: found}

    def conclude(self, sums: Mapping[str, Any]) -> Conclusion:
        """Pair frame by frame, and correlate the halves of both pictures."""
        rows: MergedRows = sums[ROWS]
        tally = Tally(self.settings.least_photons, self.axial, self.settings.lateral_nm, self.settings.axial_nm)
        low, high = np.full(2, np.inf), np.full(2, -np.inf)
        last = 0
        for frame in _frames(rows):
            tally.add(frame["side"] == TRUTH, frame, self._pairs(frame))
            places = np.stack([frame["y_nm"], frame["x_nm"]])
            low, high = np.minimum(low, places.min(axis=1)), np.maximum(high, places.max(axis=1))
            last = int(frame["time"][0])
        frc = list(self._frc(rows, low, high, last + 1))
        return Conclusion({MATCHES: self._table(rows)}, (*tally.scores(), *frc))

    def _frc(self, rows: MergedRows, low: NDArray[Any], high: NDArray[Any], frames: int) -> Iterator[Score]:
        s = self.settings
        halves = [Halves(low, high, s.frc_pixel_nm, frames, s.frc_parts) for _ in range(2)]
        for piece in rows:
            values = _values(piece)
            for side, one in enumerate(halves):
                some = piece["side"] == side
                one.add({"time": piece["time"][some], **{n: values[n][some] for n in ("y_nm", "x_nm")}})
        what = (
            f"resolution where the Fourier ring correlation of histograms ({halves[0].pixel_nm:g} nm) of alternating parts of "
            f"the movie ({s.frc_parts}) falls below 1/7"
        )
        for name, one in zip(("found", "truth"), halves, strict=True):
            yield Score("frc", one.resolution_nm(), "nm", what, name)

    def _pairs(self, frame: Columns) -> NDArray[np.int64]:
        """Rows of found and true ones that are paired, (n, 2)."""
        found, truth = np.flatnonzero(frame["side"] == FOUND), np.flatnonzero(frame["side"] == TRUTH)
        if not found.size or not truth.size:
            return np.empty((0, 2), np.int64)
        from scipy.optimize import linear_sum_assignment

        apart = {a: frame[f"{a}_nm"][found][:, None] - frame[f"{a}_nm"][truth] for a in "zyx"}
        lateral = np.hypot(apart["y"], apart["x"])
        allowed, cost = lateral <= self.settings.lateral_nm, lateral
        if self.axial:
            allowed, cost = allowed & (np.abs(apart["z"]) <= self.settings.axial_nm), np.hypot(lateral, apart["z"])
        if not allowed.any():
            return np.empty((0, 2), np.int64)
        never = (cost[allowed].max() + 1) * (min(cost.shape) + 1)  # more than all pairs together
        rows, columns = linear_sum_assignment(np.where(allowed, cost, never))
        real = allowed[rows, columns]
        return np.column_stack([found[rows[real]], truth[columns[real]]])

    def _table(self, rows: MergedRows) -> Iterator[pa.Table]:
        """Rows of pairs: numbers of the rows in both tables, and found less true."""
        held: list[Columns] = []
        for frame in _frames(rows):
            pairs = self._pairs(frame)
            one, other = pairs[:, 0], pairs[:, 1]
            held.append(
                {
                    "time": frame["time"][one].astype(np.int64),
                    "found": frame["row"][one],
                    "truth": frame["row"][other],
                    **{f"d{a}_nm": frame[f"{a}_nm"][one] - frame[f"{a}_nm"][other] for a in "zyx"},
                    "photons": frame["photons"][one].astype(np.float32),
                    "true_photons": frame["photons"][other].astype(np.float32),
                }
            )
            if len(held) == 10_000:
                yield _joined(held)
                held = []
        if held:
            yield _joined(held)


def _joined(parts: Sequence[Columns]) -> pa.Table:
    return pa.table({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})


def _has_z(table: StoredTable) -> bool:
    """Whether a table says the z of its first rows."""
    if "z_nm" not in table.columns:
        return False
    first = next((piece["z_nm"] for piece in table if len(piece["z_nm"])), np.zeros(0))
    return bool(np.isfinite(np.asarray(first, np.float64)).any())


def _values(piece: Mapping[str, NDArray[Any]]) -> Columns:
    return {name: np.ascontiguousarray(piece[name]).view(np.float64) for name in VALUES}


def _frames(rows: MergedRows) -> Iterator[Columns]:
    """Yield the rows of each frame."""
    held: Columns = {}
    for piece in rows:
        new: Columns = {"time": piece["time"], "side": piece["side"], "row": piece["row"], **_values(piece)}
        joined = new if not held else {name: np.concatenate([held[name], new[name]]) for name in new}
        borders = np.concatenate([[0], np.flatnonzero(np.diff(joined["time"])) + 1])
        for begin, end in pairwise(borders):
            yield {name: column[begin:end] for name, column in joined.items()}
        held = {name: column[borders[-1] :] for name, column in joined.items()}
    if held and held["time"].size:
        yield held
