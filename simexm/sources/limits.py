"""Bounds on sizes in metadata, so that absurd or hostile ones end in a message and not in a full memory."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from simexm.errors import SourceError
from simexm.units import size, times

METADATA_BYTES = 64 * 2**20
"""Largest metadata file that is read."""
MOST_CHUNKS = 10**11
"""25 times the chunks of a petabyte in chunks of 64 x 64 x 64."""
CHUNK_BYTES = 2**36
"""Largest decoded chunk."""


def read_json(path: Path) -> Any:
    """Return the content of a JSON file; None if there is no such file.

    Raises SourceError if it cannot be read, is no JSON, is nested too deep, or is larger than metadata ever are.
    """
    try:
        refuse_large(str(path), path.stat().st_size)
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except RecursionError:
        raise SourceError(
            f"{path} is nested too deeply for metadata of a volume. Copy it again from where it came."
        ) from None
    except (OSError, ValueError) as error:
        raise SourceError(f"{path} cannot be read: {error}. Copy it again from where it came.") from error


def refuse_large(where: str, nbytes: int) -> None:
    """Raise SourceError if metadata are larger than for any volume."""
    if nbytes > METADATA_BYTES:
        raise SourceError(
            f"{where} has {nbytes} bytes, and metadata have less than {METADATA_BYTES}; reading it would fill the memory. "
            "Check that it is the metadata of a volume, and copy it again from where it came."
        )


def refuse_absurd(where: str, shape: Sequence[int], chunk: Sequence[int], itemsize: int) -> None:
    """Check the shape of an array and of its chunks, with `itemsize` bytes per element.

    Raises SourceError if an axis is not positive, a chunk is too large for memory, or there are more chunks than any
    store holds.
    """
    shapes = f"{where} has the shape {times(shape) or '()'} in chunks of {times(chunk) or '()'}"
    if any(n < 1 for n in shape):
        raise SourceError(f"{where} is empty: its shape is {times(shape)}.")
    if len(chunk) != len(shape) or any(n < 1 for n in chunk):
        raise SourceError(f"{shapes}, which is no possible chunk. Correct the metadata, or copy it again.")
    if math.prod(chunk) * itemsize > CHUNK_BYTES:
        raise SourceError(
            f"{shapes}, and one chunk would take {size(math.prod(chunk) * itemsize)} of memory. "
            "Correct the metadata, or write a copy in smaller chunks."
        )
    count = math.prod(-(-n // c) for n, c in zip(shape, chunk, strict=True))
    if count > MOST_CHUNKS:
        raise SourceError(
            f"{shapes}: {count:.2g} chunks, more than could be read in a lifetime. "
            "Correct the metadata, or write a copy in larger chunks."
        )
