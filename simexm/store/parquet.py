"""Read tables of a result, which anyone may have written; and write large ones as a folder of files."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from simexm.errors import OutputError
from simexm.store.files import writing
from simexm.store.location import Location
from simexm.store.remote import Remote

if TYPE_CHECKING:
    import pyarrow  # type: ignore[import-untyped]


def read_columns(path: Location, columns: Sequence[str], *, any_text: bool = False) -> pyarrow.Table:
    """Read a Parquet file, or a folder of them, and check its columns; see `check_columns`."""
    import pyarrow.parquet  # type: ignore[import-untyped]

    with _arrow_errors(path):
        found = pyarrow.parquet.read_table(**_source(path))
    check_columns(path, found.schema, columns, any_text=any_text)
    return found


def table_file(path: Location) -> Any:
    """Open a Parquet file to be read in pieces (`pyarrow.parquet.ParquetFile`)."""
    import pyarrow.parquet

    with _arrow_errors(path):
        return pyarrow.parquet.ParquetFile(**_source(path))


PART_ROWS = 1 << 20
"""Rows of each file of a table in several files, the last apart."""


def write_parts(root: Location, folder: str, tables: Iterable[pyarrow.Table], scratch: Location) -> list[str]:
    """Write a table that comes in pieces of any size as files of `PART_ROWS` rows; return their paths below `root`."""
    import pyarrow
    import pyarrow.parquet

    written: list[str] = []
    held: list[pyarrow.Table] = []

    def write(table: pyarrow.Table) -> None:
        written.append(f"{folder}/part-{len(written):07d}.parquet")
        with writing(root / written[-1], scratch) as partial:
            pyarrow.parquet.write_table(table.combine_chunks(), partial, compression="zstd")

    for table in tables:
        held.append(table)
        while sum(t.num_rows for t in held) >= PART_ROWS:
            found = pyarrow.concat_tables(held)
            write(found.slice(0, PART_ROWS))
            held = [found.slice(PART_ROWS)]
    if held and (not written or sum(t.num_rows for t in held)):
        write(pyarrow.concat_tables(held))
    return written


def _source(path: Location) -> dict[str, Any]:
    return {"source": path.key, "filesystem": path.system} if isinstance(path, Remote) else {"source": path}


def check_columns(path: Location, schema: pyarrow.Schema, columns: Sequence[str], *, any_text: bool = False) -> None:
    """Raise OutputError for a schema that no run writes.

    One of `columns` is missing, or a column has an unusual name or holds neither numbers nor text. Text is allowed in the
    columns `_TEXTS`, with `any_text` in all.
    """
    from pyarrow import types

    for name in columns:
        if name not in schema.names:
            raise _no_table(path, f"has no column {name}")
    for field in schema:
        is_text = types.is_string(field.type)
        is_number = types.is_integer(field.type) or types.is_floating(field.type)
        fits = is_text or is_number if any_text else is_text if field.name in _TEXTS else is_number
        if not fits or re.fullmatch("[A-Za-z0-9_.-]{1,100}", field.name) is None:
            raise _no_table(path, f"has a column {ascii(field.name)[:120]} of {field.type}")


_TEXTS = frozenset({"layers", "layer", "dye", "region", "barcode"})
"""Columns of text; all others hold numbers."""


@contextlib.contextmanager
def _arrow_errors(path: Location) -> Iterator[None]:
    """Raise errors of Arrow as OutputError."""
    import pyarrow

    try:
        yield
    except pyarrow.ArrowException as error:
        raise _no_table(path, f"cannot be read ({error})") from error


def _no_table(path: Location, fault: str) -> OutputError:
    return OutputError(
        f"the table {path} {fault}: it was damaged, or written by another program; check the result with `simexm verify`"
    )
