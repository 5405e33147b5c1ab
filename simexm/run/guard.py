"""What stands in the way of an output, and removing what simexm itself wrote there and nothing else."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shlex
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from simexm.errors import DiskError, OutputError, RunError
from simexm.result.place import (
    COMPLETE,
    JOBS,
    LOCK,
    PLAN,
    PREPARING,
    PROBE,
    RUN_NAMES,
    SCRATCH,
    Place,
    refuse_other_format,
    retire_scratch,
)
from simexm.sources.base import ZarrSource
from simexm.store.claims import claim, has_claim
from simexm.store.documents import read_mapping
from simexm.store.files import remove_tree
from simexm.store.listing import files_below, links_below
from simexm.store.location import Location, is_url, location
from simexm.store.refusals import RemoteError
from simexm.store.remote import Remote

_PROBE_BYTES = 1 << 16
_REASONS = {
    errno.ENOSPC: "the disk is full; free some space, or choose another --output",
    errno.EDQUOT: "your quota is used up; free some space, or choose another --output",
    errno.EROFS: "it is mounted read-only; choose another --output",
    errno.EACCES: "you may not write there; choose another --output, or change its permissions",
    errno.EPERM: "you may not write there; choose another --output, or change its permissions",
}


def refuse(parameter_hash: str, reads: Iterable[Location], place: Place, overwrite: bool) -> None:
    """Refuse an output that is in the way; touches nothing.

    Parameters
    ----------
    parameter_hash
        Of what is to be written.
    reads
        What is read for it, and must not be overwritten.
    place
        The output.
    overwrite
        Whether what simexm wrote there before is to be replaced.

    Raises
    ------
    OutputError
        With what to type instead.
    """
    with _readable(place):
        _refuse(parameter_hash, reads, place, overwrite)


def refuse_links(place: Place) -> None:
    """Refuse a result with symbolic links in it: what is written, or removed, there would be outside; touches nothing.

    Raises
    ------
    OutputError
        With what to do instead.
    """
    for link in links_in(place):
        raise OutputError(
            f"{link} is a symbolic link to {os.readlink(link)}, where runs would write and delete outside of the result, so "
            f"nothing is touched. Put the files themselves there, or remove the link (rm {shlex.quote(str(link))})"
        )


def links_in(place: Place) -> Iterator[Path]:
    """Symbolic links in a result; NAME.zarr itself may be one, which is followed when it is named."""
    if place.run.is_symlink():
        yield place.run
        return
    for folder in (place.run, place.zarr):
        yield from links_below(folder)


def _refuse(parameter_hash: str, reads: Iterable[Location], place: Place, overwrite: bool) -> None:
    _refuse_inputs(reads, place)
    refuse_links(place)
    mark = place.mark()
    if mark is None:
        _refuse_foreign_zarr(place)
    elif not overwrite:
        refuse_other_format(place.zarr, mark, "a resumed run would leave files of two formats in it")
    _refuse_foreign_run(place)
    if mark is None:
        if not overwrite and _holds_work(place):
            raise OutputError(
                f"{place.run} holds tables of an earlier run whose {place.zarr.name} is gone; they would be lost: choose "
                "another --output, or replace them with --overwrite"
            )
    elif overwrite:
        _refuse_strangers(place, mark)
    elif mark["hash"] != parameter_hash:
        raise OutputError(
            f"{place.zarr} holds a result of other parameters, or of other labels (hash {mark['hash'][:12]}, now "
            f"{parameter_hash[:12]}), which would be lost; choose another --output, or replace it with --overwrite"
        )
    elif mark.get("status") == COMPLETE:
        raise OutputError(
            f"{place.zarr} is there already, complete and of these parameters; make it again with --overwrite"
        )
    _refuse_unwritable(place)


@contextlib.contextmanager
def _readable(place: Place) -> Iterator[None]:
    """What a store says that refuses: no bucket, no credentials, no permission."""
    try:
        yield
    except RemoteError as error:
        raise OutputError(why(error, f"{place.zarr} cannot be used as the output")) from error


def clear(place: Place) -> None:
    """Remove what runs wrote at a place that `refuse` let pass: the Zarr, and in NAME.run what runs put there but lock and jobs.

    Stopped halfway, what is left no longer passes for an image, but still for simexm's.
    """
    mark = place.mark()
    retire_scratch(place)  # before all else: from now on no worker of an earlier run can write
    remove_tree(place.journal)  # next: it must not vouch for shards that are gone
    for name in RUN_NAMES - {PLAN}:
        remove_tree(place.run / name)
    if mark is not None:
        text = {"attributes": {"simexm": {**mark, "status": PREPARING}}, "zarr_format": 3, "node_type": "group"}
        try:
            claim(place.scratch)
            place.files.put("zarr.json", json.dumps(text).encode())
        except OSError:  # on a full disk
            (place.zarr / "zarr.json").unlink()
        for path in place.zarr.iterdir():
            if path.name != "zarr.json":
                remove_tree(path)
        remove_tree(place.zarr)
        remove_tree(place.run / SCRATCH)
    with contextlib.suppress(OSError):
        place.zarr.rmdir()  # where it is there and empty
    remove_tree(place.run / PLAN)


def refuse_strange(parameter_hash: str, place: Place) -> None:
    """Keep a worker that an earlier run left from writing.

    One that falls asleep after this look fails all the same when it writes: its scratch folder went away with its run.

    Raises
    ------
    OutputError
        If the output is gone, or belongs to another run by now.
    """
    mark = place.mark()
    if mark is None:
        raise OutputError(f"{place.zarr} was renamed or removed meanwhile, so this worker's block is not written")
    if mark["hash"] != parameter_hash:
        raise OutputError(f"{place.zarr} now belongs to another run; this worker's block is not written")


def why(error: OSError, doing: str) -> str:
    """What the system refused, and what to do about it."""
    if isinstance(error, RemoteError):
        return f"{doing}: {error.strerror}"
    if error.errno in _REASONS:
        return f"{doing}: {_REASONS[error.errno]}"
    where = f" ({error.filename})" if error.filename else ""
    return f"{doing}: {error.strerror or error}{where}; choose another --output, or mend that"


def stopped(error: OSError, place: Place) -> DiskError | RunError:
    """The error for a disk, or a connection, that refuses in the middle of a run."""
    kept = f"What was finished is kept in {place.zarr.name} and {place.run.name}"
    if is_lost(place) or is_gone(place):
        return lost(place)
    if isinstance(error, OutputError):
        return DiskError(str(error))
    if error.errno is None:  # Dask's errors of communication are OSErrors, too
        return RunError(f"the run stopped: {type(error).__name__}: {error}. {kept}: type the same command again")
    where = f" ({error.filename})" if error.filename else ""
    if isinstance(error, RemoteError):
        return DiskError(f"the run stopped{where}: {error.strerror}. {kept}: then type the same command again")
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return DiskError(
            f"the run stopped: too many open files{where}. {kept}: raise that (ulimit -n), then type it again"
        )
    return DiskError(
        f"the run stopped, for the disk refuses: {error.strerror}{where}. {kept}: mend that (free some space), then type "
        "the same command again"
    )


def is_lost(place: Place) -> bool:
    """Whether another driver took the claim away."""
    try:
        return not has_claim(place.scratch) and place.run.is_dir()
    except RemoteError:
        return False


def is_gone(place: Place) -> bool:
    """Whether the output was renamed or removed."""
    try:
        return place.mark() is None or not (place.run / PLAN).is_file()
    except OSError:
        return False


def lost(place: Place) -> RunError:
    """The error where it did, or where the output is gone."""
    if is_gone(place):
        return RunError(
            f"{place.zarr} or {place.run.name} beside it is gone: they were renamed or removed while the run was writing them, "
            "and nothing more is written. Put both back under these names and type the same command again; if they are lost, "
            "remove what is left, and the command begins anew"
        )
    return RunError(
        f"another run has taken {place.zarr} over, since this one gave no sign of life or its lock was removed: this one "
        "stopped and writes nothing more"
    )


def labels_read(source: object) -> Iterator[Location]:
    """Where a source and its fields stand, as far as they stand anywhere."""
    if isinstance(source, ZarrSource):
        yield location(source.path)
        for path in (*source.regions.values(), *(each.path for each in source.fields.values())):
            if is_url(path) or not is_url(source.path):  # others lie inside the source
                yield location(path)


def _refuse_inputs(reads: Iterable[Location], place: Place) -> None:
    for read in reads:
        if place.zarr in (read, *read.parents) or read in place.zarr.parents:
            raise OutputError(
                f"{place.zarr} is read from, for the input is {read}, so it cannot be written; choose another --output"
            )


def _refuse_foreign_zarr(place: Place) -> None:
    zarr = place.zarr
    if zarr.is_dir() and not any(zarr.iterdir()):
        return
    if zarr.exists() or zarr.is_symlink():
        raise OutputError(
            f"{zarr} exists and is no simexm result, so it is left alone, --overwrite or not; choose another --output. If it was "
            f"one, its zarr.json is damaged: simexm verify {zarr} --repair"
        )


def _refuse_foreign_run(place: Place) -> None:
    run = place.run
    if not (run.exists() or run.is_symlink()) or _is_ours(run):
        return
    raise OutputError(
        f"{run}, where the run's tables and journal would go, exists and is no simexm run folder, so it is left alone; "
        "choose another --output"
    )


def _is_ours(run: Location) -> bool:
    if not run.is_dir():
        return False
    if {p.name for p in run.iterdir()} <= {LOCK, JOBS, PROBE}:
        return True
    try:
        return "hash" in read_mapping(run / PLAN)
    except (OSError, ValueError):
        return False


def _holds_work(place: Place) -> bool:
    return any(True for folder in (place.journal, place.tables) for _ in files_below(folder))


def _refuse_strangers(place: Place, mark: Mapping[str, Any]) -> None:
    """Refuse to replace a result to which someone added arrays of their own."""
    frames = mark.get("frames", ())
    known = {"zarr.json", "labels", *mark.get("outputs", ()), *frames, *(["OME"] if frames else ())}
    found = []
    for image in frames or [""]:
        for name in _below(place.zarr / image):
            path = f"{image}/{name}".lstrip("/")
            if not name.isdigit() and name not in ("zarr.json", "labels") and path not in known:
                found.append(path)
        if "outputs" in mark:
            labels = f"{image}/labels".lstrip("/")
            paths = [f"{labels}/{name}" for name in _below(place.zarr / labels) if name != "zarr.json"]
            found += [path for path in paths if path not in known]
    if frames:
        found += [name for name in _below(place.zarr) if name not in known]
    if found:
        raise OutputError(
            f"{place.zarr} holds {', '.join(sorted(found))}, which no run wrote and --overwrite would delete; move it elsewhere, "
            "or choose another --output"
        )


def _below(folder: Location) -> list[str]:
    return [p.name for p in folder.iterdir()] if folder.is_dir() else []


def _refuse_unwritable(place: Place) -> None:
    if isinstance(place.zarr, Remote):
        probe = place.zarr.with_suffix(".run") / PROBE
        probe.put(b"")  # what is allowed is known from trying alone
        probe.unlink(missing_ok=True)
        return
    folder = next(p for p in (place.zarr, *place.zarr.parents) if p.exists())
    if not folder.is_dir():
        raise OutputError(f"{folder} is a file, so nothing can be written below it; choose another --output")
    for where in {folder, place.zarr.parent if place.zarr.parent.exists() else folder}:
        try:
            with tempfile.TemporaryFile(dir=where) as file:  # asking is not enough: a full disk says yes
                file.write(bytes(_PROBE_BYTES))
                file.flush()
        except OSError as error:
            raise OutputError(why(error, f"{where} cannot be written to")) from error
