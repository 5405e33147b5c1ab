"""Finish a run: tables, totals over blocks, metadata."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from simexm.errors import RunError, SimexmWarning, SourceError
from simexm.geometry.grid import three
from simexm.jobs.events import LOG, Message
from simexm.jobs.journal import Journal
from simexm.jobs.progress import LogFile
from simexm.kernels.detector.camera import octave_quantile
from simexm.planning.outputs import Output, Volumes
from simexm.planning.plan import Plan
from simexm.result import place
from simexm.result.place import Place
from simexm.run import folders, tables
from simexm.run import series as cell_series
from simexm.run.layout import files_of_run, write_manifest
from simexm.run.totals import Totals
from simexm.run.volumes import arrays
from simexm.spectra.colour import wavelength_to_rgb
from simexm.stages.contract import LABELLED, Counted
from simexm.stages.frames import FrameAxis
from simexm.store import omezarr
from simexm.store.files import remove_tree
from simexm.store.omexml import METADATA, Series, collection_xml
from simexm.version import FORMAT_VERSION

WINDOW = (0.02, 0.998)
"""Quantiles of the counts at the ends of the viewers' display window."""


def finish(plan: Plan, where: Place, journal: Journal, counted: Counted) -> None:
    """Write tables and metadata when every block and level is stored; the image's own metadata last.

    Raises RunError if a block is missing, SourceError if there was no cell in the whole specimen.
    """
    totals = Totals()
    for record in journal.records():
        totals.add(record.result)
    if totals.blocks != plan.count:
        missing = plan.count - totals.blocks
        raise RunError(f"{missing} of {plan.count} blocks are missing; type the same command again")
    if totals.voxels == 0:
        raise SourceError("every label is 0, so there was no cell to label; check the source's path, dataset and crop")
    totals.sums |= tables.merge(plan, where, totals.rows, counted)
    origin = plan.geometry.image_origin_nm
    name = plan.simulation.name
    series: list[Series] = []
    for output in plan.outputs:
        if not output.group:
            continue  # the only image, written last
        places = (f"{axis} {place}" for axis, place in output.frame.named if axis != "time")
        label = output.path.rpartition("/")[2] or " ".join([name, *places])
        channels, method, time = not output.is_labels, "mode" if output.is_labels else "mean", _time(plan, output)
        scales = omezarr.multiscales(label, plan.levels, origin, channels=channels, method=method, time=time)
        if output.is_labels:
            attributes = omezarr.label_attributes(scales, image="../../")
        else:
            omero = _omero(plan, totals, where, output)
            if not output.path:
                series.append(_series(plan, output, label, omero))
            attributes = {**omezarr.image_attributes(scales, omero=omero), place.MARK: _quantity(output)}
        folders.write_attributes(where, output.group, attributes)
    for group, names in plan.volumes.labels_groups.items():
        folders.write_attributes(where, group, omezarr.labels_group_attributes(names))
    log = LogFile(where.run / LOG)
    for text in totals.warnings(plan):
        log(Message(f"warning: {text}"))
        warnings.warn(text, SimexmWarning, stacklevel=2)
    if plan.acquisition.groups:
        folders.write_attributes(where, "OME", omezarr.series_attributes([one.path for one in series]))
        where.files.put(METADATA, collection_xml(series))
        attributes = omezarr.collection_attributes()
    else:
        time = _time(plan, plan.outputs[0])
        main = omezarr.multiscales(name, plan.levels, origin, channels=True, method="mean", time=time)
        attributes = omezarr.image_attributes(main, omero=_omero(plan, totals, where, plan.outputs[0]))
    attributes = {**attributes, place.MARK: _provenance(plan, totals)}
    arrays_of_cells = [path for one in cell_series.stored(plan, where, counted) for path in one.files]
    zarr, run = files_of_run(plan, where)
    write_manifest(where, [*zarr, *arrays_of_cells], run, omezarr.group_bytes(attributes))
    folders.write_attributes(where, "", attributes)
    remove_tree(where.run / place.SCRATCH, ignore_errors=True)  # with files of killed workers


def _series(plan: Plan, output: Output, name: str, omero: Mapping[str, Any]) -> Series:
    spacing_um = three(map(omezarr.micrometres, plan.levels[0].spacing))
    channels = tuple((channel["label"], channel["color"]) for channel in omero["channels"])
    return Series(output.group, name, plan.shape, output.dtype, spacing_um, channels)


def _quantity(output: Output) -> dict[str, str]:
    """Describe an image: quantity, axes, unit."""
    axes = output.axes.replace("c", "l") if output.product.name == LABELLED.name else output.axes
    return {"quantity": output.product.name, "axes": axes, "unit": output.product.unit}


def _time(plan: Plan, output: Output) -> FrameAxis | None:
    """Return the time axis of an output, if it has one."""
    return plan.acquisition.time if output.times else None


def _omero(plan: Plan, totals: Totals, where: Place, output: Output) -> dict[str, Any]:
    """Make names, colours and display windows of the channels; windows of counts are the same in all frames."""
    channels = []
    for c, name in enumerate(output.channels):
        if not output.path and plan.main == "image":
            histogram = totals.histograms[c]
            top = output.product.largest or float(np.iinfo(output.dtype).max)
            start, end = (octave_quantile(histogram, share) for share in WINDOW)
            window = {"min": 0.0, "max": top, "start": start, "end": max(end, start + 1)}
        else:
            window = coarsest_window(plan.volumes, where, output, c)
        channels.append((name, channel_color(plan, name), window))
    return omezarr.omero(channels, plan.shape[0])


def coarsest_window(volumes: Volumes, where: Place, output: Output, channel: int) -> dict[str, float]:
    """Make a channel's display window: from 0 to the largest value of the coarsest level."""
    coarsest = np.asarray(arrays(volumes, where, output)[-1].open()[(..., channel, *(slice(None),) * 3)])
    largest = float(coarsest.max())
    return {"min": 0.0, "max": largest, "start": 0.0, "end": max(largest, 1e-9)}


def channel_color(plan: Plan, name: str) -> str:
    """Return RRGGBB of a channel: the user's, or of its brightest dye's emission; of a layer, of its dye's emission."""
    for channel in plan.simulation.microscope.all_channels:
        if channel.name == name:
            if channel.color:
                return channel.color.upper()
            pairs = [p for p in plan.imaging.formation.pairs if p.channel == name]
            brightest = max(pairs, key=lambda p: p.in_focus, default=None)
            return wavelength_to_rgb(brightest.emission_nm if brightest else sum(channel.passes_nm) / 2)
    return wavelength_to_rgb(plan.context.dyes[plan.context.emits[name]].peak_emission_nm)


def _provenance(plan: Plan, totals: Totals) -> Mapping[str, Any]:
    g = plan.geometry
    return {
        "hash": plan.hash,
        "format": FORMAT_VERSION,
        "status": place.COMPLETE,
        **folders.contents(plan),
        **_quantity(plan.outputs[0]),
        "spec": plan.simulation.to_mapping(),
        "until": plan.until,
        "seed": plan.simulation.seed,
        "versions": dict(plan.versions),
        "expansion_factor": float(g.transform.scale),
        "pixel_size_expanded_um": [float(p) / 1000 for p in g.pixel_nm],
        **plan.imaging.description.provenance(),
        **{key: value for stage in plan.stages for key, value in stage.provenance(totals.sums).items()},
        "largest": totals.largest,
        "clipped_pixels": dict(zip(plan.outputs[0].channels, totals.clipped, strict=True)),
    }
