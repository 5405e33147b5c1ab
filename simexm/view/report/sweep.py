"""The report on a sweep: scores over the axes, the cheapest settings for each score, and pictures on one contrast."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from simexm import settings
from simexm.result.result import Result
from simexm.sweep.run import POINTS
from simexm.units import duration, size
from simexm.view.picture import merged
from simexm.view.report.ink import ACCENT, key, new_figure, png, svg

_CHARTS, _LINES, _PICTURES, _SIDE, _FRONTS = 24, 6, 24, 256, 12
"""Most charts of a measurement, lines of a chart, pictures, their pixels a side, and tables of cheapest settings."""
_COLORS = (ACCENT, "#d95f02", "#7570b3", "#1b9e77", "#e7298a", "#a6761d")
_LOWER = ("error", "voi", "split", "merge", "rmse", "residual", "bias", "distance", "omitted", "deviation", "folds")
"""Words in the names of scores that are the better the lower they are."""

Values = tuple[Any, ...]
"""Values of the axes."""


@dataclass(frozen=True)
class _Sweep:
    """A sweep's rows, by what is drawn of them."""

    result: Result

    @cached_property
    def axes(self) -> list[str]:
        return list(self.result.provenance["settings"]["axes"])

    @cached_property
    def points(self) -> list[dict[str, Any]]:
        return list(self.result.table(POINTS).to_pylist())

    @cached_property
    def scores(self) -> dict[tuple[str, str, str], dict[Values, list[float]]]:
        """Values over replicates, by kind, score and subset, and then by the values of the axes."""
        found: dict[tuple[str, str, str], dict[Values, list[float]]] = {}
        for row in self.result.scores().to_pylist():
            if row["value"] is not None:
                of = found.setdefault((row["kind"], row["score"], row["subset"]), {})
                of.setdefault(tuple(row[axis] for axis in self.axes), []).append(row["value"])
        return found

    @cached_property
    def varied(self) -> list[int]:
        """Positions of the axes with several values."""
        return [n for n, axis in enumerate(self.axes) if len({json.dumps(p[axis]) for p in self.points}) > 1]

    def words(self, values: Values, of: Sequence[int] | None = None) -> str:
        """Values of some axes as text."""
        return ", ".join(f"{_short(self.axes[n])} {_word(values[n])}" for n in (self.varied if of is None else of))


def of_sweep(result: Result) -> dict[str, Any]:
    """Collect the page's data."""
    sweep, about = _Sweep(result), result.provenance
    replicates = about["settings"]["replicates"]
    point_axes = sweep.axes
    return {
        "title": f"Sweep of {', '.join(map(_short, sweep.axes))}",
        "file": result.path.name,
        "folder": str(result.place.run / POINTS),
        "points": len(sweep.points),
        "axes": sweep.axes,
        "replicates": (len(replicates["crops"]) or replicates["specimens"]) * replicates["noise"],
        "sections": _sections(sweep),
        "fronts": _fronts(sweep),
        "cost": "time in which the microscope collects light" if _timed(sweep) else "volume of the stored images",
        "pictures": _pictures(sweep),
        "failures": [(str(p["point"]), p["failure"]) for p in sweep.points if p["failure"]],
        "point_head": ["Point", *point_axes, "Specimen", "Noise", "Imaging", "Stored", "Hash"],
        "point_rows": [_point(p, point_axes) for p in sweep.points],
        "settings": settings.dump(json.loads(json.dumps(about["settings"])), compact=True),
        "provenance": about,
    }


def _short(axis: str) -> str:
    return axis.rpartition(".")[2]


def _word(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _point(point: Mapping[str, Any], axes: Sequence[str]) -> list[str]:
    imaging, stored = point["imaging_s"], point["bytes"]
    return [
        str(point["point"]),
        *(_word(point[axis]) for axis in axes),
        str(point["specimen"]),
        str(point["noise"]),
        "" if imaging is None else duration(imaging),
        "" if stored is None else size(stored),
        point["hash"][:12],
    ]


def _sections(sweep: _Sweep) -> list[tuple[str, list[tuple[str, str]]]]:
    """Charts of each measurement."""
    sections: dict[str, list[tuple[str, str]]] = {}
    whole_first = sorted(sweep.scores.items(), key=lambda item: (item[0][0], item[0][2] != ""))
    for (kind, score, subset), values in whole_first:
        charts = sections.setdefault(kind, [])
        if len(charts) < _CHARTS and sweep.varied:
            charts.append(_chart(sweep, kind, f"{score} ({subset})" if subset else score, values))
    return list(sections.items())


def _chart(sweep: _Sweep, kind: str, name: str, values: Mapping[Values, list[float]]) -> tuple[str, str]:
    """Draw a score over the first axis that varies, a line for each value of the others."""
    across, *others = sweep.varied
    lines: dict[Values, dict[Any, list[float]]] = {}
    for place, found in values.items():
        lines.setdefault(tuple(place[n] for n in others), {}).setdefault(place[across], []).extend(found)
    figure, axes = new_figure()
    for color, (line, over) in zip(_COLORS, list(lines.items())[:_LINES], strict=False):
        numbers = all(isinstance(x, float) for x in over)
        xs = sorted(over) if numbers else list(over)
        at = xs if numbers else range(len(xs))
        label = ", ".join(f"{_short(sweep.axes[n])} {_word(v)}" for n, v in zip(others, line, strict=True))
        axes.fill_between(at, [min(over[x]) for x in xs], [max(over[x]) for x in xs], color=color, alpha=0.18, lw=0)
        axes.plot(
            at, [statistics.fmean(over[x]) for x in xs], color=color, marker="o", ms=3, lw=1.4, label=label or None
        )
        if not numbers:
            axes.set_xticks(at, [_word(x) for x in xs])
    settings_of = sweep.result.provenance["settings"]["axes"][sweep.axes[across]]
    if isinstance(settings_of, dict) and settings_of["scale"] == "log":
        axes.set_xscale("log")
    axes.set_xlabel(sweep.axes[across])
    if others:
        key(axes)
    left = f"; {len(lines) - _LINES} further lines are in scores.parquet" if len(lines) > _LINES else ""
    return svg(figure, f"{kind}: {name} over {sweep.axes[across]}"), f"{name}{left}"


def _timed(sweep: _Sweep) -> bool:
    return all(p["imaging_s"] is not None or p["failure"] for p in sweep.points)


def _fronts(sweep: _Sweep) -> list[tuple[str, list[str], list[list[str]]]]:
    """For each score of everything, the settings for which no cheaper ones have as good a mean."""
    timed = _timed(sweep)
    costs = {
        tuple(p[axis] for axis in sweep.axes): p["imaging_s" if timed else "bytes"]
        for p in sweep.points
        if not p["failure"]
    }
    found: list[tuple[str, list[str], list[list[str]]]] = []
    for (kind, score, subset), values in sweep.scores.items():
        if subset or len(found) == _FRONTS or len(values) < 2:
            continue
        lower = any(word in score.lower() for word in _LOWER)
        means = {place: statistics.fmean(of) for place, of in values.items()}
        best: float | None = None
        rows = []
        for place in sorted(means, key=lambda p: (costs[p], means[p] if lower else -means[p])):
            if best is None or (means[place] < best if lower else means[place] > best):
                best = means[place]
                cost = duration(costs[place]) if timed else size(costs[place])
                rows.append([sweep.words(place), _word(best), cost])
        found.append(
            (f"{kind}: {score}", ["Settings", f"Mean, {'lower' if lower else 'higher'} is better", "Cost"], rows)
        )
    return found


def _pictures(sweep: _Sweep) -> list[tuple[str, str]]:
    """The middle plane of each kept point of the first specimen, all with the same display windows."""
    first = [p for p in sweep.points if p["specimen"] == p["noise"] == 0 and not p["failure"]][:_PICTURES]
    opened = []
    for point in first:
        path = sweep.result.place.run / POINTS / f"{point['hash']}.zarr"
        if path.exists():
            opened.append((point, Result.open(path)))
    if not opened or len({len(one.channels) for _, one in opened}) > 1:
        return []
    windows = [
        (min(low), max(high))
        for low, high in (zip(*of, strict=True) for of in zip(*(one.windows for _, one in opened), strict=True))
    ]
    drawn = []
    for point, one in opened:
        array = one.array()
        planes = np.asarray(array[:, array.shape[1] // 2, :_SIDE, :_SIDE])
        picture = merged(planes, [c["color"] for c in one.channels], windows)
        drawn.append((png(picture), sweep.words(tuple(point[axis] for axis in sweep.axes))))
    return drawn
