"""The truth of a simulated movie: footprints and shifts from its tables, activity from its series."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from simexm.analysis.traces import minian_folder, readers
from simexm.analysis.traces.extraction import Extraction, from_pixels
from simexm.errors import NoResultError, OutputError
from simexm.result.result import Result, elements
from simexm.store.location import Location, location, zarr_store

FOOTPRINTS, SHIFTS, UNITS, ACTIVITY = "footprints", "shifts", "units", "activity"
_COLUMNS = {FOOTPRINTS: ("unit", "y", "x", "weight"), SHIFTS: ("time", "y_um", "x_um"), UNITS: ("unit", "snr")}


class Movie:
    """A simulated movie with its truth; it is opened again wherever it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.result = Result.open(path)
        self.result.require_complete()

    def __reduce__(self) -> tuple[type[Movie], tuple[str]]:
        return Movie, (self.path,)

    @property
    def places(self) -> list[Location]:
        """Its folders."""
        return self.result.places

    @property
    def identity(self) -> str:
        """Hash of the result."""
        return str(self.result.provenance["hash"])

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        rows, columns = self.result.array().shape[-2:]
        return int(rows), int(columns)

    @property
    def frames(self) -> int:
        """Number of frames."""
        return self.result.acquisition.length("time")

    def refuse_what_has_no_truth(self) -> None:
        """Raise OutputError unless it is a movie with footprints and activity."""
        if not self.frames:
            raise OutputError(f"{self.path} has no time axis, so nothing was active in it; name a movie as the truth")
        if FOOTPRINTS not in self.result.tables or not (self.result.path / ACTIVITY / "zarr.json").is_file():
            raise OutputError(
                f"{self.path} holds no table of footprints with the series of their activity, to which nothing could be "
                "compared; film it with the stages activity and miniscope of this version"
            )

    @cached_property
    def ids(self) -> NDArray[np.int64]:
        """Ids of the units that have a footprint, ascending."""
        return np.unique(self._table(FOOTPRINTS)["unit"])

    @cached_property
    def extraction(self) -> Extraction:
        """The truth, as if it had been found: planted footprints, brightness, spikes, and shifts."""
        table = self._table(FOOTPRINTS)
        unit = np.searchsorted(self.ids, table["unit"])
        footprints = from_pixels(unit, table["y"], table["x"], table["weight"], self.ids.size, self.shape)
        return Extraction(
            self.path, self.shape, footprints, self.series("brightness"), self.series("spikes"), self.shifts_px
        )

    @property
    def shifts_px(self) -> NDArray[np.float64] | None:
        """Shift of each frame along y and x, pixels; None without the table."""
        if SHIFTS not in self.result.tables:
            return None
        table = self._table(SHIFTS)
        order = np.argsort(table["time"], kind="stable")
        _, y, x = self.result.pixel_um()
        return np.stack([table["y_um"][order] / y, table["x_um"][order] / x], axis=1)

    def series(self, name: str) -> NDArray[np.float64]:
        """Return a series of the activity, (unit, frame), in the order of `ids`."""
        group = zarr.open_group(zarr_store(self.result.path), path=ACTIVITY, mode="r")
        known, stored = np.asarray(group["id"]).astype(np.int64), group[name]
        assert isinstance(stored, zarr.Array)
        at = np.searchsorted(known, self.ids)
        if (at >= known.size).any() or (known[np.minimum(at, known.size - 1)] != self.ids).any():
            raise OutputError(f"{self.path} holds footprints of units that have no activity; simulate it again")
        return elements(stored, slice(None))[at].astype(np.float64)

    def cell(self, column: str) -> NDArray[np.float64] | None:
        """Return a column of the table of cells, in the order of `ids`; None if there is none."""
        table = self.result.cells()
        if column not in table.column_names:
            return None
        known = np.asarray(table["id"].to_numpy(), np.int64)
        order = np.argsort(known, kind="stable")
        return np.asarray(table[column].to_numpy(), np.float64)[order[np.searchsorted(known[order], self.ids)]]

    def snr(self) -> NDArray[np.float64]:
        """Return the signal over noise of each unit, in the order of `ids`; see the table `units`."""
        table = self._table(UNITS)
        order = np.argsort(table["unit"], kind="stable")
        known = table["unit"][order]
        at = np.minimum(np.searchsorted(known, self.ids), max(0, known.size - 1))
        if not known.size or (known[at] != self.ids).any():
            raise OutputError(
                f"{self.path} holds footprints of cells that its table of units does not list; simulate it again"
            )
        return np.asarray(table["snr"][order][at], np.float64)

    def _table(self, name: str) -> dict[str, NDArray[Any]]:
        table = self.result.table(name)
        if missing := [column for column in _COLUMNS[name] if column not in table.column_names]:
            raise OutputError(f"the table {name} of {self.path} has no column {missing[0]}; simulate it again")
        return {column: np.asarray(table[column].to_numpy()) for column in _COLUMNS[name]}


class Found:
    """What a program found, of any format that is known; or the truth of a movie itself."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[type[Found], tuple[str]]:
        return Found, (self.path,)

    @property
    def places(self) -> list[Location]:
        """Where it is stored."""
        return [location(self.path)]

    @cached_property
    def movie(self) -> Movie | None:
        """The movie, if it is one."""
        folder = Path(self.path)
        if not self.path.rstrip("/").endswith(".zarr") or minian_folder.is_one(folder):
            return None
        try:
            return Movie(self.path)
        except NoResultError:
            return None

    @cached_property
    def extraction(self) -> Extraction:
        """What was found."""
        if self.movie is not None:
            self.movie.refuse_what_has_no_truth()
            return self.movie.extraction
        return readers.read(Path(self.path))

    @cached_property
    def identity(self) -> str:
        """Hash of the names and bytes of its files."""
        if self.movie is not None:
            return self.movie.identity
        root = Path(self.path)
        files = sorted(p for p in root.rglob("*") if p.is_file()) if root.is_dir() else [root]
        total = hashlib.blake2b(digest_size=16)
        for file in files:
            with file.open("rb") as stream:
                total.update(str(file.relative_to(root)).encode() + hashlib.file_digest(stream, "blake2b").digest())
        return total.hexdigest()
