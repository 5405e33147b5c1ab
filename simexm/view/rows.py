"""Summarise plans, results and volumes as rows of (what, value), for the terminal and for notebooks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from simexm.machine import cpus
from simexm.sources.tissue import TissueSource
from simexm.units import count, duration, size, times

if TYPE_CHECKING:
    from simexm.planning.plan import Plan
    from simexm.result.result import Result
    from simexm.stages.roles import Detector

Rows = list[tuple[str, str]]


def plan_rows(plan: Plan) -> Rows:
    """Summarise what a run would do."""
    m = plan.to_mapping()
    image, blocks, source = m["image"], m["blocks"], m["source"]
    cores = cpus()
    crop = (b - a for a, b in zip(source["crop_start"], source["crop_stop"], strict=True))
    pixel = (
        f"{times(image['pixel_size_expanded_nm'])} nm expanded = {times(image['pixel_size_tissue_nm'])} nm of tissue"
    )
    seconds = m["core_seconds"]
    return [
        ("source", f"{times(crop)} voxels of {times(source['voxel_size_nm'])} nm"),
        *_cells(plan.simulation.source),
        ("image", f"{len(image['channels'])} x {times(image['shape_pixels'])} (c, z, y, x), {pixel}"),
        *(
            (f"{a['axis']}s", f"{len(a['coordinates'])} such images, one for each {a['axis']}")
            for a in m["acquisition"]
        ),
        ("levels", ", ".join(times(s) for s in image["levels"])),
        *(row for stage in plan.stages for row in stage.described(plan.context)),
        *plan.imaging.description.rows(),
        ("detector", _detector(plan.simulation.detector)),
        ("blocks", f"{blocks['count']} of {times(blocks['block_pixels'])}, tiles of {times(blocks['tile_pixels'])}"),
        ("stored", f"{size(m['bytes_uncompressed'])} before compression, about {blocks['files']} files"),
        ("device", "GPU" if m["device"] == "gpu" else "CPU"),
        ("memory", _memory(plan)),
        ("time", f"about {duration(seconds)} of one core, {duration(seconds / cores)} on {count(cores, 'core')}"),
        ("hash", m["hash"]),
    ]


def _cells(source: object) -> Rows:
    """Cells of each population of a tissue, before anything is run."""
    if not isinstance(source, TissueSource):
        return []
    placed = source.cells().population
    return [("cells", ", ".join(f"{int((placed == n).sum())} {p.name}" for n, p in enumerate(source.populations)))]


def _detector(detector: Detector | None) -> str:
    """The detector with all its figures but zeros."""
    if detector is None:
        return "none: the expected image counts the photons that would reach one"
    figures = {key: value for key, value in detector.describe().items() if value and key not in ("stage", "preset")}
    preset = detector.describe().get("preset")
    words = [f"{key} {times(value) if isinstance(value, list) else value}" for key, value in figures.items()]
    return f"{detector.tag}{f' {preset}' if preset else ''}: {', '.join(words)}"


def _memory(plan: Plan) -> str:
    from simexm.run.backend import threads_for

    threads, worker = threads_for(plan), f"{size(plan.memory.total)} in each worker"
    if threads < 2:
        return worker
    return f"{size(plan.memory.at_once(threads))} in one process of {threads} threads; {worker}"


def result_rows(result: Result) -> Rows:
    """Summarise a finished simulation."""
    p, image = result.provenance, result.array()
    energy = ", ".join(f"{s['dye']} in {s['channel']}: {s['share']:.1%}" for s in p.get("psf_energy_share", ()))
    return [
        ("image", f"{times(image.shape)} (c, z, y, x), {image.dtype}, {result.levels()} levels, {p['quantity']}"),
        ("channels", ", ".join(c["label"] for c in result.channels)),
        *((f"{axis.name}s", f"{len(axis.coordinates)}{_amplicons(axis.name, p)}") for axis in result.acquisition.axes),
        ("labels", ", ".join(result.label_names)),
        ("pixel", f"{times(p['pixel_size_expanded_um'])} um expanded, expansion {p['expansion_factor']:g}"),
        ("dyes", ", ".join(f"{k}: {v}" for k, v in p["dyes"].items())),
        ("PSF energy", energy or "-"),
        ("clipped", ", ".join(f"{k}: {v}" for k, v in p["clipped_pixels"].items())),
        ("seed, hash", f"{p['seed']}, {p['hash']}"),
        ("versions", ", ".join(f"{k} {v}" for k, v in p["versions"].items())),
    ]


def _amplicons(axis: str, provenance: Any) -> str:
    return f", with {provenance['amplicons']} amplicons in all" if axis == "round" and "amplicons" in provenance else ""


def analysis_rows(result: Result) -> Rows:
    """Summarise the inputs, settings and scores of an analysis."""
    about = result.provenance
    rows = [("analysis", result.kind)]
    rows += [(name, f"hash {value}") for name, value in about["inputs"].items()]
    rows += [(name, str(value)) for name, value in about["settings"].items() if name != "analysis"]
    rows += [_score(one) for one in result.scores().to_pylist()]
    if "ome" in result.attributes:
        image = result.series()
        rows.append(("image", f"{times(image.shape)}, {image.dtype}, {', '.join(c['label'] for c in result.channels)}"))
    rows += [("labels", ", ".join(result.label_names))] if result.label_names else []
    return [*rows, ("tables", ", ".join(result.tables))]


def sweep_rows(result: Result) -> Rows:
    """Summarise the axes, points and scores of a sweep."""
    about, points = result.provenance["settings"], result.table("points").to_pylist()
    kinds: dict[str, list[str]] = {}
    for one in result.scores().to_pylist():
        kinds.setdefault(one["kind"], []).append(one["score"])
    failed = sum(bool(point["failure"]) for point in points)
    rows = [("sweep", ", ".join(about["axes"]))]
    rows.append(("points", f"{len(points)}{f', of which {failed} failed' if failed else ''}"))
    rows += [(kind, ", ".join(dict.fromkeys(names))) for kind, names in kinds.items()]
    rows.append(("scores", str(result.place.run / "scores.parquet")))
    return [*rows, ("curves", f"simexm report {result.path}")]


def volume_rows(volume: Mapping[str, Any]) -> Rows:
    """Summarise a label volume; see `simexm.sources.describe`."""
    shape, voxel, stored = volume["shape_voxels"], volume["voxel_size_nm"], volume["storage"]
    masks = [f"{field['name']} ({field['kind']}, {field['dtype']})" for field in volume["fields"][1:]]
    between = f", {volume['seconds_per_time']:g} s apart" if volume["seconds_per_time"] else ""
    series = [("time points", f"{volume['times']}{between}")] if volume["times"] > 1 else []
    storage = [f"{part}s of {times(cell)}" for part in ("chunk", "shard") if (cell := stored.get(f"{part}_voxels"))]
    if stored.get("levels"):
        storage.append(count(stored["levels"], "level"))
    tissue = [n * s / 1000 for n, s in zip(shape, voxel or (), strict=False)]
    return [
        ("kind", f"labels, {volume['kind']}"),
        ("voxels", f"{times(shape)} (z, y, x), {volume['dtype']}"),
        ("voxel size", f"{times(voxel)} nm" if voxel else "not in its metadata"),
        *([("extent", f"{times(tissue)} um, from {times(volume['origin_nm'])} nm on")] if voxel else ()),
        *series,
        ("regions", ", ".join(masks) or "-"),
        ("stored", ", ".join(storage) or "-"),
    ]


def _score(one: Mapping[str, Any]) -> tuple[str, str]:
    """Name of a score and of the part that it is of, and its value with what it is."""
    name = one["score"] + (f" ({one['subset']})" if one["subset"] else "")
    return name, f"{one['value']:.6g} {one['unit']}".rstrip() + f": {one['definition']}"
