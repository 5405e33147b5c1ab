"""Tables of localisations as inputs: of results, of Parquet and CSV files, and in the dialects of other programs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from simexm.analysis.stored_table import Columns, StoredTable
from simexm.result.result import Result
from simexm.sources.localisations import is_own, read_localisations
from simexm.store.location import is_url

NAME = "localisations"


class LocalisationTable(StoredTable):
    """A table of localisations; `precision_nm` of other programs is that along y and x.

    Parameters
    ----------
    path
        A result, NAME.zarr, or a file.
    needed
        Columns that it must have.
    dialect
        One of `simexm.sources.localisations.DIALECTS`; by default the only one that the file can be.
    pixel_nm
        Side of a pixel, for dialects that count from the first pixel's centre and do not state it.
    """

    def __init__(
        self, path: str, needed: Sequence[str], dialect: str | None = None, pixel_nm: float | None = None
    ) -> None:
        self._dialect, self._pixel_nm = dialect, pixel_nm
        super().__init__(path, NAME, needed)
        self._arguments: Any = (path, tuple(needed), dialect, pixel_nm)

    def __reduce__(self) -> tuple[type[StoredTable], tuple[Any, ...]]:
        return LocalisationTable, self._arguments

    @classmethod
    def opened(
        cls, one: Any, needed: Sequence[str], dialect: str | None = None, pixel_nm: float | None = None
    ) -> StoredTable:
        """Open a path, URL or result."""
        if isinstance(one, StoredTable):
            return one
        path = str(one.path if isinstance(one, Result) else one)
        return cls(path if is_url(path) else str(Path(path).expanduser().absolute()), needed, dialect, pixel_nm)

    @cached_property
    def _whole(self) -> Columns | None:
        if self._dialect is None and (is_url(self.path) or is_own(Path(self.path))):
            return super()._whole
        found = read_localisations(self.path, self._dialect, pixel_nm=self._pixel_nm)
        for axis in "yx":
            if "precision_nm" in found:
                found.setdefault(f"{axis}_precision_nm", found["precision_nm"])
        return found
