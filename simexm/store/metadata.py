"""Models of the JSON files of a result.

Anyone who can write into a result's folder may have written these files, so no name or size in them is used before the
file passes its model. Readers then use the plain data.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, NoReturn, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from simexm.errors import OutputError
from simexm.names import FreeText, Group, LabelName, Name
from simexm.store.documents import MalformedError, read_mapping, validate
from simexm.store.location import Location


def _distinct(names: list[str]) -> list[str]:
    if len(set(names)) < len(names):
        raise ValueError("a name is listed twice")
    return names


Number = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, lt=2**80)]
Size = Annotated[int, Field(ge=1, lt=2**40)]
Sizes = Annotated[list[Size], Field(min_length=3, max_length=3)]
Start = Annotated[list[Annotated[int, Field(ge=0, lt=2**40)]], Field(min_length=3, max_length=3)]
Lengths = Annotated[list[Positive], Field(min_length=3, max_length=3)]
Hash = Annotated[str, Field(pattern="^[0-9A-Za-z]{1,64}$")]
FrameGroup = Annotated[
    str, Field(pattern="^(round|session|tile|view)_[0-9]{2,6}(_(session|tile|view)_[0-9]{2,6}){0,3}$")
]
FrameGroups = Annotated[list[FrameGroup], AfterValidator(_distinct)]
Groups = Annotated[list[Group], AfterValidator(_distinct)]
Names = Annotated[list[Name], AfterValidator(_distinct)]
LabelNames = Annotated[list[LabelName], AfterValidator(_distinct)]
FileKey = Annotated[str, Field(pattern=r"^[\w-][\w.-]*(/[\w-][\w.-]*)*$", max_length=1024)]
"""Path of a file below a folder; no part begins with a dot."""


def _stored(entry: list[Any]) -> list[Any]:
    match entry:
        case [int(size), str(checksum)] if 0 <= size < 2**63 and re.fullmatch("(crc32c:[0-9a-f]{8})?", checksum):
            return entry
    raise ValueError("should be a size in bytes and a checksum")


StoredEntry = Annotated[list[Any], AfterValidator(_stored)]
"""[bytes, checksum] of a file."""


MOST_SHARDS = 1 << 30
"""Shards of a level, and so blocks; a bit set of these takes 128 MiB."""


class Read(BaseModel):
    """A mapping in a file; unknown keys are ignored."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)


# ---------------------------------------------------------------- attributes of Zarr groups


class Energy(Read):
    """Share of a dye's light in a channel that falls within the computed range of the PSF."""

    channel: Name
    dye: FreeText
    share: Number


class Axis(Read):
    """One axis of an acquisition: see `Acquisition.to_mapping`."""

    axis: Literal["round", "session", "tile", "view", "time"]
    coordinates: Annotated[list[Number], Field(min_length=1, max_length=1 << 20)]
    unit: Annotated[str, Field(max_length=64)] = ""


Axes = Annotated[list[Axis], Field(max_length=5)]


class Mark(Read):
    """The attribute `simexm` of a result's root: see `run.finish`."""

    hash: Hash
    format: Count | None = None
    status: Literal["preparing", "incomplete", "complete"] = "incomplete"
    kind: Annotated[str, Field(pattern="^[a-z][a-z0-9_]{0,63}$")] = "simulation"
    outputs: Groups = []
    frames: FrameGroups = []
    acquisition: Axes = []
    tables: Names = []
    spec: dict[str, Any] = {}
    until: FreeText = "camera"
    quantity: FreeText = "image"
    seed: int = 0
    versions: dict[FreeText, FreeText] = {}
    expansion_factor: Positive = 1.0
    pixel_size_expanded_um: Lengths = [1.0, 1.0, 1.0]
    model: FreeText = "simexm"
    psf_energy_share: list[Energy] = []
    dyes: dict[Name, Count] = {}
    amplicons: Count = 0
    largest: dict[Group | Literal[""], list[Number]] = {}
    clipped_pixels: dict[Name, Count] = {}


class _Transform(Read):
    type: Literal["scale", "translation"]
    scale: Annotated[list[Positive], Field(min_length=3, max_length=5)] = [1.0, 1.0, 1.0]
    translation: Annotated[list[Number], Field(min_length=3, max_length=5)] = [0.0, 0.0, 0.0]


class _Dataset(Read):
    path: Annotated[str, Field(pattern="^[0-9]{1,2}$")]
    coordinateTransformations: Annotated[list[_Transform], Field(min_length=1, max_length=2)]

    @model_validator(mode="after")
    def _scaled(self) -> Self:
        if [t.type for t in self.coordinateTransformations] not in (["scale"], ["scale", "translation"]):
            raise ValueError("a level needs a scale, optionally followed by a translation")
        return self


class _Axis(Read):
    name: Annotated[str, Field(max_length=64)]


class _Multiscale(Read):
    name: Annotated[str, Field(max_length=1024)]
    axes: list[_Axis] = []
    datasets: Annotated[list[_Dataset], Field(min_length=1, max_length=64)]

    @model_validator(mode="after")
    def _numbered(self) -> Self:
        if [d.path for d in self.datasets] != [str(n) for n in range(len(self.datasets))]:
            raise ValueError("levels must be named 0, 1, 2, ...")
        return self


class _Window(Read):
    min: Number
    max: Number
    start: Number
    end: Number


class _Channel(Read):
    label: Name
    color: Annotated[str, Field(pattern="^[0-9A-Fa-f]{6}$")]
    window: _Window


class _Omero(Read):
    channels: Annotated[list[_Channel], Field(min_length=1, max_length=4096)]

    @model_validator(mode="after")
    def _named(self) -> Self:
        _distinct([c.label for c in self.channels])
        return self


class Ome(Read):
    """The attribute `ome` of a group that simexm wrote."""

    multiscales: Annotated[list[_Multiscale], Field(min_length=1, max_length=1)] = []
    omero: _Omero = Field(default_factory=_Omero.model_construct)
    labels: LabelNames = []

    @model_validator(mode="after")
    def _axes(self) -> Self:
        for dataset in self.multiscales[0].datasets if self.multiscales else ():
            axes = {len(t.scale if t.type == "scale" else t.translation) for t in dataset.coordinateTransformations}
            with_time = [axis.name for axis in self.multiscales[0].axes][:1] == ["t"]
            if axes != {3 + with_time + ("omero" in self.model_fields_set)}:
                raise ValueError("an image needs the axes c, z, y, x, and labels z, y, x; either may begin with t")
        return self


class Attributes(Read):
    """Attributes of a group that simexm wrote."""

    ome: Ome = Field(default_factory=Ome)


class RootAttributes(Attributes):
    """Attributes of a result's root."""

    simexm: Mark


# ---------------------------------------------------------------- plan.json, files.json


class _Source(Read):
    shape_voxels: Sizes
    crop_start: Start
    crop_stop: Sizes
    voxel_size_nm: Lengths

    @model_validator(mode="after")
    def _inside(self) -> Self:
        for start, stop, size in zip(self.crop_start, self.crop_stop, self.shape_voxels, strict=True):
            if not start < stop <= size:
                raise ValueError("the crop is empty or reaches outside the volume")
        return self


class _Image(Read):
    levels: Annotated[list[Sizes], Field(max_length=64)]
    shards: Annotated[list[Sizes], Field(max_length=64)]

    @model_validator(mode="after")
    def _paired(self) -> Self:
        if len(self.levels) != len(self.shards):
            raise ValueError("levels and shards differ in number")
        if max(self.counts, default=0) > MOST_SHARDS:
            raise ValueError(f"its levels have {', '.join(map(str, self.counts))} shards, more than {MOST_SHARDS}")
        return self

    @property
    def counts(self) -> list[int]:
        """Shards of each level."""
        pairs = zip(self.levels, self.shards, strict=True)
        return [math.prod(-(-size // cell) for size, cell in zip(*pair, strict=True)) for pair in pairs]


class _BlockCount(Read):
    count: Annotated[int, Field(ge=1, le=MOST_SHARDS)]


class _OwnedLevels(_BlockCount):
    levels: Annotated[int, Field(ge=0, le=64)]
    frames: Annotated[int, Field(ge=1, le=1 << 20)] = 1  # of a shard; if more than 1, a block computes only these


class _Blocks(_OwnedLevels):
    block_pixels: Sizes
    tile_pixels: Sizes


class _Output(Read):
    path: Group | Literal["."]
    channels: Annotated[list[Name], AfterValidator(_distinct)]
    times: Annotated[int, Field(ge=0, le=1 << 20)] = 0


class _Pair(Read):
    channel: Name
    dye: FreeText
    electrons_per_dye_in_focus: Number = 0.0


class _Optics(Read):
    pairs: list[_Pair] = []


class WorkFile(Read):
    """`plan.json` of any job over blocks."""

    hash: Hash
    blocks: _BlockCount


class _VolumesFile(WorkFile):
    """`plan.json` of a job that writes images or label images."""

    image: _Image
    blocks: _OwnedLevels
    outputs: Annotated[list[_Output], Field(max_length=1 << 16)]

    @model_validator(mode="after")
    def _agree(self) -> Self:
        _distinct([output.path for output in self.outputs])
        if not len(self.image.levels) >= self.blocks.levels >= bool(self.outputs):
            raise ValueError("the number of levels does not fit the outputs and blocks")
        frames, times = self.blocks.frames, max((o.times for o in self.outputs), default=0)
        spans = -(-times // frames) if frames > 1 else 1
        if self.outputs and self.image.counts[0] * spans != self.blocks.count:
            raise ValueError(f"its levels have {self.image.counts} shards, but there are {self.blocks.count} blocks")
        return self


class AnalysisFile(_VolumesFile):
    """`plan.json` of an analysis: see `simexm.analysis.plan.AnalysisPlan.to_mapping`."""

    kind: FreeText
    inputs: dict[FreeText, FreeText]
    settings: dict[str, Any]
    versions: dict[FreeText, FreeText]


class PlanFile(_VolumesFile):
    """`plan.json` of a simulation: see `Plan.to_mapping`."""

    format: Count | None = None
    until: FreeText
    spec: dict[str, Any]
    source: _Source
    blocks: _Blocks
    optics: _Optics
    outputs: Annotated[list[_Output], Field(min_length=1, max_length=1 << 16)]
    acquisition: Axes = []
    versions: dict[FreeText, FreeText]
    bytes_uncompressed: Count
    memory_per_worker_bytes: Count
    memory_parts_bytes: dict[FreeText, Count]
    core_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Manifest(Read):
    """`files.json`: size and checksum of each file below NAME.zarr and NAME.run, and the checksum of all these."""

    zarr: dict[FileKey, StoredEntry]
    run: dict[FileKey, StoredEntry]


# ---------------------------------------------------------------- reading


def read_group(group: Location, model: type[Attributes] = Attributes) -> dict[str, Any]:
    """Read the attributes of a group of a result and check them against `model`.

    Raises OSError if the file is missing or cannot be read, and OutputError if simexm did not write its content; later also
    if a missing key is looked up.
    """
    return _read(group / "zarr.json", lambda content: (model, content.get("attributes")))


def read_plan(run: Location) -> dict[str, Any]:
    """Read and check `plan.json` of a run or of an analysis; raises as `read_group`."""
    return _read(run / "plan.json", lambda content: (AnalysisFile if "kind" in content else PlanFile, content))


def _read(path: Location, choose: Callable[[dict[str, Any]], tuple[type[Read], Any]]) -> dict[str, Any]:
    try:
        model, found = choose(read_mapping(path))
        validate(model, found)
    except MalformedError as error:
        raise refused(path, error) from error
    return _Known.of(found, str(path))


def refused(path: Location, error: MalformedError) -> OutputError:
    """Return the error for a damaged or foreign file of a result."""
    zarr = path if path.suffix == ".zarr" else next((p for p in path.parents if p.suffix in (".zarr", ".run")), path)
    return OutputError(
        f"{path} {error}: it was damaged, or written by another program, so it is not used. Type: simexm verify "
        f"{zarr.with_suffix('.zarr')} --repair"
    )


class _MissingError(OutputError, KeyError):
    """A key is missing in a file of a result."""


class _Known(dict[str, Any]):
    """A mapping of a file, whose missing keys raise an error that names the file."""

    path: str

    @classmethod
    def of(cls, mapping: Mapping[str, Any], path: str) -> Self:
        """Convert a mapping and all mappings in it, except the spec."""
        known = cls({key: each if key == "spec" else cls._each(each, path) for key, each in mapping.items()})
        known.path = path
        return known

    @classmethod
    def _each(cls, value: Any, path: str) -> Any:
        if isinstance(value, Mapping):
            return cls.of(value, path)
        return [cls._each(each, path) for each in value] if isinstance(value, list) else value

    def __missing__(self, key: str) -> NoReturn:
        raise _MissingError(
            f"{self.path} lacks {key!r}, which every finished result has: it was damaged, or written by another "
            "program; check it with `simexm verify`"
        )
