"""Summarise the table of cells: how many are labelled, with how many dyes, and how bright they are."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from simexm.result.result import Result
from simexm.store.parquet import check_columns, table_file
from simexm.view.report.ink import INK, in_powers, key, new_figure, svg

_ROWS = 1 << 16
_SHOWN = 8
_BINS = np.logspace(-1, 12, 53)


@dataclass(frozen=True)
class Cells:
    """Totals of the table."""

    number: int
    labelled: Mapping[str, int]  # cells of each layer
    dyes: Mapping[str, int]  # of each layer
    brightest: Sequence[Mapping[str, Any]]  # rows, brightest first
    channels: Sequence[str]
    photons: Mapping[str, Any]  # for each channel a histogram of the cells' photo-electrons, in `_BINS`


def read_cells(result: Result) -> Cells | None:
    """Read the table in pieces; None if it is missing."""
    path = result.place.tables / "cells.parquet"
    if not path.is_file():
        return None
    file = table_file(path)
    names: list[str] = file.schema_arrow.names
    check_columns(path, file.schema_arrow, ["id", "voxels", "layers"])
    layers = [n.removeprefix("dyes_") for n in names if n.startswith("dyes_")]
    channels = [n.removeprefix("photons_") for n in names if n.startswith("photons_")]
    labelled, dyes = dict.fromkeys(layers, 0), dict.fromkeys(layers, 0)
    photons = {c: np.zeros(_BINS.size - 1, np.int64) for c in channels}
    brightest: list[tuple[float, int, dict[str, Any]]] = []
    number = 0
    for batch in file.iter_batches(_ROWS):
        number += batch.num_rows
        columns = {n: batch.column(n).to_numpy(zero_copy_only=False) for n in names}
        for layer in layers:
            marked = [layer in str(text).split(",") for text in columns["layers"]]
            labelled[layer] += int(np.sum(marked))
            dyes[layer] += int(columns[f"dyes_{layer}"].sum())
        light = np.zeros(batch.num_rows)
        for c in channels:
            light += columns[f"photons_{c}"]
            photons[c] += np.histogram(columns[f"photons_{c}"], _BINS)[0]
        for i in np.argsort(light)[-_SHOWN:]:
            row = {n: columns[n][i] for n in names}
            heapq.heappush(brightest, (float(light[i]), -int(row["id"]), row))
            if len(brightest) > _SHOWN:
                heapq.heappop(brightest)
    rows = [row for _, _, row in sorted(brightest, key=lambda b: b[:2], reverse=True)]
    return Cells(number, labelled, dyes, rows, channels, photons)


def draw_cells(cells: Cells, shades: Mapping[str, str]) -> str | None:
    """Draw a histogram of the cells' brightness in each channel; None if all are dark."""
    channels = [c for c in cells.channels if cells.photons[c].any()]
    if not channels:
        return None
    figure, axes = new_figure(height=2.1)
    for c in channels:
        axes.stairs(cells.photons[c], _BINS, color=shades.get(c, INK), lw=1.5, label=c)
    filled = np.flatnonzero(sum(cells.photons[c] for c in channels))
    axes.set_xscale("log")
    axes.set_xlim(_BINS[max(0, filled[0] - 1)], _BINS[min(_BINS.size - 1, filled[-1] + 2)])
    axes.set_xlabel("photo-electrons of a cell, in focus")
    axes.set_ylabel("cells")
    in_powers(axes.xaxis)
    axes.tick_params(which="minor", bottom=False)
    key(axes, loc="upper right")
    return svg(figure, "How many cells are how bright, by channel")
