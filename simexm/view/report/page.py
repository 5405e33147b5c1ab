"""Write the report on a result: one self-contained HTML page."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from simexm import settings
from simexm.analysis.registration.transform import KIND as ALIGNMENT
from simexm.errors import OutputError
from simexm.jobs.journal import Journal, Record
from simexm.result.place import SIMULATION
from simexm.result.result import Result
from simexm.run.layout import valid_records
from simexm.stages.microscope.optics import Optics
from simexm.stages.microscope.optics_plan import OpticsPlan
from simexm.store.atomic_file import atomic_file, refuse_missing_folder
from simexm.sweep.run import KIND as SWEEP
from simexm.units import duration, size
from simexm.view.dyes import CROSSTALK_SHARE, dyes_in_channels, percent
from simexm.view.fluorophores import dye_in_channel_rows
from simexm.view.report import light
from simexm.view.report.alignment import Comparison, about
from simexm.view.report.cells import draw_cells, read_cells
from simexm.view.report.counts import draw_histogram, strengths, totals
from simexm.view.report.distortion import distortion
from simexm.view.report.ink import ACCENT
from simexm.view.report.pictures import Drawn, Views
from simexm.view.report.running import draw_memory, draw_speed, read_running
from simexm.view.report.sweep import of_sweep
from simexm.view.run_record import RunRecord
from simexm.view.scene import ChannelDisplay
from simexm.view.spectra import readable

ROUNDS_SHOWN = 24
_THUMBNAIL = 256


def write_report(result: Result, output: Path, comparison: Comparison | None = None) -> None:
    """Write the page atomically; `comparison` names what an alignment is shown beside.

    Raises OutputError for an unfinished result or one of another analysis, or if the disk refuses.
    """
    if result.kind not in (SIMULATION, ALIGNMENT, SWEEP):
        raise OutputError(
            f"{result.path} was written by `simexm {result.kind}`, but reports are for simulations, alignments and sweeps; type "
            f"simexm info {result.path}"
        )
    compared = comparison or Comparison()
    if result.kind != ALIGNMENT and compared.given:
        raise OutputError(
            f"{result.path} is a {result.kind}, and --fixed, --moving, --truth and --round are for alignments; leave them out"
        )
    if result.kind != SWEEP:  # points of a sweep that failed do not hide the others
        result.require_complete()
    refuse_missing_folder(output)
    if result.kind == SIMULATION:
        page = render(result)
    elif result.kind == SWEEP:
        page = rendered("sweep.html", of_sweep(result))
    else:
        page = rendered("alignment.html", about(result, compared))
    with atomic_file(output) as partial:
        partial.write_text(page, encoding="utf-8")


def render(result: Result) -> str:
    """Return the HTML of the page of a simulation."""
    return rendered("page.html", gather(result))


def rendered(template: str, content: Mapping[str, Any]) -> str:
    """Return a page's HTML."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    pages = PackageLoader("simexm.view.report", ".")
    environment = Environment(loader=pages, autoescape=True, undefined=StrictUndefined)
    environment.trim_blocks = environment.lstrip_blocks = True
    environment.filters |= {"number": number, "size": size, "percent": percent, "seconds": duration}
    return environment.get_template(template).render(content)


def gather(result: Result) -> dict[str, Any]:
    """Collect the page's data; entries that do not apply to the result are None or empty."""
    run = RunRecord.of(result)
    views = Views.of(result)
    shape = result.array().shape
    pixel_um = result.pixel_um()
    return {
        "title": result.provenance["spec"].get("name", "simulation"),
        "file": result.path.name,
        "provenance": result.provenance,
        "shape": shape,
        "channels": result.channels,
        "pixel_nm": [1000 * s for s in pixel_um],
        "expanded_nm": [1000 * s for s in result.provenance["pixel_size_expanded_um"]],
        "extent_um": [n * s for n, s in zip(shape[1:], pixel_um, strict=True)],
        "level": views.level,
        "pictures": views.all(),
        "rounds": _rounds(result),
        "model_2017": result.provenance.get("model") == "simexm2017",
        "until": f" --until {result.provenance['until']}" if result.provenance["quantity"] != "image" else "",
        "spec": settings.dump(result.provenance["spec"], compact=True),
        **_light(run, result),
        "distortion": distortion(run.plan) if run else None,
        **_counts(result, run),
        **_cells(result),
        **_run(result, run),
    }


def _rounds(result: Result) -> list[Drawn]:
    """Draw the plane of each round."""
    shown = range(1, min(result.rounds, ROUNDS_SHOWN) + 1)
    return [Views.of(result.at(round=n), _THUMBNAIL).plane(f"Round {n}") for n in shown]


def _light(run: RunRecord | None, result: Result) -> dict[str, Any]:
    if run is None or result.provenance["quantity"] == "labelled":
        return {"spectra": [], "dyes_in_channels": [], "spreads": [], "microscope": None, "pairs": []}
    light_path = light.light_path(run.simulation)
    seen = [
        s
        for s in dyes_in_channels(light_path.dyes.values(), light_path)
        if s.wanted or (s.signal or 0) >= CROSSTALK_SHARE
    ]
    microscope = run.simulation.microscope
    formation = run.plan.imaging.formation
    spreads = []
    if isinstance(microscope, Optics) and isinstance(formation, OpticsPlan):
        spreads = light.spreads(microscope, formation.pairs, run.simulation)
    return {
        "spectra": light.draw_spectra(light_path),
        "dyes_in_channels": dye_in_channel_rows(seen, light_path),
        "spreads": spreads,
        "microscope": microscope,
        "pairs": run.record["optics"].get("pairs", []),
    }


def _counts(result: Result, run: RunRecord | None) -> dict[str, Any]:
    found = totals(_records(result))
    histograms = []
    channels = result.channels
    for c, (channel, histogram) in enumerate(zip(channels, found.histograms, strict=False)):
        window = (channel["window"]["start"], channel["window"]["end"])
        tint = ChannelDisplay(channel["label"], channel["color"], window, channel["window"]["max"])
        pixels = int(histogram.sum())
        if not pixels:  # the run stopped before the camera
            continue
        images = [values for group, values in found.largest.items() if "labels/" not in group]
        histograms.append(
            {
                "name": tint.name,
                "figure": draw_histogram(tint, histogram, shade(channel["color"])),
                "clipped": found.clipped[c],
                "share": found.clipped[c] / pixels,
                "largest": max(values[c] for values in images if c < len(values)),
                "top": tint.largest,
            }
        )
    known, unknown = strengths(result, run) if run else ([], [])
    return {"histograms": histograms, "largest": result.largest(), "strengths": known, "unknown": unknown}


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


def _run(result: Result, run: RunRecord | None) -> dict[str, Any]:
    running = read_running(lambda: _records(result))
    found: dict[str, Any] = {"running": running, "memory_figure": None}
    if running is None:
        return found
    rows = [
        ("Began", datetime.fromtimestamp(running.begin, UTC).strftime("%Y-%m-%d %H:%M UTC")),
        ("Work of all blocks", f"{duration(running.work_s)}; the longest took {duration(running.longest_s)}"),
        ("Blocks that took more than one attempt", f"{running.retried}, at most {running.attempts} attempts"),
    ]
    if run:
        record = run.record
        block, tile = (" × ".join(map(str, record["blocks"][f"{name}_pixels"])) for name in ("block", "tile"))
        pixels = math.prod(result.array().shape) * max(1, result.rounds)
        rates = f"{running.blocks / running.seconds:.3g} blocks/s, {pixels / running.seconds / 1e6:.3g} Mpixel/s"
        rows[1:1] = [
            ("Block, tile (z y x)", f"{block} and {tile}"),
            ("Predicted work", f"about {duration(record['core_seconds'])} of one core"),
            ("Speed", f"{rates}, all channels together"),
        ]
        rows.append(("Stored before compression", size(record["bytes_uncompressed"])))
        found["memory_figure"] = draw_memory(running, record["memory_parts_bytes"])
    return found | {"speed_figure": draw_speed(running), "run_rows": rows}


def _records(result: Result) -> Iterator[Record]:
    """Read the journal, if it exists."""
    if result.place.journal.is_dir():
        yield from valid_records(Journal(result.place.journal, result.provenance["hash"]).records())


def shade(color: str) -> str:
    """Darken a channel's colour for a figure."""
    if color.upper() == "FFFFFF":
        return ACCENT
    r, g, b = (round(255 * part) for part in readable(color))
    return f"#{r:02x}{g:02x}{b:02x}"


def number(value: float) -> str:
    """Format a number with thin spaces between thousands; fractions get three significant digits."""
    if isinstance(value, float) and value != round(value):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}".replace(",", " ")
    return f"{int(value):,}".replace(",", " ")


def default_path(result: Result) -> Path:
    """Return the default path of the page."""
    return Path(f"{result.path.stem}-report.html")
