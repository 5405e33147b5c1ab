"""A finished result, for reading."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simexm.errors import OutputError
from simexm.store.location import Location, zarr_store
from simexm.store.place import COMPLETE, Place
from simexm.store.remote import Remote

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
        `simexm` of the Zarr's root, and `ome` of the image; of the round's, where there are rounds.
    round
        Which round's images are meant where none is named, from 1 on; 0 where there are no rounds.
    """

    place: Place
    attributes: dict[str, Any]
    round: int = 0

    @classmethod
    def open(cls, path: str | Path | Remote) -> Result:
        """Open a result, finished or not.

        Raises
        ------
        OutputError
            If there is none.
        """
        found = Place.where(path)
        if found.mark() is None:
            there = "is no simexm result" if found.zarr.exists() else "does not exist"
            raise OutputError(f"{path} {there}; `simexm run SPEC --output NAME.zarr` makes one")
        attributes = json.loads((found.zarr / "zarr.json").read_text())["attributes"]
        opened = cls(found, attributes)
        return opened.at_round(1) if opened.rounds else opened

    def at_round(self, number: int) -> Result:
        """The same result, for reading another round, from 1 on.

        Raises
        ------
        OutputError
            If there is no such round.
        """
        attributes = {"simexm": self.provenance}
        path = self.path / self.group(round=number) / "zarr.json"
        if path.is_file():
            attributes = {**json.loads(path.read_text())["attributes"], **attributes}
        return Result(self.place, attributes, number)

    @property
    def path(self) -> Location:
        """The folder NAME.zarr, on a disk or behind a URL."""
        return self.place.zarr

    @property
    def provenance(self) -> dict[str, Any]:
        """Spec, seed, hash, versions and sums."""
        found: dict[str, Any] = self.attributes["simexm"]
        return found

    @property
    def complete(self) -> bool:
        """Whether every block and every level is there."""
        return bool(self.provenance.get("status") == COMPLETE)

    @property
    def plan(self) -> dict[str, Any]:
        """The plan that the run followed, as plain data."""
        plan: dict[str, Any] = json.loads((self.place.run / "plan.json").read_text())
        return plan

    @property
    def rounds(self) -> int:
        """Rounds of imaging; 0 where there is one image."""
        return len(self.provenance.get("rounds", ()))

    def group(self, of: str = "", round: int | None = None) -> str:
        """Path below the root of an image, or of what belongs to it; of the round of this name, or that which is being read.

        Label images stand with the first round.

        Raises
        ------
        OutputError
            If there is no such round.
        """
        names = self.provenance.get("rounds", ())
        if not names:
            if round is not None:
                raise OutputError(f"{self.path} holds one image, not rounds; leave the round out")
            return of
        if round is not None and not 1 <= round <= len(names):
            raise OutputError(f"{self.path} has no round {round}; it has the rounds 1 to {len(names)}")
        shown = 1 if of.startswith("labels") else round or self.round or 1
        return f"{names[shown - 1]}/{of}".strip("/")

    @property
    def channels(self) -> list[dict[str, Any]]:
        """Name, colour and display window of each channel."""
        channels: list[dict[str, Any]] = self.attributes["ome"]["omero"]["channels"]
        return channels

    @property
    def label_names(self) -> list[str]:
        """Names of the label images."""
        group = json.loads((self.path / self.group("labels") / "zarr.json").read_text())["attributes"]
        names: list[str] = group["ome"]["labels"]
        return names

    def levels(self, of: str = "") -> int:
        """Number of levels of the image, or of what is stored below the root at `of`."""
        return len([p for p in (self.path / self.group(of)).iterdir() if p.name.isdigit()])

    def largest(self, of: str = "") -> list[float] | None:
        """Largest value of each channel at level 0, or [largest id] of a label image; None where it was not noted."""
        found: list[float] | None = self.provenance.get("largest", {}).get(self.group(of))
        return found

    def array(self, level: int = 0, of: str = "", round: int | None = None) -> zarr.Array[Any]:
        """One level as a Zarr array: of the image, (c, z, y, x), or of `of`, such as "labels/cells", (z, y, x).

        Where there are rounds, `round` says which one's, from 1 on; the first, where none is said (see `at_round`). To read
        it raises GoneError where chunks are missing because the array is gone.
        """
        import zarr

        from simexm.store.presence import watched  # here, since importing zarr takes half a second

        name = f"{self.group(of, round)}/{level}".lstrip("/")
        try:
            return watched(zarr.open_array(zarr_store(self.path), path=name, mode="r"))
        except FileNotFoundError:
            raise OutputError(
                f"{self.path} holds no array {name}; name another, or where files were lost make it again with "
                "`simexm run SPEC --overwrite`"
            ) from None

    def dask(self, level: int = 0, of: str = "", round: int | None = None) -> dask.array.Array:
        """One level as a Dask array, chunked by shards; see `array`."""
        import dask.array

        stored = self.array(level, of, round)
        return dask.array.from_array(stored, chunks=stored.shards or stored.chunks)

    def cells(self) -> pyarrow.Table:
        """The table of cells."""
        return _table(self.place.tables / "cells.parquet")

    def barcodes(self) -> pyarrow.Table:
        """The table of barcodes: id, barcode, amplicons; of results with rounds."""
        self._refuse_no_rounds()
        return _table(self.place.tables / "barcodes.parquet")

    def amplicons(self) -> pyarrow.Table:
        """The table of amplicons: place, cell, region, dyes; of results with rounds."""
        self._refuse_no_rounds()
        return _table(self.place.tables / "amplicons")

    def _repr_html_(self) -> str | None:
        from simexm.view.notebook import result_html

        return result_html(self)

    def _refuse_no_rounds(self) -> None:
        if not self.rounds:
            raise OutputError(
                f"{self.path} has no rounds of imaging, so it holds no barcodes; add the stage barcodes to the spec"
            )

    def emitters(self) -> pyarrow.Table:
        """The table of emitters, where they were kept."""
        folder = self.place.tables / "emitters"
        if not folder.is_dir():
            raise OutputError(f"{self.path} holds no emitters; add `keep: [emitters]` to the spec")
        return _table(folder)


def _table(path: Location) -> pyarrow.Table:
    """A Parquet file, or a folder of such."""
    import pyarrow.parquet

    if isinstance(path, Remote):
        return pyarrow.parquet.read_table(path.key, filesystem=path.system)
    return pyarrow.parquet.read_table(path)


def table_file(path: Location) -> Any:
    """A Parquet file, opened to be read in pieces (`pyarrow.parquet.ParquetFile`)."""
    import pyarrow.parquet

    if isinstance(path, Remote):
        return pyarrow.parquet.ParquetFile(path.key, filesystem=path.system)
    return pyarrow.parquet.ParquetFile(path)
