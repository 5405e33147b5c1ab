"""Write a Zarr group atomically: build it hidden, rename it when complete."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from simexm.errors import DiskError, OutputError, SimexmError
from simexm.store.atomic_file import being_written, refuse_missing_folder
from simexm.store.claims import claim
from simexm.store.documents import read_mapping
from simexm.store.files import Files, remove_tree
from simexm.store.location import Location
from simexm.store.ngff import datasets
from simexm.store.refusals import RemoteError
from simexm.store.regions import fields_of
from simexm.store.remote import Remote


@contextmanager
def atomic_group(output: Location, *, overwrite: bool, writer: str) -> Iterator[Files]:
    """Yield a hidden folder beside `output` to write a Zarr group to; rename it to `output` at the end.

    Object stores cannot rename: there it is `output` itself, which is no Zarr group until its root's metadata are
    written, last of all.

    With `overwrite`, a multiscale group is replaced whose attribute simexm.written_by is `writer` (the command that
    writes the group, such as "simexm ingest") and that holds only its own levels and fields; nothing else is ever
    replaced.

    Raises OutputError if `output` exists and may not be replaced, or cannot be written.
    """
    refuse_group(output, overwrite=overwrite, writer=writer)
    if isinstance(output, Remote):
        with _atomic_remote_group(output) as files:
            yield files
        return
    hidden = output.with_name(f".{output.name}.partial")
    try:
        hidden.mkdir()
    except FileExistsError:
        raise being_written(hidden, output) from None
    except OSError as error:
        raise OutputError(f"{output.parent} cannot be written to: {error.strerror}. Choose another folder.") from error
    try:
        new, scratch = hidden / "new", hidden / "scratch"
        new.mkdir()
        scratch.mkdir()
        yield Files(new, scratch)
        if output.exists():
            output.rename(hidden / "old")
        try:
            new.rename(output)
        except OSError:
            if (hidden / "old").exists():
                (hidden / "old").rename(output)
            raise
    except SimexmError:
        raise
    except OSError as error:
        raise DiskError(
            f"{output} cannot be written: {error.strerror or error}. Nothing of it was stored. Free some space, or choose "
            "another folder."
        ) from error
    finally:
        remove_tree(hidden, ignore_errors=True)


def refuse_group(output: Location, *, overwrite: bool, writer: str) -> None:
    """Raise OutputError if `atomic_group` may not write to `output`; touches nothing."""
    try:
        exists = output.exists()
    except RemoteError as error:
        raise OutputError(f"{output} cannot be written: {error.strerror}") from error
    if exists and not overwrite:
        raise OutputError(f"{output} exists. Choose another name, or replace it with --overwrite.")
    if exists:
        _refuse_foreign(output, writer)
    if output.suffix != ".zarr":
        raise OutputError(
            f"{output} does not end in .zarr, by which viewers know an OME-Zarr. Type {output.stem}.zarr."
        )
    if isinstance(output, Path):
        refuse_missing_folder(output)


@contextmanager
def _atomic_remote_group(output: Remote) -> Iterator[Files]:
    hidden = output.with_name(f".{output.name}.partial")
    try:
        claim(hidden)
    except FileExistsError:
        raise OutputError(
            f"{hidden} exists: {output.name} is being written now, or its writer was killed. If none is running, remove the "
            f"files below it and below {output}"
        ) from None
    except RemoteError as error:
        raise OutputError(f"{output} cannot be written: {error.strerror}") from error
    try:
        (output / "zarr.json").unlink(missing_ok=True)  # first, so that a half-removed group is no group
        remove_tree(output)
        yield Files(output, hidden)
    except BaseException as error:
        remove_tree(output, ignore_errors=True)
        if isinstance(error, OSError) and not isinstance(error, SimexmError):
            raise DiskError(
                f"{output} cannot be written: {error.strerror or error}. Nothing of it was stored."
            ) from error
        raise
    finally:
        remove_tree(hidden, ignore_errors=True)


def _refuse_foreign(output: Location, writer: str) -> None:
    """Refuse to replace a group of another writer, or one with files of another program."""
    try:
        attributes = read_mapping(output / "zarr.json")["attributes"]
        marked = attributes["simexm"]["written_by"] == writer
    except (OSError, ValueError, KeyError, TypeError):
        marked = False
    if not marked:
        raise OutputError(f"{output} was not written by {writer}, so it is not replaced. Choose another name.")
    found = _foreign_files(output, attributes)
    if found:
        raise OutputError(
            f"{output} holds {', '.join(sorted(found))}, which {writer} did not write and --overwrite would delete. Move it "
            "elsewhere, or choose another name."
        )


def _foreign_files(group: Location, attributes: Mapping[str, Any]) -> list[str]:
    """List what a group and the groups of its fields hold besides levels and fields."""
    levels, fields = datasets(attributes), fields_of(attributes["simexm"], str(group))
    found = [p.name for p in group.iterdir() if p.name not in ("zarr.json", *levels, *fields)]
    for level in levels:
        if (group / level).is_dir():
            found += [f"{level}/{p.name}" for p in (group / level).iterdir() if p.name not in ("zarr.json", "c")]
    for field in (f for f in fields if (group / f).exists()):
        try:
            inner = read_mapping(group / field / "zarr.json")["attributes"]
            found += [f"{field}/{name}" for name in _foreign_files(group / field, inner)]
        except (OSError, ValueError, KeyError, TypeError):
            found.append(field)
    return found
