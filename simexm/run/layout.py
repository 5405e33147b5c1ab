"""List the files of a result, block by block, from its plan.json alone, without source or microscope."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, field_validator

from simexm.errors import OutputError
from simexm.geometry.grid import Box, Tiling, Triple, triple
from simexm.jobs.journal import Record
from simexm.kernels.detector.camera import BINS
from simexm.names import NAME, Group, Name
from simexm.planning.outputs import Volumes
from simexm.planning.plan import Plan
from simexm.result.place import MANIFEST, PLAN, Place
from simexm.run import tables
from simexm.store.documents import MalformedError, read_mapping, validate
from simexm.store.files import Files, Stored, checksum, measure
from simexm.store.listing import files_below, presence
from simexm.store.location import Location
from simexm.store.metadata import Count, Manifest, Number, Read, StoredEntry
from simexm.store.omexml import METADATA
from simexm.store.omezarr import shard_key


class StoredFile(NamedTuple):
    """A file with its recorded size and checksum; 0 bytes if it should not exist."""

    path: str  # not a Path, for speed: a resumed run checks all files
    stored: Stored


class LevelRecord(Read):
    """Result of `make_shard` for a shard of a coarse level."""

    stored: dict[Group | Literal[""], list[StoredEntry]]


class _Counted(Read):
    clipped: Count
    histogram: list[Annotated[list[Annotated[int, Field(ge=0, lt=2**62)]], Field(min_length=2, max_length=2)]]

    @field_validator("histogram")
    @classmethod
    def _bins(cls, histogram: list[list[int]]) -> list[list[int]]:
        if any(bin_ >= BINS for bin_, _ in histogram):
            raise ValueError(f"a histogram has {BINS} bins")
        return histogram


Folder = Annotated[str, Field(pattern=NAME.replace("$", r"(\.parts)?$"), max_length=80)]
"""Folder of the parts of a table."""


class WorkRecord(LevelRecord):
    """Result of any block, of a run or of an analysis."""

    tables: dict[Folder, StoredEntry]
    rows: dict[Name, Count]
    largest: dict[Group | Literal[""], list[Number]]
    peak_bytes: Count


class BlockRecord(WorkRecord):
    """Result of `run_block` for a block."""

    voxels: Count
    sums: dict[Name, dict[str, Count]]
    unspecific: dict[str, Count]
    images: list[_Counted]
    profile: dict[str, Annotated[list[Number], Field(min_length=3, max_length=3)]] = Field(default_factory=dict)


def valid_records(records: Iterable[Record], model: type[LevelRecord] = BlockRecord) -> Iterator[Record]:
    """Yield the records that a block, or a shard of a coarse level, may have written."""
    for record in records:
        with contextlib.suppress(MalformedError):
            validate(model, record.result)
            yield record


@dataclass(frozen=True)
class Layout:
    """Division of a result into files."""

    count: int  # of blocks
    groups: tuple[tuple[str, int, int], ...]  # of each output: path, times and channels; 0 without such an axis
    levels: tuple[Tiling, ...]  # shards of each level
    owned: int  # number of levels, from the full resolution on, that blocks write
    record: type[WorkRecord]  # model of a block's result in the journal
    span: int = 1  # frames of a shard along time

    @classmethod
    def of(cls, plan: Mapping[str, Any]) -> Layout:
        """Make the layout from the content of a run's or an analysis' `plan.json`."""
        image = plan["image"]
        levels = zip(image["levels"], image["shards"], strict=True)
        return cls(
            plan["blocks"]["count"],
            tuple((o["path"].removeprefix("."), o.get("times", 0), len(o["channels"])) for o in plan["outputs"]),
            tuple(Tiling(Box.of_shape(triple(shape)), triple(shard)) for shape, shard in levels),
            plan["blocks"]["levels"],
            WorkRecord if "kind" in plan else BlockRecord,
            plan["blocks"].get("frames", 1),
        )

    def total(self, level: int | None) -> int:
        """Return the number of blocks, or of shards of a coarse level."""
        return self.count if level is None else len(self.levels[level])

    def of_block(self, where: Place, number: int, result: Mapping[str, Any]) -> Iterator[StoredFile]:
        """Yield the files of a block, in the order of writing within each output, from its result in the journal.

        Raises MalformedError if no block of this run can have this result.
        """
        record = validate(self.record, result)
        if isinstance(record, BlockRecord) and len(record.images) != self.groups[0][2]:
            raise MalformedError("has other channels")
        if self.groups:
            span, place = divmod(number, len(self.levels[0]))
            only = span if self.span > 1 else None
            yield from self._shards(where, reversed(range(self.owned)), self.levels[0].position(place), result, only)
        for folder, stored in result["tables"].items():
            yield StoredFile(str(tables.part(where, folder, number)), Stored(*stored))

    def of_level(self, where: Place, level: int, number: int, result: Mapping[str, Any]) -> Iterator[StoredFile]:
        """Yield the files of `make_shard`, from its result in the level's journal; raises as `of_block`."""
        validate(LevelRecord, result)
        yield from self._shards(where, [level], self.levels[level].position(number), result)

    def _shards(
        self,
        where: Place,
        levels: Iterable[int],
        position: Triple,
        result: Mapping[str, Any],
        span: int | None = None,
    ) -> Iterator[StoredFile]:
        """Yield the shards at one position of some levels, of all outputs, times (or a span) and channels, time after time."""
        root, levels = str(where.zarr), list(levels)
        for group, times, channels in self.groups:
            shards = result["stored"].get(group, ())
            lengths = range(-(-times // self.span)) if span is None else [span]
            if span and not times:
                lengths = []  # written with the first span
            if len(shards) != len(levels) * max(1, channels) * (len(lengths) if times or span else 1):
                raise MalformedError(f"has {len(shards)} shards of {group or 'the image'}")
            stored = iter(shards)
            at_channels: list[tuple[int, ...]] = [(c, *position) for c in range(channels)] or [position]
            at_times: list[tuple[int, ...]] = [(t,) for t in lengths] if times or span else [()]
            for time, level in itertools.product(at_times, levels):
                array = f"{root}/{group}/{level}" if group else f"{root}/{level}"
                for place in at_channels:
                    yield StoredFile(shard_key(array, (*time, *place)), Stored(*next(stored)))


Exists = Callable[[str], bool]
"""Return whether a file exists."""


def list_files(where: Place, layout: Layout) -> Exists:
    """List the files of a run's arrays and of its blocks' tables once; return a function that looks a file up."""
    arrays = [
        where.zarr / f"{group}/{level}/c".lstrip("/")
        for group, *_ in layout.groups
        for level in range(len(layout.levels))
    ]
    return presence(*arrays, where.tables)


def all_exist(files: Iterator[StoredFile], exists: Exists) -> bool:
    """Return whether all files exist that should; their content is not checked. False for a malformed record."""
    try:
        return all(exists(path) for path, stored in files if stored.nbytes)
    except MalformedError:
        return False


def files_of_run(plan: Plan, where: Place) -> tuple[list[Location], list[Location]]:
    """List the files below NAME.zarr and below NAME.run that are in no journal."""
    zarr = [where.zarr / key for key in sorted(metadata_keys(plan))]
    merged = [where.tables / tables.file_name(t.product) for t in plan.tables if t.product.merge != "rows"]
    return zarr, [where.run / PLAN, *merged, *sorted(p for p in files_below(where.passes) if p.parent.name == "table")]


def write_manifest(where: Place, zarr: Iterable[Location], run: Iterable[Location], root: bytes) -> None:
    """Write sizes and checksums of files in NAME.zarr and NAME.run that are in no journal; missing ones are left out.

    `root` is the content of the root's metadata file, which is written later.
    """
    files = {"zarr": _measured(zarr, where.zarr), "run": _measured(run, where.run)}
    files["zarr"]["zarr.json"] = [len(root), checksum(root)]
    text = json.dumps({**files, "checksum": _checksum(files)}, indent=2)
    Files(where.run, where.scratch).put(MANIFEST, text.encode())


def read_manifest(where: Place) -> list[StoredFile]:
    """Read the files that `write_manifest` recorded.

    Raises OSError if the manifest is missing, MalformedError if it is damaged, by its own checksum, and OutputError if
    it is not damaged, but no run wrote it: it names files outside of the result.
    """
    files = read_mapping(where.run / MANIFEST)
    if files.pop("checksum", None) != _checksum(files):
        raise MalformedError("has changed since it was written: its own checksum differs")
    try:
        validate(Manifest, files)
    except MalformedError as error:
        raise OutputError(
            f"{where.run / MANIFEST} {error}. No run writes that, and it could lead out of the result, so nothing is touched. "
            "Do not trust this result; compute it again with `simexm run --overwrite`"
        ) from error
    folders = (("zarr", where.zarr), ("run", where.run))
    return [StoredFile(str(folder / key), Stored(*s)) for name, folder in folders for key, s in files[name].items()]


def _checksum(files: Mapping[str, Any]) -> str:
    return checksum(json.dumps(files, sort_keys=True, separators=(",", ":")).encode())


def array_key(group: str, level: int) -> str:
    """Return the path of an array's metadata file below the root."""
    return f"{group}/{level}/zarr.json".lstrip("/")


def metadata_keys(plan: Plan) -> set[str]:
    """List the paths of a run's metadata files below the root, without the root's own."""
    return volume_keys(plan.volumes) | ({"OME/zarr.json", METADATA} if plan.acquisition.groups else set())


def volume_keys(volumes: Volumes) -> set[str]:
    """List the paths of the metadata files of arrays and their groups below the root, without the root's own."""
    arrays = {array_key(o.group, n) for o in volumes.outputs for n in range(len(volumes.levels))}
    groups = {str(folder / "zarr.json") for key in arrays for folder in PurePosixPath(key).parents[1:]}
    return (arrays | groups) - {"zarr.json"}


def _measured(files: Iterable[Location], folder: Location) -> dict[str, list[Any]]:
    found = {str(path.relative_to(folder)): measure(path) for path in files}
    return {key: [stored.nbytes, stored.checksum] for key, stored in found.items() if stored.nbytes}
