"""What a source of labels is, to those who read it and to those who name it in a specification."""

from __future__ import annotations

import contextlib
import difflib
import time
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, Self, cast

import numpy as np
import pydantic
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from simexm.errors import SourceError, SpecError
from simexm.geometry.grid import Box, Spacing, Triple
from simexm.names import RegionName
from simexm.sources.axes import implausible
from simexm.sources.fields import Field, Kind, with_classes
from simexm.sources.state import FilesState
from simexm.store.documents import read_mapping
from simexm.store.location import is_url, location, usable
from simexm.store.refusals import RemoteError
from simexm.store.regions import fields_of
from simexm.store.shard_list import ShardList

INGESTED = "simexm ingest"
"""What ingest leaves as `written_by` in the attribute "simexm" of what it writes, beside the digest of its shards."""

VoxelNm = Annotated[float, pydantic.Field(gt=0, allow_inf_nan=False)]


def _plausible(size: tuple[float, float, float]) -> tuple[float, float, float]:
    why = implausible(size)
    if why:
        raise ValueError(f"is {why}; give voxel_size_nm: [z, y, x] in nm")
    return size


VoxelSizeNm = Annotated[tuple[VoxelNm, VoxelNm, VoxelNm], AfterValidator(_plausible)]


class Voxels(Protocol):
    """Ids on some grid, of which the shape alone is known; z, y, x."""

    @property
    def shape(self) -> Triple: ...
    def read(self, box: Box, time: int = 0) -> NDArray[Any]:
        """Return the ids in a box at a time point."""


class LabelSource(Protocol):
    """A volume of cell ids that can be read box by box, in any process that unpickles it.

    Attributes
    ----------
    shape
        Voxels along z, y, x.
    times
        Time points at which it can be read; 1 of what does not change. A series of planes in time has a depth of 1.
    seconds_per_time
        Between two time points; None where nothing tells it.
    voxel_size_nm
        Size of a voxel, nm of tissue before expansion.
    origin_nm
        Where voxel (0, 0, 0) begins, nm of tissue before expansion.
    dtype
        Unsigned integer type of the ids; 0 is outside every cell.
    fields
        What there is beside the ids, by name: masks of regions, classes, grey values, ids of other objects.
    coarser
        The same ids downsampled, finest first, where such copies are stored.
    identity
        Text that differs where the ids or the masks of two stored volumes differ at any time point, as far as that can be
        told without reading them whole. It depends neither on where they stand nor on when they were written.
    """

    @property
    def shape(self) -> Triple: ...
    @property
    def times(self) -> int: ...
    @property
    def seconds_per_time(self) -> float | None: ...
    @property
    def voxel_size_nm(self) -> Spacing: ...
    @property
    def origin_nm(self) -> Spacing: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def fields(self) -> Mapping[str, Field]: ...
    @property
    def coarser(self) -> Sequence[Voxels]: ...
    @property
    def identity(self) -> str: ...

    def state(self, box: Box, masks: Sequence[str]) -> Mapping[str, FilesState]:
        """Return how the files that hold a box are, by name of the mask, of the labels as ""; empty where there are none."""

    def expecting(self, listed: Mapping[str, ShardList]) -> LabelSource:
        """Return the same source, which takes a missing chunk for a fault if it is listed for its array; see `state`."""

    def read(self, box: Box, time: int = 0) -> NDArray[np.unsignedinteger[Any]]:
        """Return the ids in a box inside the volume at a time point, (z, y, x), unsigned, in native byte order."""

    def read_field(self, name: str, box: Box, time: int = 0) -> NDArray[Any]:
        """Return the values of a field, (z, y, x), in a box inside the volume: bool for masks, else of the field's type.

        A field without time points of its own is the same at all of the labels'.
        """

    def reading_bytes(self, shape: Triple, regions: Sequence[str]) -> int:
        """Return how many bytes are held at most while a box of this shape is read, beside the box and the cache of chunks.

        `regions` are those that are read, too, one after the other.
        """


class SourceModel(Protocol):
    """What a user writes to name a source."""

    def open(self) -> LabelSource:
        """Open it for reading."""


class StoredField(BaseModel):
    """A field beside the labels, in a Zarr.

    Attributes
    ----------
    path
        A Zarr array of the labels' shape, inside the source's `path` or with a path of its own.
    kind
        ids: of other objects than the cells; classes: small whole numbers that stand for kinds of tissue; grey: measured
        values.
    names
        What classes are called, by number: each is a region that layers can label.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str = pydantic.Field(min_length=1)
    kind: Literal["ids", "classes", "grey"]
    names: dict[Annotated[int, pydantic.Field(ge=0, lt=1 << 16)], RegionName] = pydantic.Field(default_factory=dict)

    @model_validator(mode="after")
    def _named_classes(self) -> Self:
        if self.names and self.kind != "classes":
            raise ValueError(f"names are of classes, and this field is of kind {self.kind}; leave names out")
        return self


class ZarrSource(BaseModel):
    """Labels in an OME-Zarr (0.1 to 0.6) or in any other Zarr array.

    Attributes
    ----------
    path
        Folder, ZIP file (.zarr.zip, .ozx) or URL (s3://, gs://, https://) of a label image, of an image with labels, of an
        array, or of a WEBKNOSSOS dataset whose layers are Zarr.
    dataset
        Path of the label image or array inside it, where there is more than one.
    voxel_size_nm
        z, y, x, nm of tissue before expansion. Taken from the metadata where it is left out; where it is given, the
        metadata's size and position do not count and the volume begins at 0.
    time
        Which time point of a time series is simulated, counted from 0.
    fields
        Name of a further field and what holds it: ids of other objects, classes of tissue or grey values, on the same grid.
        Those that `simexm ingest` carried along need not be given, unless classes are to have names.
    regions
        Name of a region and the mask that holds it: a Zarr array or label image of the same shape, inside `path` or
        with a path of its own. A voxel belongs to the region where the mask is not zero. Masks that `simexm ingest`
        carried along need not be given.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str = pydantic.Field(min_length=1)
    dataset: str | None = None
    voxel_size_nm: VoxelSizeNm | None = None
    time: int | None = pydantic.Field(default=None, ge=0)
    regions: dict[RegionName, str] = pydantic.Field(default_factory=dict)
    fields: dict[RegionName, StoredField] = pydantic.Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _from_path(cls, value: Any) -> Any:
        return {"path": str(value)} if isinstance(value, str | PathLike) else value

    @model_validator(mode="after")
    def _paths(self) -> Self:
        for text in (self.path, self.dataset or ".", *self.regions.values(), *self._field_paths()):
            usable(text)
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Let editors know that a path alone will do."""
        return {"anyOf": [{"type": "string", "minLength": 1}, handler(core)]}

    def open(self) -> LabelSource:
        """Open it for reading; see `simexm.sources.zarr.source.open_zarr` for what it raises."""
        from simexm.sources.zarr.source import open_zarr  # here, since importing zarr takes half a second

        return open_zarr(self)

    def resolved(self) -> ZarrSource:
        """The same source without reference to the working directory or to the home folder.

        A mask that lies inside `path` keeps its name, for there it is looked for first.
        """
        path = self.path if is_url(self.path) else _absolute(self.path)
        all_regions, all_fields = self.beside()
        regions = {name: self._mask(path, mask) for name, mask in all_regions.items()}
        fields = {n: f.model_copy(update={"path": self._mask(path, f.path)}) for n, f in all_fields.items()}
        return self.model_copy(update={"path": path, "regions": regions, "fields": fields})

    def offered(self) -> dict[str, Field]:
        """The fields that are known without opening the source: those that are given and those that ingest left."""
        regions, fields = self.beside()
        masks = {name: Field(name, "mask", "bool") for name in regions}
        given = {name: Field(name, f.kind, "", f.names) for name, f in fields.items()}
        return with_classes({**masks, **given})

    def _field_paths(self) -> list[str]:
        return [each.path for each in self.fields.values()]

    def beside(self) -> tuple[dict[str, str], dict[str, StoredField]]:
        """The masks and the fields that are given, and those that ingest left beside the labels."""
        inside = [*filter(None, [(self.dataset or "").strip("/")])]
        stored = {
            name: (cast("Kind", kind), "/".join([*inside, name]))
            for name, kind in _ingested(self.path, self.dataset or "").items()
        }
        masks = {name: path for name, (kind, path) in stored.items() if kind == "mask"}
        return {**masks, **self.regions}, {**given_by(stored), **self.fields}

    def _mask(self, path: str, mask: str) -> str:
        local = Path(mask).expanduser()
        if is_url(mask) or not (mask.startswith("~") or local.exists()):
            return mask  # if it is anywhere, it is inside
        if not Path(mask).is_absolute():
            from simexm.sources.zarr.source import holds

            if holds(path, mask):
                return mask
        return _absolute(mask)


def given_by(stored: Mapping[str, tuple[Kind, str]]) -> dict[str, StoredField]:
    """Stored fields of given kinds and paths as a spec would name them; masks are left out."""
    return {name: StoredField(path=path, kind=kind) for name, (kind, path) in stored.items() if kind != "mask"}


def _ingested(path: str, dataset: str) -> dict[str, str]:
    """Names and kinds of the fields that ingest left; none where nothing can be read, for opening it tells what is wrong."""
    try:
        if time.monotonic() - _refused_s.get(path, -_PATIENCE_S) < _PATIENCE_S:
            return {}
        mark = read_mapping(location(path) / dataset / "zarr.json")["attributes"]["simexm"]
        ours = mark["written_by"] == INGESTED
    except RemoteError:
        _refused_s[path] = time.monotonic()
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    return fields_of(mark, path) if ours else {}


_refused_s: dict[str, float] = {}
_PATIENCE_S = 30.0
"""After a store refused, which may take seconds, it is not asked for regions again; and when it did so."""


def open_source(source: SourceModel | str | PathLike[str]) -> LabelSource:
    """Open a source of labels: a model, or the path or URL of a Zarr whose kind its content tells.

    Raises
    ------
    SourceNotFoundError
        If there is nothing at the path.
    SourceError
        If what is there cannot serve as labels.
    """
    if hasattr(source, "open") and not isinstance(source, PathLike):
        return source.open()
    try:
        path = usable(source)
    except SpecError as error:
        raise SourceError(f"the source: {error}") from None
    return ZarrSource(path=path).open()


def _absolute(path: str) -> str:
    return str(location(path))


def neighbours(path: Path) -> str:
    """What a missing path may have meant, as the end of a message: names beside it that are alike."""
    names: list[str] = []
    with contextlib.suppress(OSError):
        names = [p.name for p in path.parent.iterdir() if not p.name.startswith(".")]
    near = difflib.get_close_matches(path.name, names, n=3, cutoff=0.6)
    if near:
        return f" Beside it there is: {', '.join(near)}."
    return "" if path.parent.exists() else f" Neither does the folder {path.parent}."
