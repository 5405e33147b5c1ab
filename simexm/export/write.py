"""Write the files of jobs, after checking all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

from simexm.errors import OutputError
from simexm.export.formats import MOVIES, Format
from simexm.export.gif import LONGEST_SIDE, write_gif
from simexm.export.png import write_png
from simexm.export.recording import write_recording
from simexm.export.stack import Head, Job, Plane, Target
from simexm.export.tiff import write_ome_tiff, write_tiff
from simexm.export.video import need_av, refuse_dtype, write_avi
from simexm.store.atomic_file import refuse
from simexm.store.location import Location, refuse_url

Progress = Callable[[int, int], None]
"""Called with the numbers of planes written and to be written."""

SUFFIXES = {
    Format.TIFF: ".tiff",
    Format.OME_TIFF: ".ome.tiff",
    Format.GIF: ".gif",
    Format.PNG: "",
    Format.AVI: ".avi",
    Format.MINISCOPE: "",
}

_WRITERS: dict[Format, Callable[[Path, Head], AbstractContextManager[Callable[[Plane], None]]]] = {
    Format.TIFF: write_tiff,
    Format.OME_TIFF: write_ome_tiff,
    Format.GIF: write_gif,
    Format.PNG: write_png,
    Format.AVI: write_avi,
    Format.MINISCOPE: write_recording,
}


def check(jobs: Sequence[tuple[Job, Format]], folder: Path, *, overwrite: bool) -> list[Path]:
    """Return the paths of all files, without reading or writing.

    Raises OutputError if one lies outside `folder`, exists and may not be replaced, or its planes do not fit the format.
    """
    for job, form in jobs:
        heads = [target.head for target in job.targets]
        _refuse_too_large(heads, form)
        if form in MOVIES:
            need_av()
            for head in heads:
                refuse_dtype(head)
    paths = [_path(target, form) for job, form in jobs for target in job.targets]
    for path in paths:
        if not path.parent.resolve().is_relative_to(folder.resolve()) or path.name in ("", ".", ".."):
            raise OutputError(f"{path} lies outside of the folder {folder}, so nothing is written. Name another.")
    refuse(paths, overwrite=overwrite)
    return paths


def write(
    jobs: Sequence[tuple[Job, Format]], folder: Path, *, overwrite: bool, progress: Progress | None = None
) -> list[Path]:
    """Check and write all files below `folder`; return their paths. Raises OutputError as `check`, or if the disk refuses."""
    paths = check(jobs, folder, overwrite=overwrite)
    done, total = 0, sum(job.count for job, _ in jobs)
    for job, form in jobs:
        with ExitStack() as stack:
            adds = [stack.enter_context(_WRITERS[form](_path(t, form), t.head)) for t in job.targets]
            for parts in job.parts():
                for add, plane in zip(adds, parts, strict=True):
                    add(plane)
                done += len(adds)
                if progress is not None:
                    progress(done, total)
    return paths


def check_folder(folder: Path, places: Sequence[Location]) -> None:
    """Raise OutputError if `folder` is a URL or a file, or lies inside one of `places`, the folders of a result."""
    refuse_url(folder)
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file, so nothing can be written below it. Name a folder.")
    for ours in places:
        if isinstance(ours, Path) and folder.resolve().is_relative_to(ours):
            raise OutputError(
                f"{folder} lies inside {ours}, where other files disturb readers. Name a folder beside it."
            )


def _path(target: Target, form: Format) -> Path:
    return target.path.with_name(target.path.name + SUFFIXES[form])


def _refuse_too_large(heads: Iterable[Head], form: Format) -> None:
    for head in heads:
        side = max(head.shape[1:])
        if form is Format.GIF and side > LONGEST_SIDE:
            raise OutputError(
                f"planes of {head.shape[1]} x {head.shape[2]} pixels do not fit into a GIF, which counts to {LONGEST_SIDE}. "
                "Type --level for a coarser one, or --format ome-tiff."
            )
