"""A run from plan to finished result: output, blocks, coarse levels, tables, metadata."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from simexm.engine import tables
from simexm.engine.block import BlockResult, compute_block
from simexm.engine.events import Listener, Message
from simexm.engine.journal import Journal
from simexm.engine.levels import LevelPass
from simexm.engine.lock import lock
from simexm.engine.plan import GiB, Plan
from simexm.errors import OutputError, RunError, SimexmWarning, SourceError, SpecError
from simexm.kernels.camera import octave_quantile
from simexm.kernels.emit import Emitters
from simexm.result import Result
from simexm.sources.base import LabelSource
from simexm.spectra.colour import wavelength_to_rgb
from simexm.store import guard, omezarr, place
from simexm.store.place import Place
from simexm.store.pyramid import downsample_labels, downsample_mean, pyramid

if TYPE_CHECKING:
    import distributed

    from simexm.simulation import Simulation

WINDOW = (0.02, 0.998)
"""Shares of the pixels below the darkest and the brightest count that viewers show."""


@dataclass(frozen=True)
class Context:
    """What a worker is told: the plan and where the result stands."""

    plan: Plan
    place: Place


def run_block(context: Context, number: int) -> dict[str, Any]:
    """Compute one block and write its shards, coarse level first; what is returned goes to the journal."""
    plan, where = context.plan, context.place
    mark = where.mark()
    if mark is None or mark["hash"] != plan.hash:
        raise OutputError(f"{where.zarr} now belongs to another run; this worker's block is not written")
    source = _source_of(plan)
    name = f"block-{number:07d}.parquet"
    with _emitter_file(plan, where, name) as sink:
        result = compute_block(plan, source, number, sink)
    stored = {o.path: _write(plan, where, o.path, number, result) for o in plan.outputs}
    size = tables.write_counts(result.cells, where.tables / "cells.parts" / name, where.scratch)
    return {**result.statistics, "stored": stored, "cells": size, "peak_bytes": peak_bytes()}


def peak_bytes() -> int:
    """Largest resident memory of this process so far, bytes; 0 where the system does not tell (VmHWM of Linux).

    Not ru_maxrss, which a child inherits from its parent.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


def _source_of(plan: Plan) -> LabelSource:
    key = plan.simulation.source.model_dump_json()
    if key not in _SOURCES:
        _SOURCES.clear()
        _SOURCES[key] = plan.simulation.source.open()
    return _SOURCES[key]


_SOURCES: dict[str, LabelSource] = {}


def _write(plan: Plan, where: Place, path: str, number: int, result: BlockResult) -> list[list[Any]]:
    """Write the levels that the block owns; [bytes, checksum] of each shard, level by level, channel by channel."""
    output = next(o for o in plan.outputs if o.path == path)
    levels = place.arrays(plan, where, output)
    owned = [n for n, s in enumerate(plan.storage) if s.owned]
    position = plan.blocks.position(number)
    data = result.arrays[path]
    planes: list[tuple[NDArray[Any], ...]] = [
        pyramid(part, plan.levels[: len(owned)], downsample_labels if output.is_labels else downsample_mean)
        for part in (data[None] if output.is_labels else data)
    ]
    stored = []
    for n in reversed(owned):
        for c, made in enumerate(planes):
            at = position if output.is_labels else (c, *position)
            part = made[n] if output.is_labels else made[n][None]
            found = levels[n].write(at, part)
            stored.append([found.nbytes, found.checksum])
    return stored


@contextlib.contextmanager
def _emitter_file(plan: Plan, where: Place, name: str) -> Iterator[Any]:
    """Yield a sink that streams the block's emitters into its Parquet file, which appears whole; None if they are not kept."""
    if "emitters" not in plan.simulation.keep:
        yield None
        return
    folder = where.tables / "emitters"
    folder.mkdir(parents=True, exist_ok=True)
    partial = where.scratch / f"emitters-{name}.{os.getpid()}.partial"
    writers: list[pq.ParquetWriter] = []

    def sink(layer: str, emitters: Emitters, ids: NDArray[np.uint64]) -> None:
        columns = tables.emitter_columns(plan, layer, emitters, ids)
        table = pa.table(
            {k: pa.array(v, pa.string()) if v.dtype == object else pa.array(v) for k, v in columns.items()}
        )
        if not writers:
            writers.append(pq.ParquetWriter(partial, table.schema, compression="zstd"))
        writers[0].write_table(table)

    try:
        yield sink
        if writers:
            writers[0].close()
            partial.replace(folder / name)
        else:
            (folder / name).unlink(missing_ok=True)
    finally:
        partial.unlink(missing_ok=True)


def run(
    simulation: Simulation,
    output: Path,
    *,
    client: distributed.Client | None = None,
    workers: int | None = None,
    until: str | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> Result:
    """See `Simulation.run`."""
    where = Place.at(output)
    plan = simulation.plan(until=until)
    plan.warn()
    guard.refuse(plan, where, overwrite)
    if client is None:
        workers = _fitting_workers(min(len(plan.blocks), os.cpu_count() or 1) if workers is None else workers, plan)
    try:
        with lock(where.run / "lock"):
            guard.refuse(plan, where, overwrite)  # again: another run may have ended meanwhile
            _begin(plan, where, overwrite)
            try:
                _do(plan, where, client, workers, quiet)
            except SourceError:
                raise
            except OSError as error:
                raise guard.stopped(error, where) from error
    finally:
        with contextlib.suppress(OSError):
            where.run.rmdir()  # where nothing came to be in it
    return Result.open(where.zarr)


def _begin(plan: Plan, where: Place, overwrite: bool) -> None:
    """Make room and prepare; leaves nothing where the disk refuses."""
    mark = where.mark()
    fresh = overwrite or mark is None
    try:
        if fresh:
            guard.clear(where)
        place.prepare(plan, where)
    except OSError as error:
        if fresh:
            guard.clear(where)
        raise OutputError(guard.why(error, f"{where.zarr} cannot be written")) from error


def _do(plan: Plan, where: Place, client: distributed.Client | None, workers: int | None, quiet: bool) -> None:
    low = place.check_free(plan, where)
    if low:
        warnings.warn(low, SimexmWarning, stacklevel=2)
    journal = Journal.open(where.journal, plan.hash)
    _distrust_missing(plan, where, journal)
    with _client(client, workers) as running:
        _blocks(plan, where, journal, running, quiet)
        LevelPass(plan, where).run(running, where.run / "journal" / "levels")
    _finish(plan, where, journal)


def _distrust_missing(plan: Plan, where: Place, journal: Journal) -> None:
    """Take back from `journal.done` what the journal says is on disk and one listing of the main image does not show."""
    if not journal.done:
        return
    output = plan.outputs[0]
    base = where.zarr / "0" / "c"
    present = {
        tuple(int(p) for p in Path(entry).relative_to(base).parts)
        for folder, _, names in os.walk(base)
        for entry in (os.path.join(folder, name) for name in names)
    }
    channels = len(output.channels)
    for record in journal.records():
        stored = record.result["stored"][output.path][-channels:]  # level 0 comes last
        position = plan.blocks.position(record.block)
        if any(nbytes and (c, *position) not in present for c, (nbytes, _) in enumerate(stored)):
            journal.done.discard(record.block)


@contextlib.contextmanager
def _client(client: distributed.Client | None, workers: int | None) -> Iterator[distributed.Client]:
    if client is not None:
        yield client
        return
    from simexm.engine.cluster import local_client

    with _caller_hidden(), local_client(workers) as started:
        yield started


@contextlib.contextmanager
def _caller_hidden() -> Iterator[None]:
    """Keep new processes from importing the caller's script, of which they need nothing.

    A script without `if __name__ == "__main__":` would start its run anew in each worker. (Python's multiprocessing finds
    the script by these two names when it starts a process, and Dask starts one whenever a worker has died.)
    """
    main = sys.modules["__main__"]
    before: dict[str, Any] = {name: vars(main)[name] for name in ("__file__", "__spec__") if name in vars(main)}
    main.__spec__ = None
    vars(main).pop("__file__", None)
    try:
        yield
    finally:
        vars(main).update(before)


def _fitting_workers(count: int, plan: Plan) -> int:
    """As many workers as the machine's free memory holds; the tile stays as planned, for it decides bytes.

    Raises
    ------
    SpecError
        If not even one fits, or less than one is asked for.
    """
    if count < 1:
        raise SpecError(f"{count} workers would compute nothing; give 1 or more")
    needed = plan.memory.total
    free = psutil.virtual_memory().available
    if needed > free:
        raise SpecError(
            f"a worker needs {needed / GiB:.2f} GiB, but {free / GiB:.2f} GiB are free on this machine: it would be killed; "
            f"set execution.memory_GiB to {free / GiB * 0.9:.2g}, for which `simexm plan` chooses smaller tiles"
        )
    fitting = min(count, free // needed)
    if fitting < count:
        warnings.warn(
            f"{fitting} instead of {count} workers: each needs {needed / GiB:.2f} GiB and {free / GiB:.2f} GiB are free; "
            "lower execution.memory_GiB for smaller tiles and more workers",
            SimexmWarning,
            stacklevel=2,
        )
    return fitting


def _blocks(plan: Plan, where: Place, journal: Journal, client: distributed.Client, quiet: bool) -> None:
    from simexm.engine.executor import execute
    from simexm.engine.progress import FailedFile, LogFile, progress

    total = len(plan.blocks)
    log = LogFile(where.run / "log.txt")
    expected = plan.core_seconds / total
    with progress(total, plan.geometry.crop.size, len(journal.done), quiet=quiet) as bar:
        listeners: list[Listener] = [log, FailedFile(where.run / "failed.jsonl"), bar]
        if journal.done:
            for listen in listeners:
                listen(Message(f"resuming: {len(journal.done)} of {total} blocks are done"))
        outcome = execute(
            client=client, function=run_block, context=Context(plan, where), blocks=journal.done.missing(total), journal=journal,
            seconds_per_block=expected, listeners=listeners,
        )  # fmt: skip
    if outcome.failed_count:
        first = outcome.failed[0]
        raise RunError(
            f"{outcome.failed_count} of {total} blocks failed, the first with: {first.error} (on {first.host}). "
            f"The others are kept; {where.run / 'failed.jsonl'} lists them. Mend the cause and type the same command again"
        )


def _finish(plan: Plan, where: Place, journal: Journal) -> None:
    """Tables, metadata and picture; the image's own metadata last of all."""
    totals = _totals(plan, journal)
    parts = sorted((where.tables / "cells.parts").glob("block-*.parquet"))
    tables.merge_cells(plan, parts, where.tables / "cells.parquet", where.scratch)
    origin = plan.geometry.image_origin_nm
    name = plan.simulation.name
    for output in plan.outputs:
        scales = omezarr.multiscales(
            name if not output.path else output.path.rpartition("/")[2], plan.levels, origin,
            channels=not output.is_labels, method="mode" if output.is_labels else "mean",
        )  # fmt: skip
        if output.is_labels:
            place.write_attributes(where, output.path, omezarr.label_attributes(scales, image="../../"))
        elif output.path:
            place.write_attributes(where, output.path, omezarr.image_attributes(scales))
    names = [o.path.removeprefix("labels/") for o in plan.outputs if o.is_labels]
    place.write_attributes(where, "labels", omezarr.labels_group_attributes(names))
    main = omezarr.multiscales(name, plan.levels, origin, channels=True, method="mean")
    attributes = omezarr.image_attributes(main, omero=_omero(plan, totals, where))
    _warn_of(plan, totals, where)
    place.write_attributes(where, "", {**attributes, place.MARK: _provenance(plan, totals)})
    shutil.rmtree(where.scratch, ignore_errors=True)  # with what killed workers left
    from simexm.view.preview import save_preview

    try:
        save_preview(Result.open(where.zarr), where.run / "preview.png")
    except OSError as error:
        text = (
            f"the result is complete, but its picture {where.run / 'preview.png'} cannot be written: {error.strerror}"
        )
        warnings.warn(text, SimexmWarning, stacklevel=2)


@dataclass
class Totals:
    """What the blocks' statistics add up to."""

    voxels: int
    dyes: dict[str, int]
    unspecific: dict[str, int]
    clipped: list[int]
    histograms: list[NDArray[np.int64]]


def _totals(plan: Plan, journal: Journal) -> Totals:
    channels = len(plan.outputs[0].channels)
    totals = Totals(0, {}, {}, [0] * channels, [np.zeros(129, np.int64) for _ in range(channels)])
    for record in journal.records():
        result = record.result
        totals.voxels += result["voxels"]
        for into, values in ((totals.dyes, result["dyes"]), (totals.unspecific, result["unspecific"])):
            for layer, number in values.items():
                into[layer] = into.get(layer, 0) + number
        for c, image in enumerate(result["images"]):
            totals.clipped[c] += image["clipped"]
            for bin_, number in image["histogram"]:
                totals.histograms[c][bin_] += number
    return totals


def _warn_of(plan: Plan, totals: Totals, where: Place) -> None:
    """Tell what only the run could know."""
    from simexm.engine.progress import LogFile

    told = []
    pixels = int(np.prod(plan.shape))
    for layer in plan.simulation.labelling.layers:
        if not totals.dyes.get(layer.name):
            told.append(
                f"layer {layer.name!r} is empty: no labelled cell has a voxel of region {layer.region!r} that carries a dye; "
                "check region, cell_fraction and density"
            )
    for channel, clipped in zip(plan.outputs[0].channels, totals.clipped, strict=True):
        if clipped:
            told.append(
                f"{clipped} pixels of channel {channel!r} ({clipped / pixels:.2%}) are cut at the camera's largest count; "
                "lower the light or gain_counts_per_e, or raise bits"
            )
    log = LogFile(where.run / "log.txt")
    for text in told:
        log(Message(f"warning: {text}"))
        warnings.warn(text, SimexmWarning, stacklevel=2)


def _omero(plan: Plan, totals: Totals, where: Place) -> dict[str, Any]:
    """Names, colours and display windows of the channels."""
    optics = plan.world.optics
    assert optics is not None
    channels = []
    for c, name in enumerate(plan.outputs[0].channels):
        histogram = totals.histograms[c]
        if plan.main == "image":
            bits = plan.simulation.camera.bits if plan.simulation.camera else 16
            start, end = (octave_quantile(histogram, share) for share in WINDOW)
            window = {"min": 0.0, "max": float(2**bits - 1), "start": start, "end": max(end, start + 1)}
        else:
            coarsest = np.asarray(place.arrays(plan, where, plan.outputs[0])[-1].open()[c])
            window = {"min": 0.0, "max": float(coarsest.max()), "start": 0.0, "end": max(float(coarsest.max()), 1e-9)}
        channels.append({"label": name, "color": channel_color(plan, name), "active": True, "window": window})
    depth = plan.shape[0]
    return {"channels": channels, "rdefs": {"model": "color", "defaultZ": depth // 2, "defaultT": 0}}


def channel_color(plan: Plan, name: str) -> str:
    """RRGGBB of a channel: the user's, or that of its brightest dye's light; of a layer, that of its dye."""
    optics = plan.world.optics
    assert optics is not None
    for channel in plan.simulation.optics.all_channels:
        if channel.name == name:
            if channel.color:
                return channel.color.upper()
            pairs = [p for p in optics.pairs if p.channel == name]
            brightest = max(pairs, key=lambda p: p.in_focus, default=None)
            return wavelength_to_rgb(brightest.emission_nm if brightest else sum(channel.band_nm) / 2)
    dye = plan.simulation.fluorophores()[plan.world.dye_of_layer[name]]
    return wavelength_to_rgb(dye.peak_emission_nm)


def _provenance(plan: Plan, totals: Totals) -> Mapping[str, Any]:
    optics = plan.world.optics
    assert optics is not None
    g = plan.geometry
    return {
        "hash": plan.hash,
        "status": "complete",
        "outputs": [o.path for o in plan.outputs if o.path],
        "quantity": plan.main,
        "spec": plan.simulation.to_mapping(),
        "until": plan.until,
        "seed": plan.simulation.seed,
        "versions": dict(plan.versions),
        "expansion_factor": float(g.factor),
        "pixel_size_expanded_um": [float(p) / 1000 for p in g.pixel_nm],
        "psf_energy_share": [{"channel": p.channel, "dye": p.dye, "share": 1 - p.left_out} for p in optics.pairs],
        "dyes": totals.dyes,
        "clipped_pixels": dict(zip(plan.outputs[0].channels, totals.clipped, strict=True)),
    }
