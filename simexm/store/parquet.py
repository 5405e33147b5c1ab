"""Tables of a result, read as if anybody had written them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from simexm.errors import OutputError
from simexm.store.location import Location
from simexm.store.remote import Remote

if TYPE_CHECKING:
    import pyarrow  # type: ignore[import-untyped]


def read_columns(path: Location, columns: Sequence[str], *, any_text: bool = False) -> pyarrow.Table:
    """A Parquet file, or a folder of such, that has these columns; with `any_text`, all columns may hold texts."""
    import pyarrow.parquet  # type: ignore[import-untyped]

    with _readable(path):
        if isinstance(path, Remote):
            found = pyarrow.parquet.read_table(path.key, filesystem=path.system)
        else:
            found = pyarrow.parquet.read_table(path)
    check_columns(path, found.schema, columns, any_text=any_text)
    return found


def table_file(path: Location) -> Any:
    """A Parquet file, opened to be read in pieces (`pyarrow.parquet.ParquetFile`)."""
    import pyarrow.parquet

    with _readable(path):
        if isinstance(path, Remote):
            return pyarrow.parquet.ParquetFile(path.key, filesystem=path.system)
        return pyarrow.parquet.ParquetFile(path)


def check_columns(path: Location, schema: pyarrow.Schema, columns: Sequence[str], *, any_text: bool = False) -> None:
    """Refuse a table of which a run wrote none: texts where numbers should be, columns that name no layer or channel.

    Raises
    ------
    OutputError
        With the column.
    """
    import pyarrow

    for name in columns:
        if name not in schema.names:
            raise _no_table(path, f"has no column {name}")
    for field in schema:
        text = pyarrow.types.is_string(field.type)
        sound = (
            text or _is_number(field.type)
            if any_text
            else text == (field.name in _TEXTS) and (text or _is_number(field.type))
        )
        if not sound or re.fullmatch("[A-Za-z0-9_-]{1,100}", field.name) is None:
            raise _no_table(path, f"has a column {ascii(field.name)[:120]} of {field.type}")


_TEXTS = frozenset({"layers", "layer", "dye", "region", "barcode"})
"""Columns of text; all others hold numbers."""


def _is_number(kind: pyarrow.DataType) -> bool:
    import pyarrow

    return bool(pyarrow.types.is_integer(kind) or pyarrow.types.is_floating(kind))


@contextlib.contextmanager
def _readable(path: Location) -> Iterator[None]:
    """What Arrow says of a file that it cannot read."""
    import pyarrow

    try:
        yield
    except pyarrow.ArrowException as error:
        raise _no_table(path, f"cannot be read ({error})") from error


def _no_table(path: Location, fault: str) -> OutputError:
    return OutputError(
        f"the table {path} {fault}: it was damaged, or written by another program; verify the result with `simexm verify`"
    )
