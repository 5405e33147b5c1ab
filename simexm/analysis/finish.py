"""Finish an analysis: conclude, and write tables, scores and metadata."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from simexm.analysis.blocks import sums_part
from simexm.analysis.contract import Conclusion, Score
from simexm.analysis.plan import AnalysisPlan
from simexm.errors import OutputError
from simexm.jobs.journal import Journal
from simexm.jobs.keyed_rows import MergedRows
from simexm.jobs.sums_by_id import merged
from simexm.planning.outputs import Output
from simexm.result.place import COMPLETE, MARK, PLAN, SCORES, SCRATCH, Place
from simexm.run.finish import coarsest_window
from simexm.run.layout import volume_keys, write_manifest
from simexm.store import omezarr
from simexm.store.files import remove_tree, writing
from simexm.store.location import Location
from simexm.store.parquet import write_parts
from simexm.version import FORMAT_VERSION

COLORS = ("00FF00", "FF00FF", "00FFFF", "FFFF00", "FF0000", "0000FF")
"""RRGGBB of channels, where there are several."""


def mark_of(plan: AnalysisPlan, status: str) -> dict[str, Any]:
    """Attributes of the result's root that describe it."""
    grid = plan.bench.grid
    return {
        "hash": plan.hash,
        "format": FORMAT_VERSION,
        "kind": plan.analysis.tag,
        "inputs": dict(plan.bench.inputs),
        "settings": plan.analysis.model_dump(mode="json"),
        "versions": dict(plan.versions),
        "outputs": [o.group for o in plan.volumes.outputs if o.group],
        **({"acquisition": grid.acquisition.to_mapping()} if grid and grid.time else {}),
        "status": status,
    }


def finish(plan: AnalysisPlan, where: Place, journal: Journal) -> None:
    """Add the blocks' sums, conclude, and write tables, scores and metadata, the root's own last."""
    rows = dict.fromkeys(plan.bench.columns, 0)
    largest: dict[str, list[float]] = {}
    for record in journal.records():
        for name in rows:
            rows[name] += record.result["rows"][name]
        for group, values in record.result["largest"].items():
            largest[group] = [*map(max, values, largest.get(group, values))]
    sums: dict[str, Any] = {
        name: merged(_parts(plan, where, name), rows[name], columns, where.scratch)
        for name, columns in plan.bench.columns.items()
    }
    sums |= {
        name: MergedRows(keyed, partial(_parts, plan, where, name), where.scratch)
        for name, keyed in plan.bench.keyed.items()
    }
    found = plan.bench.conclude(sums)
    files = _write_tables(plan, where, found)
    names = sorted([*found.tables, *plan.row_tables])
    mark = {**mark_of(plan, COMPLETE), "tables": names, **({"largest": largest} if largest else {})}
    root = {**_write_metadata(plan, where), MARK: mark}
    for group, attributes in found.groups.items():
        omezarr.write_group(where.files, group, attributes)
    zarr = [where.zarr / key for key in sorted(volume_keys(plan.volumes))]
    write_manifest(where, zarr, [where.run / name for name in (PLAN, *files)], omezarr.group_bytes(root))
    omezarr.write_group(where.files, "", root)
    remove_tree(where.run / SCRATCH, ignore_errors=True)


def _parts(plan: AnalysisPlan, where: Place, name: str) -> Iterator[Location]:
    """The blocks' parts of a table of sums."""
    return (sums_part(where, name, number) for number in plan.blocks)


def _write_tables(plan: AnalysisPlan, where: Place, found: Conclusion) -> list[str]:
    """Write the tables and scores of a conclusion; return their paths below NAME.run."""
    if twice := sorted({*found.tables} & {*plan.row_tables}):
        raise OutputError(
            f"the analysis {plan.analysis.tag!r} concludes the table {twice[0]!r}, which its blocks wrote; update its package"
        )
    tables: dict[str, pa.Table] = {}
    written = []
    for name, table in found.tables.items():
        if isinstance(table, pa.Table):
            tables[f"tables/{name}.parquet"] = table
        else:
            written += write_parts(where.run, f"tables/{name}", table, where.scratch)
    tables[SCORES] = _scores(plan, found.scores)
    for name, table in tables.items():
        with writing(where.run / name, where.scratch) as file:
            pq.write_table(table, file, compression="zstd")
    return [*tables, *written]


def _scores(plan: AnalysisPlan, scores: tuple[Score, ...]) -> pa.Table:
    """One row for each score; `inputs` holds the hashes of the inputs as JSON."""
    inputs = json.dumps(dict(plan.bench.inputs), sort_keys=True)
    rows: list[Mapping[str, Any]] = [{"kind": plan.analysis.tag, **asdict(s), "inputs": inputs} for s in scores]
    names = ("kind", "score", "subset", "value", "unit", "definition", "inputs")
    types = [pa.float64() if name == "value" else pa.string() for name in names]
    columns = zip(names, types, strict=True)
    return pa.table({name: pa.array([row[name] for row in rows], kind) for name, kind in columns})


def _write_metadata(plan: AnalysisPlan, where: Place) -> dict[str, Any]:
    """Write the attributes of all groups but the root; return the root's, those of the main image if there is one."""
    root: dict[str, Any] = {}
    has_main = any(not output.group for output in plan.volumes.outputs)
    for output in plan.volumes.outputs:
        attributes = _attributes(plan, where, output, has_main)
        if output.group:
            omezarr.write_group(where.files, output.group, attributes)
        else:
            root = attributes
    for group, names in plan.volumes.labels_groups.items():
        omezarr.write_group(where.files, group, omezarr.labels_group_attributes(names))
    return root


def _attributes(plan: AnalysisPlan, where: Place, output: Output, has_main: bool) -> dict[str, Any]:
    grid = plan.bench.grid
    assert grid is not None
    method, time = "mode" if output.is_labels else "mean", grid.time if output.times else None
    scales = omezarr.multiscales(
        output.product.name, grid.levels, grid.origin_nm, channels=not output.is_labels, method=method, time=time
    )
    if output.is_labels:
        return omezarr.label_attributes(scales, image="../../" if has_main else None)
    colors = COLORS if len(output.channels) > 1 else ("FFFFFF",)
    channels = [
        (name, colors[c % len(colors)], coarsest_window(plan.volumes, where, output, c))
        for c, name in enumerate(output.channels)
    ]
    return omezarr.image_attributes(scales, omero=omezarr.omero(channels, grid.shape[0]))
