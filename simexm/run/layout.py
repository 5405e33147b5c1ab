"""Which files the pieces of a run leave, and where: to find them takes neither the source nor the microscope."""

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
from simexm.store.documents import MalformedError, obey, read_mapping
from simexm.store.files import Files, Stored, checksum, measure
from simexm.store.listing import files_below, presence
from simexm.store.location import Location
from simexm.store.metadata import Count, Manifest, Number, Read, StoredTold
from simexm.store.omexml import METADATA
from simexm.store.omezarr import shard_key


class Left(NamedTuple):
    """A file, and what a record says of it; of 0 bytes where there shall be none.

    The path is plain text, since a resumed run looks at all of them.
    """

    path: str
    stored: Stored


class LevelTold(Read):
    """What `make_shard` told of a shard of a coarse level."""

    stored: dict[Group | Literal[""], list[StoredTold]]


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


class WorkTold(LevelTold):
    """What every block tells, of a run or of an analysis."""

    tables: dict[Folder, StoredTold]
    rows: dict[Name, Count]
    largest: dict[Group | Literal[""], list[Number]]
    peak_bytes: Count


class BlockTold(WorkTold):
    """What `run_block` told of a block."""

    voxels: Count
    sums: dict[Name, dict[str, Count]]
    unspecific: dict[str, Count]
    images: list[_Counted]
    profile: dict[str, Annotated[list[Number], Field(min_length=3, max_length=3)]] = Field(default_factory=dict)


def sensible(records: Iterable[Record], model: type[LevelTold] = BlockTold) -> Iterator[Record]:
    """Those records that blocks, or shards of coarse levels, told."""
    for record in records:
        with contextlib.suppress(MalformedError):
            obey(model, record.result)
            yield record


@dataclass(frozen=True)
class Layout:
    """How a result is cut into files.

    Attributes
    ----------
    count
        Number of blocks.
    groups
        Each output's group, number of times, and number of channels; 0 where it has no such axis.
    levels
        Shards of each level.
    owned
        How many levels, from the full resolution on, are written by blocks.
    told
        What the journal holds of a block.
    """

    count: int
    groups: tuple[tuple[str, int, int], ...]
    levels: tuple[Tiling, ...]
    owned: int
    told: type[WorkTold]

    @classmethod
    def of(cls, plan: Mapping[str, Any]) -> Layout:
        """The layout by what `plan.json` of a run or an analysis holds."""
        image = plan["image"]
        levels = zip(image["levels"], image["shards"], strict=True)
        return cls(
            plan["blocks"]["count"],
            tuple((o["path"].removeprefix("."), o.get("times", 0), len(o["channels"])) for o in plan["outputs"]),
            tuple(Tiling(Box.of_shape(triple(shape)), triple(shard)) for shape, shard in levels),
            plan["blocks"]["levels"],
            WorkTold if "kind" in plan else BlockTold,
        )

    def total(self, level: int | None) -> int:
        """Number of blocks, or of shards of a coarse level."""
        return self.count if level is None else len(self.levels[level])

    def of_block(self, where: Place, number: int, result: Mapping[str, Any]) -> Iterator[Left]:
        """What a block left, in the order of writing within each output, by its record in the journal.

        Raises
        ------
        MalformedError
            If no block of this run told that.
        """
        told = obey(self.told, result)
        if isinstance(told, BlockTold) and len(told.images) != self.groups[0][2]:
            raise MalformedError("tells of other channels")
        if self.groups:
            yield from self._shards(where, reversed(range(self.owned)), self.levels[0].position(number), result)
        for folder, stored in result["tables"].items():
            yield Left(str(tables.part(where, folder, number)), Stored(*stored))

    def of_level(self, where: Place, level: int, number: int, result: Mapping[str, Any]) -> Iterator[Left]:
        """What `make_shard` left, by its record in the level's journal; raises as `of_block`."""
        obey(LevelTold, result)
        yield from self._shards(where, [level], self.levels[level].position(number), result)

    def _shards(
        self, where: Place, levels: Iterable[int], position: Triple, result: Mapping[str, Any]
    ) -> Iterator[Left]:
        """The shards at one position of some levels, of all outputs, times and channels, time after time."""
        root, levels = str(where.zarr), list(levels)
        for group, times, channels in self.groups:
            shards = result["stored"].get(group, ())
            if len(shards) != len(levels) * max(1, channels) * max(1, times):
                raise MalformedError(f"tells of {len(shards)} shards of {group or 'the image'}")
            told = iter(shards)
            at_channels: list[tuple[int, ...]] = [(c, *position) for c in range(channels)] or [position]
            at_times: list[tuple[int, ...]] = [(t,) for t in range(times)] or [()]
            for time, level in itertools.product(at_times, levels):
                array = f"{root}/{group}/{level}" if group else f"{root}/{level}"
                for place in at_channels:
                    yield Left(shard_key(array, (*time, *place)), Stored(*next(told)))


Look = Callable[[str], bool]
"""Whether a file is there."""


def look_at(where: Place, layout: Layout) -> Look:
    """What tells which files of a run's arrays, and of its blocks' tables, are there: a store is listed once."""
    arrays = [
        where.zarr / f"{group}/{level}/c".lstrip("/")
        for group, *_ in layout.groups
        for level in range(len(layout.levels))
    ]
    return presence(*arrays, where.tables)


def all_there(files: Iterator[Left], is_there: Look) -> bool:
    """Whether every file that holds something is there; what is in them is not looked at. Not where the record makes no sense."""
    try:
        return all(is_there(path) for path, stored in files if stored.nbytes)
    except MalformedError:
        return False


def files_of_run(plan: Plan, where: Place) -> tuple[list[Location], list[Location]]:
    """List the files below NAME.zarr, and those below NAME.run, that no journal records."""
    zarr = [where.zarr / key for key in sorted(metadata_keys(plan))]
    merged = [where.tables / tables.file_name(t.product) for t in plan.tables if t.product.merge != "rows"]
    return zarr, [where.run / PLAN, *merged, *sorted(p for p in files_below(where.passes) if p.parent.name == "table")]


def write_manifest(where: Place, zarr: Iterable[Location], run: Iterable[Location], root: bytes) -> None:
    """Write sizes and checksums of files of which no journal tells.

    Parameters
    ----------
    where
        The result.
    zarr, run
        Files below NAME.zarr and below NAME.run; those that do not exist are left out.
    root
        What the root's metadata file will hold, which is written after this.
    """
    told = {name: _told(files, folder) for name, files, folder in (("zarr", zarr, where.zarr), ("run", run, where.run))}
    told["zarr"]["zarr.json"] = [len(root), checksum(root)]
    text = json.dumps({**told, "checksum": _checksum(told)}, indent=2)
    Files(where.run, where.scratch).put(MANIFEST, text.encode())


def read_manifest(where: Place) -> list[Left]:
    """What `write_manifest` wrote.

    Raises
    ------
    OSError
        If it is gone.
    MalformedError
        If it is damaged, by its own checksum.
    OutputError
        If it is not damaged, and yet no run wrote it: it names files outside of the result.
    """
    told = read_mapping(where.run / MANIFEST)
    if told.pop("checksum", None) != _checksum(told):
        raise MalformedError("holds other bytes than were written: its own checksum is another")
    try:
        obey(Manifest, told)
    except MalformedError as error:
        raise OutputError(
            f"{where.run / MANIFEST} {error}. No run writes that, and it could lead out of the result, so nothing is touched. "
            "Do not trust this result; make it anew with `simexm run --overwrite`"
        ) from error
    folders = (("zarr", where.zarr), ("run", where.run))
    return [Left(str(folder / key), Stored(*stored)) for name, folder in folders for key, stored in told[name].items()]


def _checksum(told: Mapping[str, Any]) -> str:
    return checksum(json.dumps(told, sort_keys=True, separators=(",", ":")).encode())


def array_key(group: str, level: int) -> str:
    """Path below the root of an array's metadata file."""
    return f"{group}/{level}/zarr.json".lstrip("/")


def metadata_keys(plan: Plan) -> set[str]:
    """Paths below the root of all metadata files of a run, but for the root's own."""
    return volume_keys(plan.volumes) | ({"OME/zarr.json", METADATA} if plan.acquisition.groups else set())


def volume_keys(volumes: Volumes) -> set[str]:
    """Paths below the root of the metadata files of all arrays and their groups, but for the root's own."""
    arrays = {array_key(o.group, n) for o in volumes.outputs for n in range(len(volumes.levels))}
    groups = {str(folder / "zarr.json") for key in arrays for folder in PurePosixPath(key).parents[1:]}
    return (arrays | groups) - {"zarr.json"}


def _told(files: Iterable[Location], folder: Location) -> dict[str, list[Any]]:
    found = {str(path.relative_to(folder)): measure(path) for path in files}
    return {key: [stored.nbytes, stored.checksum] for key, stored in found.items() if stored.nbytes}
