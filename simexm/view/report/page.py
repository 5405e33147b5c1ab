"""A result on one page of HTML that needs nothing beside itself."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from simexm import settings
from simexm.errors import OutputError
from simexm.jobs.journal import Journal, Record
from simexm.result.place import SIMULATION
from simexm.result.result import Result
from simexm.run.layout import valid_records
from simexm.stages.microscope.optics import Optics
from simexm.stages.microscope.optics_plan import OpticsPlan
from simexm.store.whole_file import whole_file
from simexm.units import duration, size
from simexm.view.dyes import percent, sights
from simexm.view.fluorophores import sight_rows
from simexm.view.making import Making
from simexm.view.report import light
from simexm.view.report.cells import draw_cells, read_cells
from simexm.view.report.counts import draw_histogram, strengths, totals
from simexm.view.report.ink import ACCENT
from simexm.view.report.pictures import Drawn, Views
from simexm.view.report.running import draw_memory, draw_speed, read_running
from simexm.view.scene import Tint
from simexm.view.spectra import readable

ROUNDS_SHOWN = 24
_THUMBNAIL = 256


def write_report(result: Result, output: Path) -> None:
    """Write the page; the file is whole or not there.

    Raises
    ------
    OutputError
        If the result is not finished or is an analysis's, or the file cannot be written.
    """
    if result.kind != SIMULATION:
        raise OutputError(
            f"{result.path} was made by `simexm {result.kind}`, and reports tell of simulations; type simexm info {result.path}"
        )
    if not result.complete:
        raise OutputError(f"{result.path} is incomplete; type the `simexm run` command again to go on")
    if not output.parent.is_dir():
        raise OutputError(
            f"{output} cannot be written: there is no folder {output.parent}; type: mkdir -p {output.parent}"
        )
    page = render(result)
    with whole_file(output) as partial:
        partial.write_text(page, encoding="utf-8")


def render(result: Result) -> str:
    """The page."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("simexm.view.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"number": number, "size": size, "percent": percent, "seconds": duration}
    return environment.get_template("page.html").render(gather(result))


def gather(result: Result) -> dict[str, Any]:
    """All that the page tells; what has no meaning for the result is None or empty."""
    making = Making.of(result)
    views = Views.of(result)
    shape = result.array().shape
    dataset = result.attributes["ome"]["multiscales"][0]["datasets"][0]
    return {
        "title": result.provenance["spec"].get("name", "simulation"),
        "file": result.path.name,
        "told": result.provenance,
        "shape": shape,
        "channels": result.channels,
        "pixel_nm": [1000 * s for s in dataset["coordinateTransformations"][0]["scale"][1:]],
        "expanded_nm": [1000 * s for s in result.provenance["pixel_size_expanded_um"]],
        "extent_um": [
            n * s for n, s in zip(shape[1:], dataset["coordinateTransformations"][0]["scale"][1:], strict=True)
        ],
        "level": views.level,
        "pictures": views.all(),
        "rounds": _rounds(result),
        "model_2017": result.provenance.get("model") == "simexm2017",
        "until": f" --until {result.provenance['until']}" if result.provenance["quantity"] != "image" else "",
        "spec": settings.dump(result.provenance["spec"], compact=True),
        **_light(making, result),
        **_counts(result, making),
        **_cells(result),
        **_run(result, making),
    }


def _rounds(result: Result) -> list[Drawn]:
    """The plane of each round."""
    shown = range(1, min(result.rounds, ROUNDS_SHOWN) + 1)
    return [Views.of(result.at(round=n), _THUMBNAIL).plane(f"Round {n}") for n in shown]


def _light(making: Making | None, result: Result) -> dict[str, Any]:
    if making is None or result.provenance["quantity"] == "labelled":
        return {"spectra": [], "sights": [], "spreads": [], "microscope": None, "pairs": []}
    bench = light.bench(making.simulation)
    rows = sight_rows([s for s in sights(bench.dyes.values(), bench) if s.wanted or (s.signal or 0) >= 0.005], bench)
    microscope = making.simulation.microscope
    formation = making.plan.imaging.formation
    spreads = []
    if isinstance(microscope, Optics) and isinstance(formation, OpticsPlan):
        spreads = light.spreads(microscope, formation.pairs, making.simulation)
    return {
        "spectra": light.draw_spectra(bench),
        "sights": rows,
        "spreads": spreads,
        "microscope": microscope,
        "pairs": making.record["optics"].get("pairs", []),
    }


def _counts(result: Result, making: Making | None) -> dict[str, Any]:
    found = totals(_records(result))
    histograms = []
    channels = result.channels
    for c, (channel, histogram) in enumerate(zip(channels, found.histograms, strict=False)):
        window = (channel["window"]["start"], channel["window"]["end"])
        tint = Tint(channel["label"], channel["color"], window, channel["window"]["max"])
        pixels = int(histogram.sum())
        if not pixels:  # nothing was counted: the run stopped before the camera
            continue
        largest = max(
            values[c] for group, values in found.largest.items() if "labels/" not in group and c < len(values)
        )
        histograms.append(
            {
                "name": tint.name,
                "figure": draw_histogram(tint, histogram, shade(channel["color"])),
                "clipped": found.clipped[c],
                "pixels": pixels,
                "share": found.clipped[c] / pixels,
                "largest": largest,
                "top": tint.largest,
            }
        )
    told, untold = strengths(result, making) if making else ([], [])
    main = result.largest() or result.provenance.get("largest", {}).get(result.group())
    return {
        "histograms": histograms,
        "largest": main,
        "strengths": told,
        "untold": untold,
    }


def _cells(result: Result) -> dict[str, Any]:
    cells = read_cells(result)
    if cells is None:
        return {"cells": None, "cells_figure": None}
    shades = {c["label"]: shade(c["color"]) for c in result.channels}
    rows = [
        (layer, number(n), percent(n / max(1, cells.number)), number(cells.dyes[layer]))
        for layer, n in cells.labelled.items()
    ]
    bright = [
        (
            str(row["id"]),
            str(row["layers"]).replace(",", ", ") or "none",
            number(row["voxels"]),
            *(number(float(row[f"photons_{c}"])) for c in cells.channels),
        )
        for row in cells.brightest
        if any(row[f"photons_{c}"] for c in cells.channels)
    ]
    return {
        "cells": cells,
        "cells_figure": draw_cells(cells, shades),
        "cell_rows": rows,
        "brightest_head": ["Cell", "Layers", "Voxels", *(f"{c}, e" for c in cells.channels)],
        "brightest_rows": bright,
    }


def _run(result: Result, making: Making | None) -> dict[str, Any]:
    running = read_running(lambda: _records(result))
    told: dict[str, Any] = {"running": running, "memory_figure": None}
    if running is None:
        return told
    rows = [
        ("Began", datetime.fromtimestamp(running.begin, UTC).strftime("%Y-%m-%d %H:%M UTC")),
        ("Work of all blocks", f"{duration(running.work_s)}; the longest took {duration(running.longest_s)}"),
        ("Blocks that took more than one attempt", f"{running.retried}, at most {running.attempts} attempts"),
    ]
    if making:
        record = making.record
        rows[1:1] = [
            (
                "Block, tile (z y x)",
                " and ".join(" × ".join(map(str, record["blocks"][f"{n}_pixels"])) for n in ("block", "tile")),
            ),
            ("Predicted work", f"about {duration(record['core_seconds'])} of one core"),
        ]
        done = math.prod(result.array().shape) * max(1, result.rounds) / running.seconds
        rows.insert(
            3,
            (
                "Speed",
                f"{running.blocks / running.seconds:.3g} blocks/s, {done / 1e6:.3g} Mpixel/s, all channels together",
            ),
        )
        rows.append(("Stored before compression", size(record["bytes_uncompressed"])))
        told["memory_figure"] = draw_memory(running, record["memory_parts_bytes"])
    return told | {"speed_figure": draw_speed(running), "run_rows": rows}


def _records(result: Result) -> Iterator[Record]:
    """Of the journal, where it is still there."""
    if result.place.journal.is_dir():
        yield from valid_records(Journal(result.place.journal, result.provenance["hash"]).records())


def shade(color: str) -> str:
    """A channel's colour as ink."""
    if color.upper() == "FFFFFF":
        return ACCENT
    r, g, b = (round(255 * part) for part in readable(color))
    return f"#{r:02x}{g:02x}{b:02x}"


def number(value: float) -> str:
    """With thin spaces between thousands, and no more digits than matter."""
    if isinstance(value, float) and value != round(value):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}".replace(",", " ")
    return f"{int(value):,}".replace(",", " ")


def default_path(result: Result) -> Path:
    """Where the page goes if nothing is said."""
    return Path(f"{result.path.stem}-report.html")
