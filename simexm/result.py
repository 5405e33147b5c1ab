"""A finished result, for reading."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simexm.errors import OutputError
from simexm.store.place import Place

if TYPE_CHECKING:
    import dask.array
    import pyarrow
    import zarr


@dataclass(frozen=True)
class Result:
    """What a run wrote.

    Attributes
    ----------
    place
        Its folders.
    attributes
        Of the Zarr's root: `ome` and `simexm`.
    """

    place: Place
    attributes: dict[str, Any]

    @classmethod
    def open(cls, path: str | Path) -> Result:
        """Open a result, finished or not.

        Raises
        ------
        OutputError
            If there is none.
        """
        found = Place.where(Path(path))
        if found.mark() is None:
            there = "is no simexm result" if found.zarr.exists() else "does not exist"
            raise OutputError(f"{path} {there}; `simexm run SPEC --output NAME.zarr` makes one")
        return cls(found, json.loads((found.zarr / "zarr.json").read_text())["attributes"])

    @property
    def path(self) -> Path:
        """The folder NAME.zarr."""
        return self.place.zarr

    @property
    def provenance(self) -> dict[str, Any]:
        """Spec, seed, hash, versions and sums."""
        found: dict[str, Any] = self.attributes["simexm"]
        return found

    @property
    def complete(self) -> bool:
        """Whether every block and every level is there."""
        return bool(self.provenance.get("status") == "complete")

    @property
    def plan(self) -> dict[str, Any]:
        """The plan that the run followed, as plain data."""
        plan: dict[str, Any] = json.loads((self.place.run / "plan.json").read_text())
        return plan

    @property
    def channels(self) -> list[dict[str, Any]]:
        """Name, colour and display window of each channel."""
        channels: list[dict[str, Any]] = self.attributes["ome"]["omero"]["channels"]
        return channels

    @property
    def label_names(self) -> list[str]:
        """Names of the label images."""
        group = json.loads((self.path / "labels" / "zarr.json").read_text())["attributes"]
        names: list[str] = group["ome"]["labels"]
        return names

    def levels(self, of: str = "") -> int:
        """Number of levels of the image, or of what is stored below the root at `of`."""
        return len([p for p in (self.path / of).iterdir() if p.name.isdigit()])

    def array(self, level: int = 0, of: str = "") -> zarr.Array[Any]:
        """One level as a Zarr array: of the image, (c, z, y, x), or of `of`, such as "labels/cells", (z, y, x)."""
        import zarr

        name = f"{of}/{level}".lstrip("/")
        try:
            return zarr.open_array(self.path, path=name, mode="r")
        except FileNotFoundError:
            raise OutputError(
                f"{self.path} holds no array {name}; name another, or where files were lost make it again with "
                "`simexm run SPEC --overwrite`"
            ) from None

    def dask(self, level: int = 0, of: str = "") -> dask.array.Array:
        """One level as a Dask array, chunked by shards."""
        import dask.array

        stored = self.array(level, of)
        return dask.array.from_array(stored, chunks=stored.shards or stored.chunks)

    def cells(self) -> pyarrow.Table:
        """The table of cells."""
        import pyarrow.parquet

        return pyarrow.parquet.read_table(self.place.tables / "cells.parquet")

    def emitters(self) -> pyarrow.Table:
        """The table of emitters, where they were kept."""
        import pyarrow.parquet

        folder = self.place.tables / "emitters"
        if not folder.is_dir():
            raise OutputError(f"{self.path} holds no emitters; add `keep: [emitters]` to the spec")
        return pyarrow.parquet.read_table(folder)
