"""Plans and results told in a few lines, each as what and how much: for the terminal and for notebooks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from simexm.machine import cpus

if TYPE_CHECKING:
    from simexm.planning.plan import Plan
    from simexm.result.result import Result

Rows = list[tuple[str, str]]


def plan_rows(plan: Plan) -> Rows:
    """What a run would do."""
    m = plan.to_mapping()
    image, blocks, source = m["image"], m["blocks"], m["source"]
    cores = cpus()
    return [
        (
            "source",
            f"{times(source['crop_stop'], source['crop_start'])} voxels of {times(source['voxel_size_nm'])} nm",
        ),
        (
            "image",
            (
                f"{len(image['channels'])} x {times(image['shape_pixels'])} (c, z, y, x), "
                f"{times(image['pixel_size_expanded_nm'])} nm expanded = {times(image['pixel_size_tissue_nm'])} nm of tissue"
            ),
        ),
        *(
            (f"{a['axis']}s", f"{len(a['coordinates'])} such images, one for each {a['axis']}")
            for a in m["acquisition"]
        ),
        ("levels", ", ".join(times(s) for s in image["levels"])),
        *plan.imaging.rows(),
        ("blocks", f"{blocks['count']} of {times(blocks['block_pixels'])}, tiles of {times(blocks['tile_pixels'])}"),
        ("stored", f"{m['bytes_uncompressed'] / 1e9:.3g} GB before compression, about {blocks['files']} files"),
        ("device", "GPU" if m["device"] == "gpu" else "CPU"),
        ("memory", _memory(plan)),
        ("time", f"about {m['core_seconds']:.0f} core-seconds, {m['core_seconds'] / cores:.0f} s on {cores} cores"),
        ("hash", m["hash"]),
    ]


def _memory(plan: Plan) -> str:
    from simexm.run.backend import threads_here

    threads, worker = threads_here(plan), f"{plan.memory.total / 2**30:.2f} GiB in each worker"
    if threads < 2:
        return worker
    return f"{plan.memory.at_once(threads) / 2**30:.2f} GiB in one process of {threads} threads; {worker}"


def result_rows(result: Result) -> Rows:
    """What a finished result holds and how it was made."""
    p, image = result.provenance, result.array()
    z, y, x = p["pixel_size_expanded_um"]
    energy = ", ".join(f"{s['dye']} in {s['channel']}: {s['share']:.1%}" for s in p.get("psf_energy_share", ()))
    return [
        (
            "image",
            f"{' x '.join(map(str, image.shape))} (c, z, y, x), {image.dtype}, {result.levels()} levels, {p['quantity']}",
        ),
        ("channels", ", ".join(c["label"] for c in result.channels)),
        *((f"{axis.name}s", f"{len(axis.coordinates)}{_amplicons(axis.name, p)}") for axis in result.acquisition.axes),
        ("labels", ", ".join(result.label_names)),
        ("pixel", f"{z:g} x {y:g} x {x:g} um expanded, expansion {p['expansion_factor']:g}"),
        ("dyes", ", ".join(f"{k}: {v}" for k, v in p["dyes"].items())),
        ("PSF energy", energy or "-"),
        ("clipped", ", ".join(f"{k}: {v}" for k, v in p["clipped_pixels"].items())),
        ("seed, hash", f"{p['seed']}, {p['hash']}"),
        ("versions", ", ".join(f"{k} {v}" for k, v in p["versions"].items())),
    ]


def _amplicons(axis: str, provenance: Any) -> str:
    return f", with {provenance['amplicons']} amplicons in all" if axis == "round" and "amplicons" in provenance else ""


def times(values: Any, minus: Any = None) -> str:
    """Sizes, or differences, as `a x b x c`."""
    numbers = [a - b for a, b in zip(values, minus, strict=True)] if minus is not None else values
    return " x ".join(f"{n:.6g}" for n in numbers)
