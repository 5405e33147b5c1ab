"""Recorded or simulated spike trains, to be played by the cells of a specimen."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from simexm.errors import SpecError
from simexm.settings import Frozen

_COLUMNS = ("cell", "time_s")


class SpikeTrains(Frozen):
    """Spikes in a Parquet file: a row for each spike, with the columns `cell` (id) and `time_s` (from the first frame on).

    Attributes
    ----------
    path
        The file. A relative path begins at the working directory.
    digest
        Checksum of the spikes; filled in by the plan.
    """

    path: Path
    digest: str | None = Field(default=None, pattern=r"^[0-9a-f]{32}$")

    def resolved(self) -> Self:
        """Return a copy with an absolute path and the checksum; raises SpecError if the file holds no such spikes."""
        cells, times = self._read()
        found = hashlib.blake2b(
            cells.astype("<u8").tobytes() + times.astype("<f8").tobytes(), digest_size=16
        ).hexdigest()
        if self.digest not in (None, found):
            raise SpecError(
                f"activity.spikes: {self.path} has the digest {found[:12]}, not {str(self.digest)[:12]}, so cells would spike at "
                "other times; restore the file, or leave the digest out"
            )
        return self.model_copy(update={"path": self.path.expanduser().absolute(), "digest": found})

    def counts(self, ids: NDArray[np.uint64], frame_s: float, frames: int) -> NDArray[np.int64]:
        """Return the spikes of some cells in each frame, (cells, frames); those outside the movie are left out."""
        cells, times = self._read()
        order = np.argsort(ids)
        place = np.searchsorted(ids, cells, sorter=order)
        frame = np.floor(times / frame_s).astype(np.int64)
        inside = (place < ids.size) & (frame >= 0) & (frame < frames)
        rows = order[np.minimum(place, ids.size - 1)]
        inside &= ids[rows] == cells
        out = np.zeros((ids.size, frames), np.int64)
        np.add.at(out, (rows[inside], frame[inside]), 1)
        return out

    def _read(self) -> tuple[NDArray[np.uint64], NDArray[np.float64]]:
        import pyarrow.parquet as pq  # type: ignore[import-untyped] # loads large libraries

        try:
            with pq.ParquetFile(self.path.expanduser()) as file:
                missing = [name for name in _COLUMNS if name not in file.schema_arrow.names]
                if missing:
                    raise SpecError(
                        f"activity.spikes: {self.path} has no column {' and '.join(missing)}, so it is unknown which cell spikes "
                        "when; write one row for each spike, with cell (id) and time_s"
                    )
                table = file.read(list(_COLUMNS))
            cells, times = (table[name].to_numpy() for name in _COLUMNS)
            found = cells.astype(np.uint64), times.astype(np.float64)
        except SpecError:
            raise
        except (OSError, ValueError, TypeError) as error:
            raise SpecError(
                f"activity.spikes: {self.path} cannot be read ({error}), so no cell would spike; name a Parquet file with the "
                "columns cell and time_s"
            ) from error
        if not np.isfinite(found[1]).all():
            raise SpecError(
                f"activity.spikes: {self.path} holds times that are no numbers, so their frame is unknown; remove these rows"
            )
        return found
