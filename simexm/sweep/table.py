"""The tables of a sweep: its points with their costs, and a row for each score."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]

from simexm.sweep.points import Point
from simexm.sweep.settings import Sweep

Records = Mapping[str, Mapping[str, Any]]
"""What each point left, by its parameter hash: `scores` and `cost`."""


def cost_of(point: Point) -> dict[str, float | None]:
    """Return what a point costs at the microscope and on the disk.

    `imaging_s` is the time in which light is collected: a scanner's dwell for each pixel, or a camera's exposure for each plane,
    in each channel, of all rounds; None if the microscope has no such time.
    """
    plan = point.plan.to_mapping()
    microscope = point.spec.microscope
    planes, rows, columns = plan["image"]["shape_pixels"]
    frames = math.prod(len(axis["coordinates"]) for axis in plan["acquisition"])
    exposures = (
        planes * (rows * columns if hasattr(microscope, "dwell_us") else 1) * len(plan["image"]["channels"]) * frames
    )
    each = microscope.pixel_time_s
    return {
        "imaging_s": None if each is None else each * exposures,
        "bytes": float(plan["bytes_uncompressed"]),
        "core_s": float(plan["core_seconds"]),
    }


def points_table(sweep: Sweep, points: Sequence[Point], records: Records, failed: Mapping[str, str]) -> pa.Table:
    """Return a row for each point and replicate: values of the axes, costs, and why it failed, if it did."""
    columns = _of_points(sweep, points)
    for name in ("imaging_s", "bytes", "core_s"):
        values = [records[p.hash]["cost"][name] if p.hash in records else None for p in points]
        columns[name] = pa.array(values, pa.float64())
    columns["failure"] = pa.array([failed.get(p.hash, "") for p in points], pa.string())
    return pa.table(columns)


def scores_table(sweep: Sweep, points: Sequence[Point], records: Records) -> pa.Table:
    """Return a row for each point, replicate and score; the points that failed have none."""
    rows = [(point, row) for point in points if point.hash in records for row in records[point.hash]["scores"]]
    table = {
        name: pa.array([row[name] for _, row in rows], pa.float64() if name == "value" else pa.string())
        for name in ("kind", "score", "subset", "value", "unit", "definition")
    }
    inputs = [json.dumps({"simulation": point.hash}) for point, _ in rows]
    return pa.table(
        {**table, "inputs": pa.array(inputs, pa.string()), **_of_points(sweep, [point for point, _ in rows])}
    )


def _of_points(sweep: Sweep, points: Sequence[Point]) -> dict[str, pa.Array]:
    columns = {
        "point": pa.array([p.number for p in points], pa.int64()),
        "hash": pa.array([p.hash for p in points], pa.string()),
        "specimen": pa.array([p.specimen for p in points], pa.int64()),
        "noise": pa.array([p.noise for p in points], pa.int64()),
    }
    for path in sweep.axes:
        columns[path] = _axis([p.values[path] for p in points], all(_is_number(v) for v in sweep.values(path)))
    return columns


def _axis(values: Sequence[Any], numbers: bool) -> pa.Array:
    """Numbers as such; words as they are; lists and mappings as JSON."""
    if numbers:
        return pa.array([float(v) for v in values], pa.float64())
    return pa.array([v if isinstance(v, str) else json.dumps(v, sort_keys=True) for v in values], pa.string())


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
