"""Read what a run or an analysis wrote."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np

from simexm.errors import GoneError, NoResultError, OutputError
from simexm.geometry.grid import three
from simexm.result.at_time import AtTime
from simexm.result.place import COMPLETE, MARK, SCORES, SIMULATION, Place
from simexm.stages.frames import NO_FRAME, Acquisition, Frame
from simexm.store.documents import MalformedError, read_mapping
from simexm.store.location import Location, zarr_store
from simexm.store.metadata import RootAttributes, read_group, read_plan
from simexm.store.parquet import read_columns
from simexm.store.refusals import RemoteError
from simexm.store.remote import Remote

if TYPE_CHECKING:
    import dask.array
    import pyarrow  # type: ignore[import-untyped]
    import xarray
    import zarr
    from numpy.typing import NDArray

    from simexm.planning.plan import Plan


@dataclass(frozen=True)
class Result:
    """Output of a run or an analysis, for reading."""

    place: Place
    """Its folders."""
    attributes: dict[str, Any]
    """`simexm` of the Zarr's root, and `ome` of the image (of several frames, of this frame's image)."""
    frame: Frame = NO_FRAME
    """The frame to read by default; all 0 if the specimen was imaged once."""

    @classmethod
    def open(cls, path: str | Path | Remote) -> Result:
        """Open a result, finished or not.

        Raises OutputError if it is damaged, NoResultError if there is none.
        """
        found = Place.where(path)
        try:
            mark = (read_mapping(found.zarr / "zarr.json").get("attributes") or {}).get(MARK)
            is_result = mark is not None and not (isinstance(mark, dict) and "written_by" in mark)  # ingested labels
        except RemoteError:
            raise
        except MalformedError as error:
            raise OutputError(
                f"{path} is no simexm result: its zarr.json {error}; `simexm run SPEC --output NAME.zarr` writes one. If it "
                f"was one, type: simexm verify {path} --repair"
            ) from error
        except (OSError, AttributeError):
            is_result = False
        if not is_result:
            fault = "is no simexm result" if found.zarr.exists() else "does not exist"
            raise NoResultError(f"{path} {fault}; `simexm run SPEC --output NAME.zarr` writes one")
        opened = cls(found, read_group(found.zarr, RootAttributes))
        return opened.at() if opened.acquisition.axes else opened

    def at(self, **places: int) -> Result:
        """Return the result at another frame, by its position along any axes, from 1 on, such as `round=2, time=5`.

        Positions along other axes remain. Raises OutputError if there is no such frame.
        """
        frame = self._frame(places)
        attributes = {"simexm": self.provenance}
        path = self.path / frame.group / "zarr.json"
        if path.is_file():
            attributes = {**read_group(path.parent), **attributes}
        return Result(self.place, attributes, frame)

    @property
    def _first(self) -> Frame:
        return self.acquisition.frames()[0]

    def _frame(self, places: Mapping[str, int]) -> Frame:
        """Return the current frame, moved to these positions."""
        frames = self.acquisition
        for axis, place in places.items():
            length = frames.length(axis)
            if not length:
                content = " and ".join(f"{len(a.coordinates)} {a.name}s" for a in frames.axes) or "one image"
                raise OutputError(f"{self.path} holds {content}, not {axis}s; leave the {axis} out")
            if not 1 <= place <= length:
                raise OutputError(f"{self.path} has no {axis} {place}; it has the {axis}s 1 to {length}")
        return (self.frame if any(self.frame) else self._first)._replace(**places)

    @property
    def places(self) -> list[Location]:
        """All its folders."""
        return [self.place.zarr, self.place.run]

    @property
    def path(self) -> Location:
        """The folder NAME.zarr, on a disk or behind a URL."""
        return self.place.zarr

    @property
    def provenance(self) -> dict[str, Any]:
        """Spec, seed, hash, versions and totals."""
        return cast("dict[str, Any]", self.attributes["simexm"])

    @property
    def kind(self) -> str:
        """`simulation`, or the name of the analysis."""
        return str(self.provenance.get("kind", SIMULATION))

    @property
    def complete(self) -> bool:
        """Whether all blocks and levels are written."""
        return bool(self.provenance.get("status") == COMPLETE)

    @property
    def plan_record(self) -> dict[str, Any]:
        """The run's plan as plain data, from `plan.json`."""
        return read_plan(self.place.run)

    def plan(self) -> Plan:
        """Compute the run's plan again from `plan.json`; the labels are not needed.

        Raises
        ------
        OutputError
            If `plan.json` is missing or damaged.
        SpecError
            If this version of simexm, or of a package that adds stages, does not know the spec.
        """
        from simexm.planning.planner import make_plan  # which loads large libraries
        from simexm.result.recorded_labels import RecordedLabels
        from simexm.spec.simulation import Spec

        record = self.plan_record
        on_gpu = record["device"] == "gpu"
        spec = Spec.from_mapping(record["spec"]).with_device("auto" if on_gpu else "cpu")
        return make_plan(spec, until=record["until"], source=RecordedLabels.of(record), gpu=on_gpu)

    @property
    def acquisition(self) -> Acquisition:
        """The frames of the acquisition."""
        return Acquisition.from_mapping(self.provenance.get("acquisition", ()))

    @property
    def rounds(self) -> int:
        """Number of imaging rounds; 0 if the specimen was imaged once."""
        return self.acquisition.length("round")

    def group(self, of: str = "", **places: int) -> str:
        """Return the path of an image, or of a group `of` it, below the root; of the current frame, moved to `places`.

        Groups that are the same in all frames, as label images mostly are, are stored with the first frame. Raises OutputError
        if there is no such frame or image.
        """
        if not of and self.kind != SIMULATION and "ome" not in self.attributes:
            raise OutputError(
                f"{self.path} holds no main image but the output of `simexm {self.kind}`: `simexm info` prints its scores, and "
                f"its tables are in {self.place.tables}"
            )
        group = f"{self._frame(places).group}/{of}".strip("/")
        known = self.provenance.get("outputs", ())
        if of and group not in known and not any(name.startswith(f"{group}/") for name in known):
            return f"{self._first.group}/{of}".strip("/")
        return group

    @property
    def channels(self) -> list[dict[str, Any]]:
        """Name, colour and display window of each channel."""
        self.group()  # raises if there is no image
        return cast("list[dict[str, Any]]", self.attributes["ome"]["omero"]["channels"])

    @property
    def windows(self) -> list[tuple[float, float]]:
        """Display window of each channel: counts shown as black and as full colour."""
        return [(c["window"]["start"], c["window"]["end"]) for c in self.channels]

    def pixel_um(self, level: int = 0) -> tuple[float, float, float]:
        """Return the pixel size of a level of the image, z, y, x, um of tissue."""
        dataset = self.attributes["ome"]["multiscales"][0]["datasets"][level]
        return three(dataset["coordinateTransformations"][0]["scale"][-3:])

    def require_complete(self) -> None:
        """Raise OutputError for an unfinished result."""
        if not self.complete:
            command = "run" if self.kind == SIMULATION else self.kind
            raise OutputError(f"{self.path} is incomplete; type the `simexm {command}` command again to continue it")

    @property
    def label_names(self) -> list[str]:
        """Names of the label images."""
        if self.kind != SIMULATION and not any(name.startswith("labels/") for name in self.provenance["outputs"]):
            return []
        return cast("list[str]", read_group(self.path / self.group("labels"))["ome"]["labels"])

    def levels(self, of: str = "") -> int:
        """Number of levels of the image, or of the group `of`."""
        names = {p.name for p in (self.path / self.group(of)).iterdir()}
        return next(n for n in itertools.count() if str(n) not in names)

    def largest(self, of: str = "") -> list[float] | None:
        """Largest value of each channel at level 0, or [largest id] of a label image; None if it was not recorded."""
        return cast("list[float] | None", self.provenance.get("largest", {}).get(self.group(of)))

    def array(self, level: int = 0, of: str = "", **places: int) -> zarr.Array[Any]:
        """Return one level as a Zarr array: of the image, (c, z, y, x), or of `of`, such as "labels/cells", (z, y, x).

        `places` choose another frame, as in `at`. Reading raises GoneError if chunks are missing because the array is gone.
        """
        array = self.series(level, of, **places)
        if array.ndim == 3 + (not of.startswith("labels/")):
            return array
        # it has the part of the interface that readers use
        return cast("zarr.Array[Any]", AtTime(array, self._frame(places).time - 1))

    def series(self, level: int = 0, of: str = "", **places: int) -> zarr.Array[Any]:
        """Return one level with its time axis, if any: (t, c, z, y, x), or (t, z, y, x); see `array`."""
        import zarr  # takes half a second

        from simexm.store.presence import watched

        name = f"{self.group(of, **places)}/{level}".lstrip("/")
        try:
            array = watched(zarr.open_array(zarr_store(self.path), path=name, mode="r"))
        except FileNotFoundError:
            raise OutputError(
                f"{self.path} holds no array {name}; name another, or if files were lost compute it again with "
                "`simexm run SPEC --overwrite`"
            ) from None
        except RemoteError:
            raise
        except Exception as error:  # zarr's parsers raise anything for damaged metadata
            raise self._no_array(name, f"cannot be opened ({type(error).__name__}: {error})") from error
        if fault := _fault(array, len(self._labels(of, places)), bool(self.acquisition.time)):
            raise self._no_array(name, fault)
        return array

    def _labels(self, of: str, places: Mapping[str, int]) -> list[Any]:
        """Channels in an image's metadata; none for label images and unfinished results."""
        if of or not self.complete or self._frame(places) != self._frame({}):
            return []
        return cast("list[Any]", self.attributes.get("ome", {}).get("omero", {}).get("channels", []))

    def _no_array(self, name: str, fault: str) -> OutputError:
        return OutputError(
            f"the array {name} of {self.path} {fault}: it was damaged, or written by another program. Type: simexm verify "
            f"{self.path} --repair"
        )

    def dask(self, level: int = 0, of: str = "", **places: int) -> dask.array.Array:
        """Return one level as a Dask array chunked by shards, with its time axis, if any; see `series`."""
        from dask.array import Array, from_array

        stored = self.series(level, of, **places)
        chunks = stored.shards or stored.chunks
        return cast("Array", from_array(stored, chunks=chunks))  # type: ignore[no-untyped-call]

    def to_xarray(self, level: int = 0, of: str = "", *, names: str = "simexm", **places: int) -> xarray.DataArray:
        """Return one level with named axes and coordinates with units, as a Dask array inside; needs xarray.

        Parameters
        ----------
        level, of, places
            See `array`; a time axis is kept.
        names
            "simexm": axes t, c, z, y, x, with times, channels, and centres of pixels in um of tissue. "minian": axes frame,
            height, width, counted from 0, of a movie of one plane and channel.

        Raises
        ------
        OutputError
            If there is no such array, xarray is not installed, or the result has further axes than minian reads.
        """
        from simexm.result.xarrays import to_xarray

        return cast("xarray.DataArray", to_xarray(self.at(**places) if places else self, level, of, names))

    def multiscale(self, of: str = "") -> dict[str, Any]:
        """Return the OME metadata of the levels of the image, or of the group `of`."""
        attributes = read_group(self.path / self.group(of)) if of else self.attributes
        return cast("dict[str, Any]", attributes["ome"]["multiscales"][0])

    def scores(self) -> pyarrow.Table:
        """Read the scores of an analysis: kind, score, subset, value, unit, definition, inputs."""
        return read_columns(self.place.run / SCORES, list(_SCORES), any_text=True)

    def cells(self) -> pyarrow.Table:
        """Read the table of cells."""
        return read_columns(self.place.tables / "cells.parquet", ["id", "voxels", "layers"])

    def table(self, name: str) -> pyarrow.Table:
        """Read a table of a stage, such as `cells`, or of an analysis; raises OutputError if there is no such table."""
        if name not in self.tables:
            raise OutputError(
                f"{self.path} holds no table {name!r}; it holds {', '.join(self.tables) or 'none'}; add the stage that writes it"
            )
        file = self.place.tables / f"{name}.parquet"
        return read_columns(file if file.exists() else self.place.tables / name, [], any_text=True)

    def detectable_subset(self, snr: float | None = None) -> NDArray[np.int64]:
        """Return the cells of a movie that can be seen, by id: those whose signal over noise reaches `snr`.

        By default that of the spec (`detectable_snr`). See the table `units`.
        """
        units = self.table("units")
        chosen = units["detectable"].to_numpy() == 1 if snr is None else units["snr"].to_numpy() >= snr
        return np.asarray(units["unit"].to_numpy()[chosen], np.int64)

    @property
    def tables(self) -> list[str]:
        """Names of the tables."""
        return cast("list[str]", self.provenance.get("tables", []))

    def barcodes(self) -> pyarrow.Table:
        """Read the table of barcodes, of a result with rounds: id, barcode, amplicons."""
        self._refuse_no_rounds()
        return read_columns(self.place.tables / "barcodes.parquet", ["id", "barcode"])

    def amplicons(self) -> pyarrow.Table:
        """Read the table of amplicons, of a result with rounds: position, cell, region, dyes."""
        self._refuse_no_rounds()
        return read_columns(self.place.tables / "amplicons", ["z_nm", "y_nm", "x_nm", "cell"])

    shown: ClassVar[Callable[[Result], str | None]] = lambda _: None
    """Returns the HTML for a notebook; `simexm.api` sets it, since this module may not import `simexm.view`."""

    def _repr_html_(self) -> str | None:
        return type(self).shown(self)

    def _refuse_no_rounds(self) -> None:
        if not self.rounds:
            raise OutputError(
                f"{self.path} has no rounds of imaging, so it holds no barcodes; add the stage barcodes to the spec"
            )

    def emitters(self) -> pyarrow.Table:
        """Read the table of emitters; needs `keep: [emitters]` in the spec."""
        folder = self.place.tables / "emitters"
        if not folder.is_dir():
            raise OutputError(f"{self.path} holds no emitters; add `keep: [emitters]` to the spec")
        return read_columns(folder, ["z_nm", "y_nm", "x_nm", "dyes"])


def elements(array: zarr.Array[Any], at: Any) -> NDArray[Any]:
    """Read elements of an array of a result; raises OutputError if they cannot be read or decoded."""
    import numpy as np

    try:
        return np.asarray(array[at])
    except (GoneError, RemoteError):
        raise
    except (OSError, ValueError, RuntimeError) as error:  # of the disk, of checksums, of decoders
        raise OutputError(f"{array.store_path} cannot be read: {error}. {REPAIR_HINT}") from error


def _fault(array: zarr.Array[Any], channels: int, with_time: bool) -> str:
    """Return why a run cannot have written an array; empty if it can."""
    axes, cell = array.ndim, array.shards or array.chunks
    if axes not in range(3, 5 + with_time) or (channels and (axes < 4 or array.shape[-4] != channels)):
        return f"has the shape {array.shape}, but {channels or 'no'} named channels"
    if array.dtype.kind not in "uf" or min(*array.shape, *cell, *array.chunks) < 1 or max(array.shape) >= _LONGEST:
        return f"holds {array.dtype} of the shape {array.shape} in chunks of {array.chunks}"
    if math.prod(array.chunks) * array.dtype.itemsize > _CHUNK_BYTES:
        return f"has chunks of {array.chunks}, which would fill the memory"
    return ""


_SCORES = ("kind", "score", "subset", "value", "unit", "definition")

REPAIR_HINT = "`simexm verify NAME.zarr --repair` computes damaged parts again"

_LONGEST = 1 << 40
_CHUNK_BYTES = 1 << 30
"""Largest chunk that is read; runs write chunks of a few MB."""
