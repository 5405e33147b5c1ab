"""Foreign files among an array's chunks: misnamed chunks would be skipped, and their voxels read as 0."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from simexm.errors import SourceError
from simexm.store.location import Location
from simexm.store.remote import Remote

SAMPLE = 4096
"""Most entries of a folder, with all below it, that are checked; of an object store one page of its listing."""
_PAGE = 1000
_DEEPER = 4
_BESIDE = re.compile(
    r"\..*|__MACOSX|zarr\.json|attributes\.json|info|provenance|header\.wkw|thumbs\.db|desktop\.ini|lost\+found"
    r"|(readme|license)\b.*|.*\.(partial|tmp|txt|md|json|xml|ya?ml|html|log|lock)",
    re.IGNORECASE,
)
RENAME = "Rename it back to its original name, or move it elsewhere."
Parts = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ChunkNames:
    """How an array's chunks are named."""

    example: str  # name of the first chunk
    is_chunk: Callable[[Parts], bool]  # whether the parts of a path below the array's folder are those of a chunk
    depth: int  # parts of a chunk's path


def grid_names(grid: Sequence[int], separator: str, prefix: Sequence[str] = ()) -> ChunkNames:
    """Return chunk names that are positions on a grid of chunks: Zarr's (0.0.0, 0/0/0, c/0/0/0, c.0.0.0), and N5's."""

    def is_chunk(parts: Parts) -> bool:
        numbers = "/".join(parts).split(separator)
        if numbers[: len(prefix)] != list(prefix) or len(parts) != depth:
            return False
        numbers = numbers[len(prefix) :]
        return len(numbers) == len(grid) and all(_index(n, count) for n, count in zip(numbers, grid, strict=True))

    names = [*prefix, *("0" for _ in grid)]
    depth = len(names) if separator == "/" else 1
    return ChunkNames(separator.join(names), is_chunk, depth)


def _index(text: str, count: int) -> bool:
    return text.isascii() and text.isdigit() and (text == "0" or text[0] != "0") and int(text) < count


def refuse_foreign_files(where: str, folder: Location, names: ChunkNames, hint: Callable[[Parts], str]) -> None:
    """Raise SourceError with three names if foreign files are among the first 4096 files of an array.

    A store that cannot list a part of a folder is not checked. `hint` returns what to do about a file, as a sentence.
    """
    found = [parts for parts in islice(_files(folder, names.depth), SAMPLE) if not names.is_chunk(parts)][:3]
    if found:
        shown = ", ".join("/".join(parts) for parts in found)
        raise SourceError(
            f"{where}: {shown} {'is' if len(found) == 1 else 'are'} among its chunks, and by its metadata a chunk is named "
            f"like {names.example}, so that file would be ignored and its voxels would be 0. {hint(found[0])}"
        )


def _files(folder: Location, depth: int) -> Iterator[Parts]:
    """Yield paths of files below a folder, except metadata and files of file managers."""
    if isinstance(folder, Remote):
        if folder.protocol in ("s3", "s3a"):  # other stores cannot list a part of a folder
            for each in islice(folder.files(), _PAGE):
                parts = each.relative_to(folder).parts
                if not any(_BESIDE.fullmatch(p) for p in parts):
                    yield parts
        return
    yield from _below(folder, (), depth)


def _below(folder: Path, above: Parts, depth: int) -> Iterator[Parts]:
    folders = []
    try:
        with os.scandir(folder) as entries:
            for entry in islice(entries, SAMPLE):
                if _BESIDE.fullmatch(entry.name):
                    continue
                if entry.is_dir():
                    folders.append(entry.name)
                else:
                    yield *above, entry.name
    except OSError:
        return  # reading it will report why
    for name in folders:
        if len(above) < depth + _DEEPER:
            yield from _below(folder / name, (*above, name), depth)
        else:
            yield *above, name
