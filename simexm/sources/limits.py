"""Bounds on what a file may ask for, so that absurd or hostile metadata ends in one message and not in a full memory."""

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
"""A petabyte in chunks of 64 x 64 x 64 has a 25th of it."""
CHUNK_BYTES = 2**36
"""Largest decoded chunk."""


def read_json(path: Path) -> Any:
    """Return what a JSON file holds, None where there is no such file.

    Raises
    ------
    SourceError
        If it cannot be read, is no JSON, is nested too deep, or is larger than any metadata.
    """
    try:
        refuse_large(str(path), path.stat().st_size)
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except RecursionError:
        raise SourceError(
            f"{path} is nested too deep to be metadata of a volume. Copy it again from where it came."
        ) from None
    except (OSError, ValueError) as error:
        raise SourceError(f"{path} cannot be read: {error}. Copy it again from where it came.") from error


def refuse_large(where: str, nbytes: int) -> None:
    """Raise SourceError if metadata are larger than any volume needs."""
    if nbytes > METADATA_BYTES:
        raise SourceError(
            f"{where} has {nbytes} bytes, and metadata have less than {METADATA_BYTES}; reading it would fill the memory. "
            "Check that it is the metadata of a volume, and copy it again from where it came."
        )


def refuse_absurd(where: str, shape: Sequence[int], chunk: Sequence[int], itemsize: int) -> None:
    """Check the shape of an array, and of the pieces that it is stored in.

    Parameters
    ----------
    where
        What to call the array in messages.
    shape, chunk
        Elements along each axis, of the array and of what is decoded at once.
    itemsize
        Bytes of an element.

    Raises
    ------
    SourceError
        If an axis is not positive, a chunk is too large for any memory, or there are more chunks than any store holds.
    """
    told = f"{where} has the shape {times(shape) or '()'} in chunks of {times(chunk) or '()'}"
    if any(n < 1 for n in shape):
        raise SourceError(f"{where} is empty: its shape is {times(shape)}.")
    if len(chunk) != len(shape) or any(n < 1 for n in chunk):
        raise SourceError(f"{told}, and no chunk is like that. Correct the metadata, or copy it again.")
    if math.prod(chunk) * itemsize > CHUNK_BYTES:
        raise SourceError(
            f"{told}, and one chunk would take {size(math.prod(chunk) * itemsize)} of memory. "
            "Correct the metadata, or write a copy in smaller chunks."
        )
    count = math.prod(-(-n // c) for n, c in zip(shape, chunk, strict=True))
    if count > MOST_CHUNKS:
        raise SourceError(
            f"{told}: {count:.2g} chunks, more than could be read in a lifetime. "
            "Correct the metadata, or write a copy in larger chunks."
        )
