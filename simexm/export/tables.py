"""Write tables of a result for other programs: CSV, and the matrix of synapses as GraphML or a sparse matrix of SciPy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from simexm.errors import OutputError
from simexm.export.formats import Format
from simexm.result.result import Result
from simexm.store.atomic_file import atomic_file, refuse
from simexm.store.parquet import table_file

if TYPE_CHECKING:
    import networkx  # type: ignore[import-untyped]
    import pyarrow  # type: ignore[import-untyped]

TABLES = (Format.CSV, Format.GRAPHML, Format.NPZ)
_MATRIX, _CELLS = "matrix", "cells"
_GRAPHML = """<?xml version="1.0" encoding="UTF-8"?>
<graphml xmlns="http://graphml.graphdrawing.org/xmlns">
"""


def export_tables(result: Result, folder: Path, form: Format, *, overwrite: bool, dry_run: bool) -> list[Path]:
    """Write all tables of a result as CSV, or its matrix as GraphML or NPZ; return the files.

    Raises OutputError if the result is not finished, has no such table, or a file exists.
    """
    result.require_complete()
    if form is Format.CSV:
        jobs: dict[str, Callable[[Path], None]] = {f"{name}.csv": _csv_writer(result, name) for name in result.tables}
    else:
        if not {_MATRIX, _CELLS} <= {*result.tables}:
            raise OutputError(
                f"{result.path} holds no matrix of synapses, so there is no graph; name a result of `simexm matrix`, or type "
                "--format csv"
            )
        jobs = {"matrix.graphml": lambda path: _write_graphml(result, path)}
        if form is Format.NPZ:
            jobs = {
                "cells.npy": lambda path: _save(path, _ids(result)),
                "matrix.npz": lambda path: _write_npz(result, path),
            }
    if not jobs:
        raise OutputError(f"{result.path} holds no table; type --format tiff for its image")
    paths = [folder / name for name in jobs]
    refuse(paths, overwrite=overwrite)
    if not dry_run:
        folder.mkdir(parents=True, exist_ok=True)
        for path, write in zip(paths, jobs.values(), strict=True):
            with atomic_file(path) as partial:
                write(partial)
    return paths


def to_networkx(result: Result) -> networkx.DiGraph:
    """Return the matrix of a result as a directed graph, with all columns of cells and pairs; needs the extra `graphs`."""
    import networkx

    graph: networkx.DiGraph = networkx.DiGraph()
    for row in result.table(_CELLS).to_pylist():
        graph.add_node(row.pop("id"), **row)
    for row in result.table(_MATRIX).to_pylist():
        graph.add_edge(row.pop("pre"), row.pop("post"), **row)
    return graph


def pieces(result: Result, name: str) -> Iterator[pyarrow.Table]:
    """Row groups of a table."""
    one = result.place.tables / f"{name}.parquet"
    folder = result.place.tables / name
    files = [one] if one.exists() else sorted((f for f in folder.iterdir() if f.suffix == ".parquet"), key=str)
    for file in files:
        opened = table_file(file)
        yield from (opened.read_row_group(group) for group in range(opened.num_row_groups))


def _csv_writer(result: Result, name: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        import pyarrow.csv  # type: ignore[import-untyped]  # late: few write it

        writer = None
        for piece in pieces(result, name):
            writer = writer or pyarrow.csv.CSVWriter(str(path), piece.schema)
            writer.write_table(piece)
        if writer is None:
            path.write_text("")
        else:
            writer.close()

    return write


def _write_graphml(result: Result, path: Path) -> None:
    """Nodes are cells, edges pairs; all other columns are their attributes."""
    kinds = {"node": (_CELLS, ("id",)), "edge": (_MATRIX, ("pre", "post"))}
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(_GRAPHML)
        for kind, (name, keys) in kinds.items():
            for field in next(pieces(result, name)).schema:
                if field.name not in keys:
                    number = "double" if str(field.type) == "double" else "long"
                    file.write(
                        f'<key id="{kind}_{field.name}" for="{kind}" attr.name="{field.name}" attr.type="{number}"/>\n'
                    )
        file.write('<graph edgedefault="directed">\n')
        for kind, (name, keys) in kinds.items():
            for piece in pieces(result, name):
                for row in piece.to_pylist():
                    ends = [row.pop(key) for key in keys]
                    what = f'id="{ends[0]}"' if kind == "node" else f'source="{ends[0]}" target="{ends[1]}"'
                    data = "".join(f'<data key="{kind}_{column}">{value}</data>' for column, value in row.items())
                    file.write(f"<{kind} {what}>{data}</{kind}>\n")
        file.write("</graph>\n</graphml>\n")


def _ids(result: Result) -> np.ndarray[Any, Any]:
    return np.asarray(result.table(_CELLS)["id"].to_numpy())


def _write_npz(result: Result, path: Path) -> None:
    """Numbers of synapses; rows are presynaptic, columns postsynaptic cells, in the order of cells.npy."""
    from scipy import sparse  # late: it takes a while to load

    ids, table = _ids(result), result.table(_MATRIX)
    rows, columns = (np.searchsorted(ids, table[name].to_numpy()) for name in ("pre", "post"))
    counts = sparse.csr_array((table["synapses"].to_numpy(), (rows, columns)), (ids.size, ids.size))
    with path.open("wb") as file:
        sparse.save_npz(file, counts)


def _save(path: Path, values: np.ndarray[Any, Any]) -> None:
    with path.open("wb") as file:
        np.save(file, values)
