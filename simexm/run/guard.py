"""Refuse outputs that cannot be written safely, and remove what simexm wrote there, nothing else."""

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
    """Raise OutputError if an output cannot be written, or holds anything but a result to resume or overwrite.

    Nor may it be one of the inputs, `reads`. Nothing is changed.
    """
    try:
        _refuse(parameter_hash, reads, place, overwrite)
    except RemoteError as error:  # no bucket, no credentials, no permission
        raise OutputError(why(error, f"{place.zarr} cannot be used as the output")) from error


def refuse_links(place: Place) -> None:
    """Raise OutputError if a result holds symbolic links: files would be written or removed outside of it."""
    for link in links_in(place):
        raise OutputError(
            f"{link} is a symbolic link to {os.readlink(link)}, where runs would write and delete outside of the result, so "
            f"nothing is touched. Put the files themselves there, or remove the link (rm {shlex.quote(str(link))})"
        )


def links_in(place: Place) -> Iterator[Path]:
    """Yield the symbolic links in a result; NAME.zarr itself may be one, and is followed."""
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
        if not overwrite and any(True for folder in (place.journal, place.tables) for _ in files_below(folder)):
            raise OutputError(
                f"{place.run} holds tables of an earlier run whose {place.zarr.name} is gone; they would be lost: choose "
                "another --output, or replace them with --overwrite"
            )
    elif overwrite:
        _refuse_foreign_arrays(place, mark)
    elif mark["hash"] != parameter_hash:
        raise OutputError(
            f"{place.zarr} holds a result of other parameters, or of other labels (hash {mark['hash'][:12]}, now "
            f"{parameter_hash[:12]}), which would be lost; choose another --output, or replace it with --overwrite"
        )
    elif mark.get("status") == COMPLETE:
        raise OutputError(
            f"{place.zarr} exists already, complete and with these parameters; compute it again with --overwrite"
        )
    _refuse_unwritable(place)


def clear(place: Place) -> None:
    """Remove the files of runs from an output that `refuse` accepted: NAME.zarr, and NAME.run but for lock and jobs.

    If it is stopped halfway, the rest is marked as simexm's but not as an image.
    """
    mark = place.mark()
    retire_scratch(place)  # first: from now on no worker of an earlier run can write
    remove_tree(place.journal)  # next: it must not list shards that are gone
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
        place.zarr.rmdir()  # if it exists and is empty
    remove_tree(place.run / PLAN)


def refuse_other_run(parameter_hash: str, place: Place) -> None:
    """Raise OutputError if the output is gone or now belongs to another run: a worker of the earlier run must not write.

    A worker that is suspended after this check fails when it writes: its scratch folder was removed with its run.
    """
    mark = place.mark()
    if mark is None:
        raise OutputError(f"{place.zarr} was renamed or removed meanwhile, so this worker's block is not written")
    if mark["hash"] != parameter_hash:
        raise OutputError(f"{place.zarr} now belongs to another run; this worker's block is not written")


def why(error: OSError, doing: str) -> str:
    """Describe an error of the file system, and what to do about it."""
    if isinstance(error, RemoteError):
        return f"{doing}: {error.strerror}"
    if error.errno in _REASONS:
        return f"{doing}: {_REASONS[error.errno]}"
    where = f" ({error.filename})" if error.filename else ""
    return f"{doing}: {error.strerror or error}{where}; fix that, or choose another --output"


def stopped(error: OSError, place: Place) -> DiskError | RunError:
    """Make the error to raise when a disk or a connection fails during a run."""
    kept = f"Finished blocks are kept in {place.zarr.name} and {place.run.name}"
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
            f"the run stopped: too many open files{where}. {kept}: raise the limit (ulimit -n), then type the same command again"
        )
    return DiskError(
        f"the run stopped, since the disk failed: {error.strerror}{where}. {kept}: fix that (free some space), then type "
        "the same command again"
    )


def is_lost(place: Place) -> bool:
    """Return whether another driver removed the claim."""
    try:
        return not has_claim(place.scratch) and place.run.is_dir()
    except RemoteError:
        return False


def is_gone(place: Place) -> bool:
    """Return whether the output was renamed or removed."""
    try:
        return place.mark() is None or not (place.run / PLAN).is_file()
    except OSError:
        return False


def lost(place: Place) -> RunError:
    """Make the error to raise when the claim is lost or the output is gone."""
    if is_gone(place):
        return RunError(
            f"{place.zarr} or {place.run.name} beside it is gone: they were renamed or removed while the run was writing them, "
            "and nothing more is written. Put both back under these names and type the same command again; if they are lost, "
            "remove what is left, and the command starts again from the first block"
        )
    return RunError(
        f"another run has taken over {place.zarr}, since this one had no heartbeat or its lock was removed: this one stopped "
        "and writes nothing more"
    )


def labels_read(source: object) -> Iterator[Location]:
    """Yield the stored volumes of a source and its fields."""
    if isinstance(source, ZarrSource):
        yield location(source.path)
        for path in (*source.regions.values(), *(each.path for each in source.fields.values())):
            if is_url(path) or not is_url(source.path):  # others are inside the source
                yield location(path)


def _refuse_inputs(reads: Iterable[Location], place: Place) -> None:
    for read in reads:
        if place.zarr in (read, *read.parents) or read in place.zarr.parents:
            raise OutputError(
                f"{place.zarr} cannot be written, since the input {read} is read from it; choose another --output"
            )


def _refuse_foreign_zarr(place: Place) -> None:
    zarr = place.zarr
    if zarr.is_dir() and not any(zarr.iterdir()):
        return
    if zarr.exists() or zarr.is_symlink():
        raise OutputError(
            f"{zarr} exists and is no simexm result, so it is left as it is, even with --overwrite; choose another --output. If "
            f"it was one, its zarr.json is damaged: simexm verify {zarr} --repair"
        )


def _refuse_foreign_run(place: Place) -> None:
    run = place.run
    if not (run.exists() or run.is_symlink()) or _is_ours(run):
        return
    raise OutputError(
        f"{run}, the folder for the run's tables and journal, exists and is no simexm run folder, so it is left as it is; "
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


def _refuse_foreign_arrays(place: Place, mark: Mapping[str, Any]) -> None:
    """Raise if a result to replace holds arrays that no run wrote."""
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
        probe.put(b"")  # only a write shows whether writing is allowed
        probe.unlink(missing_ok=True)
        return
    folder = next(p for p in (place.zarr, *place.zarr.parents) if p.exists())
    if not folder.is_dir():
        raise OutputError(f"{folder} is a file, so nothing can be written below it; choose another --output")
    for where in {folder, place.zarr.parent if place.zarr.parent.exists() else folder}:
        try:
            with tempfile.TemporaryFile(dir=where) as file:  # permissions are not enough: the disk may be full
                file.write(bytes(_PROBE_BYTES))
                file.flush()
        except OSError as error:
            raise OutputError(why(error, f"{where} cannot be written to")) from error
