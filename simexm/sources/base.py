"""What every source of labels offers, and the Zarr source as a spec names it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from shlex import quote
from typing import Annotated, Any, Literal, Protocol, Self, cast

import numpy as np
import pydantic
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from simexm.errors import SourceError, SpecError
from simexm.geometry.grid import Box, Spacing, Triple
from simexm.names import RegionName, similar
from simexm.sources.axes import implausible
from simexm.sources.fields import Field, Kind, with_classes
from simexm.sources.state import FilesState
from simexm.store.documents import read_mapping
from simexm.store.location import is_url, location, usable
from simexm.store.refusals import RemoteError
from simexm.store.regions import fields_of
from simexm.store.shard_list import ShardList

INGESTED = "simexm ingest"
"""Value of `written_by` in the attribute "simexm" of groups that ingest wrote."""

VoxelNm = Annotated[float, pydantic.Field(gt=0, allow_inf_nan=False)]


def _plausible(size: tuple[float, float, float]) -> tuple[float, float, float]:
    why = implausible(size)
    if why:
        raise ValueError(f"is {why}; give voxel_size_nm: [z, y, x] in nm")
    return size


VoxelSizeNm = Annotated[tuple[VoxelNm, VoxelNm, VoxelNm], AfterValidator(_plausible)]


class Voxels(Protocol):
    """Ids on a grid of known shape; z, y, x."""

    @property
    def shape(self) -> Triple: ...
    def read(self, box: Box, time: int = 0) -> NDArray[Any]:
        """Return the ids in a box at a time point."""


class LabelSource(Protocol):
    """A volume of cell ids that is read box by box; it can be pickled.

    Attributes
    ----------
    shape
        Voxels along z, y, x.
    times
        Number of time points; 1 for a volume without a time axis. A series of planes in time has a depth of 1.
    seconds_per_time
        Seconds between time points; None if unknown.
    voxel_size_nm
        Size of a voxel, nm of tissue before expansion.
    origin_nm
        Lower corner of voxel (0, 0, 0), nm of tissue before expansion.
    dtype
        Unsigned integer type of the ids; 0 is outside every cell.
    fields
        Masks of regions, classes, grey values and ids of other objects beside the cells, by name.
    coarser
        The stored coarser levels of the same ids, finest first.
    identity
        Text that differs if ids or fields differ at any time point, as far as can be seen without reading all voxels. It
        does not depend on where the volume is stored or when it was written.
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
        """Return the state of the files that hold a box, by mask name, "" for the labels; empty if there are none."""

    def expecting(self, listed: Mapping[str, ShardList]) -> LabelSource:
        """Return the same source, which raises for a missing chunk that is listed for its array; see `state`."""

    def read(self, box: Box, time: int = 0) -> NDArray[np.unsignedinteger[Any]]:
        """Return the ids in a box at a time point, (z, y, x), unsigned, in native byte order."""

    def read_field(self, name: str, box: Box, time: int = 0) -> NDArray[Any]:
        """Return the values of a field in a box, (z, y, x): bool for masks, else the field's type.

        A field without a time axis is the same at all time points.
        """

    def reading_bytes(self, shape: Triple, regions: Sequence[str]) -> int:
        """Return the peak memory of reading a box of this shape, then its regions, without box and chunk cache, bytes."""


class SourceModel(Protocol):
    """A source as a spec names it."""

    def open(self) -> LabelSource:
        """Open it for reading."""


class StoredField(BaseModel):
    """A field of a Zarr source beside its labels.

    Attributes
    ----------
    path
        Zarr array of the labels' shape, inside the source's `path` or with a path of its own.
    kind
        ids: objects other than the cells; classes: small integers, each a kind of tissue; grey: measured values.
    names
        Name of each class by its number; layers can label it as a region.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str = pydantic.Field(min_length=1)
    kind: Literal["ids", "classes", "grey"]
    names: dict[Annotated[int, pydantic.Field(ge=0, lt=1 << 16)], RegionName] = pydantic.Field(default_factory=dict)

    @model_validator(mode="after")
    def _named_classes(self) -> Self:
        if self.names and self.kind != "classes":
            raise ValueError(f"only classes have names, and this field is of kind {self.kind}; leave names out")
        return self


class ZarrSource(BaseModel):
    """Labels in an OME-Zarr (0.1 to 0.6) or in any other Zarr array.

    Attributes
    ----------
    path
        Folder, ZIP file (.zarr.zip, .ozx) or URL (s3://, gs://, https://) of a label image, of an image with labels, of an
        array, or of a WEBKNOSSOS dataset whose layers are Zarr.
    dataset
        Path of the label image or array inside it, if it holds several.
    voxel_size_nm
        z, y, x, nm of tissue before expansion. Default: from the metadata. If given, the metadata's size and position are
        ignored, and the volume begins at 0.
    time
        The time point to simulate, counted from 0.
    fields
        Further fields on the same grid by name: ids of other objects, classes of tissue or grey values. Fields that
        `simexm ingest` stored are found without being named here, unless classes need names.
    regions
        Masks of regions by name: a Zarr array or label image of the same shape, inside `path` or with a path of its own. A
        voxel belongs to the region where the mask is not 0. Masks that `simexm ingest` stored are found without being named.
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
        for text in (self.path, self.dataset or ".", *self.regions.values(), *(f.path for f in self.fields.values())):
            usable(text)
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Accept a plain path in the JSON schema, too."""
        return {"anyOf": [{"type": "string", "minLength": 1}, handler(core)]}

    def open(self) -> LabelSource:
        """Open it for reading; see `simexm.sources.zarr.source.open_zarr` for what it raises."""
        from simexm.sources.zarr.source import open_zarr  # importing zarr takes half a second

        return open_zarr(self)

    def resolved(self) -> ZarrSource:
        """Return the same source with absolute paths. A mask inside `path` keeps its name, as it is searched there first."""
        path = self.path if is_url(self.path) else str(location(self.path))
        all_regions, all_fields = self.masks_and_fields()
        regions = {name: self._mask(path, mask) for name, mask in all_regions.items()}
        fields = {n: f.model_copy(update={"path": self._mask(path, f.path)}) for n, f in all_fields.items()}
        return self.model_copy(update={"path": path, "regions": regions, "fields": fields})

    def offered(self) -> dict[str, Field]:
        """Return the fields that are known without opening the source: those of the spec and those that ingest stored."""
        regions, fields = self.masks_and_fields()
        masks = {name: Field(name, "mask", "bool") for name in regions}
        given = {name: Field(name, f.kind, "", f.names) for name, f in fields.items()}
        return with_classes({**masks, **given})

    def masks_and_fields(self) -> tuple[dict[str, str], dict[str, StoredField]]:
        """Return the paths of masks and the other fields, of the spec and of those that ingest stored."""
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
            return mask  # it can only be inside
        if not Path(mask).is_absolute():
            from simexm.sources.zarr.source import holds

            if holds(path, mask):
                return mask
        return str(location(mask))


def given_by(stored: Mapping[str, tuple[Kind, str]]) -> dict[str, StoredField]:
    """Return stored fields, without masks, as a spec would name them."""
    return {name: StoredField(path=path, kind=kind) for name, (kind, path) in stored.items() if kind != "mask"}


def _ingested(path: str, dataset: str) -> dict[str, str]:
    """Return names and kinds of the fields that ingest stored; empty if unreadable, as opening it will report why."""
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
"""Seconds after a refusal of a remote store in which it is not asked again: each refusal may take seconds."""


def open_source(source: SourceModel | str | PathLike[str]) -> LabelSource:
    """Open a source of labels: a model, or the path or URL of a Zarr.

    Raises SourceNotFoundError if nothing exists at the path, and SourceError if it cannot be used as labels.
    """
    if hasattr(source, "open") and not isinstance(source, PathLike):
        return source.open()
    try:
        path = usable(source)
    except SpecError as error:
        raise SourceError(f"the source: {error}") from None
    return ZarrSource(path=path).open()


def neighbours(path: Path) -> str:
    """Return similar names in the folder of a missing path, or how to see all, as the end of a message."""
    near = similar(path.name, path.parent)
    if near:
        return f" Beside it there is: {', '.join(near)}."
    above = next((p for p in path.parents if p.is_dir()), Path("/"))
    missing = "" if above == path.parent else f" Neither does the folder {path.parent}."
    return f"{missing} `ls {quote(str(above))}` lists what there is."
