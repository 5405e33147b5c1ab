"""Make a plan: choose grids, blocks and tiles, predict memory, and refuse what cannot be computed."""

from __future__ import annotations

import importlib.metadata
import math
import warnings
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from simexm import compiled
from simexm.arguments import text
from simexm.errors import SimexmWarning, SourceError, SpecError
from simexm.geometry.geometry import Geometry
from simexm.geometry.grid import Box, Tiling, Triple, three, triple
from simexm.geometry.transform import IDENTITY
from simexm.kernels.devices import cupy_device
from simexm.kernels.labels.regions import CYTOSOL, FIRST_MASK, MEMBRANE, MOST_MASKS
from simexm.planning.blocks import ALIGN, LARGEST, choose_block, clipped, frames_together, smaller
from simexm.planning.frames import GROUP_AXES, Variation, acquisition, main_of, main_quantity, once_and_each
from simexm.planning.gpu import resolve_device
from simexm.planning.memory import BASE, COMPILING, EMITTER_FILE, TileMemory, brick, parts, tile_memory
from simexm.planning.outputs import Output, Volumes
from simexm.planning.plan import Plan, emitters_depth_nm, imaging_repeats, voxels_read
from simexm.planning.plausible import refuse_single_pixel, refuse_size
from simexm.sources.base import ZarrSource
from simexm.sources.chunk_cache import CACHE_BYTES
from simexm.sources.fields import masks_of, not_grey
from simexm.sources.times import refuse_series
from simexm.stages import installed
from simexm.stages.contract import LABELLED, RunContext, Stage
from simexm.stages.products import Product
from simexm.stages.roles import ImageFormation, ImagingPlan, TissueMotion
from simexm.store.pyramid import plan_levels, plan_storage
from simexm.units import GiB, size, times
from simexm.version import RESULTS_VERSION

if TYPE_CHECKING:
    from simexm.sources.base import LabelSource
    from simexm.spec.simulation import Spec

CHUNK: Triple = (64, 64, 64)
_LONGEST = 10**7
_SCAN_CHUNKS = 4096
_SEARCHED_CHUNKS = 512


def make_plan(
    simulation: Spec, *, until: str | None = None, source: LabelSource | None = None, gpu: bool | None = None
) -> Plan:
    """Plan a run; see `Simulation.plan` for the parameters.

    Raises SpecError or SourceError if it cannot be computed, or would not fit into memory.
    """
    resolved = simulation.resolved()
    opened = source if source is not None else resolved.source.open()
    refuse_series(_name_of(resolved), opened.times)
    stages = _stages_until(resolved, until)
    refuse_size(opened.voxel_size_nm)
    crop = resolved.crop_box(opened.shape)
    place = opened.shape, crop, opened.voxel_size_nm, opened.origin_nm
    specimen = Geometry(*place, IDENTITY, opened.voxel_size_nm).specimen(resolved.seed)
    frames = acquisition(stages).frames()
    transform = resolved.transform(specimen, frames[0])
    geometry = resolved.microscope.geometry(*place, transform)
    geometry = replace(geometry, frame=resolved.detector.frame if resolved.detector else None)
    refuse_single_pixel(geometry)
    if max(geometry.shape) > _LONGEST:
        raise SpecError(
            f"the image would have {times(geometry.shape)} pixels (z y x), but at most {_LONGEST:.0e} along an axis are "
            "possible; check voxel_size_nm, pixel_size_nm and plane_spacing_nm, all in nm, or set a crop"
        )
    if source is None:
        _refuse_empty(opened, crop)
    layers = resolved.labeller.named_layers
    in_use = [(stage, region, what) for stage in stages for region, what in stage.regions_used]
    for _, region, what in in_use:
        if region not in ("membrane", "cytosol", *masks_of(opened.fields)):
            raise SpecError(f"{what} the region {region!r}, for which the source has no mask")
    greys = _greys(stages, opened)
    if source is None and isinstance(resolved.source, ZarrSource):
        labelled = {region for stage, region, _ in in_use if stage.emits}
        _warn_of_empty_regions(opened, crop, labelled & set(masks_of(opened.fields)))
    bits = {"membrane": MEMBRANE, "cytosol": CYTOSOL}
    used = {region for _, region, _ in in_use}
    masks = [name for name in masks_of(opened.fields) if name in used]
    if len(masks) > MOST_MASKS:
        raise SpecError(
            f"{len(masks)} regions with a mask are labelled or shown, but at most {MOST_MASKS} are possible; label fewer of "
            "them, or merge some masks"
        )
    bits |= {name: FIRST_MASK << i for i, name in enumerate(masks)}
    dyes = {d.name: d for d in resolved.fluorophores().values()}
    device = resolve_device(resolved.execution, stages, gpu)
    imaging = resolved.microscope.resolve(dyes, geometry, resolved.efficiency)
    id_dtype = np.dtype(opened.dtype).name
    context = RunContext(
        seed=resolved.seed,
        geometry=geometry,
        region_bits=bits,
        dye_of_layer={layer.name: layer.dye for layer in layers},
        imaging=imaging,
        clump_cell_nm=None
        if any(s.flashes for s in stages)
        else _clump_cell_nm(imaging.formation, float(transform.scale)),
        device=device,
        identified=any(s.wants_identity for s in stages),
        acquisition=acquisition(stages),
        channels=tuple(c.name for c in resolved.microscope.all_channels),
        dyes=dyes,
        id_dtype=id_dtype,
        labeller=resolved.labeller,
        motion=next((s for s in stages if isinstance(s, TissueMotion)), None),
        detector=resolved.detector,
        emits={layer: dye for stage in stages for layer, dye in stage.emits.items()},
        pixel_time_s=resolved.microscope.pixel_time_s,
        excitations_per_s=resolved.microscope.excitations_per_s(dyes),
        greys=greys,
        transforms={f: resolved.transform(specimen, f) for f in frames} if any(s.moves for s in stages) else {},
        missing={f: [box for s in stages for box in s.missing(geometry, f)] for f in frames},
    )
    for stage in stages:
        stage.refuse(context)
    _refuse_varying_maps(stages, context)
    levels = plan_levels(geometry.shape, geometry.pixel_tissue_nm)
    outputs = _outputs(resolved, stages, context)
    limit = int(resolved.execution.memory_GiB * GiB)
    at_once = clipped(brick(opened.shape, opened.dtype.itemsize), opened.shape)
    reading = opened.reading_bytes(at_once, context.read_beside)

    def predict(tile: Triple, block: Triple) -> tuple[Triple, TileMemory]:
        return _predict(stages, context, resolved, outputs, id_dtype, tile, block, limit, reading)

    def fits(block: Triple, planes: int) -> bool:
        return predict(clipped((planes, *block[1:]), clipped(block, geometry.shape)), block)[1].steady <= limit

    block = _block(resolved, stages, context, imaging, fits)
    if _span(geometry.shape, block, outputs) > 1:
        block = (1, *block[1:])  # a movie of one plane: its shards hold frames, and no room for planes
    asked = resolved.execution.tile
    tile = clipped(asked or block, clipped((LARGEST,) * 3, geometry.shape))
    fitting = smaller(tile, lambda t: predict(t, block)[1].steady <= limit)
    if fitting is None or (asked is not None and fitting != tile):
        if fitting is None and asked is None:
            tile = clipped((1, 256, 256), geometry.shape)  # halos of smaller tiles would take too long
        needed = predict(tile, block)[1].steady / GiB
        remedy = f"set --tile {' '.join(map(str, fitting))}, or" if fitting else _without_tile(reading, limit)
        raise SpecError(
            f"a tile of {times(tile)} pixels needs {size(needed * GiB)} in each worker, but execution.memory_GiB is "
            f"{resolved.execution.memory_GiB:g}: workers would be killed; {remedy} raise memory_GiB to "
            f"{math.ceil(10 * needed + 0.1) / 10:g}"
        )
    tile = clipped(fitting, block)
    part, memory = predict(tile, block)
    return Plan(
        simulation=resolved,
        until=stages[-1].tag if until is None else until,
        stages=stages,
        context=context,
        id_dtype=id_dtype,
        identity=opened.identity,
        block=block,
        tile=tile,
        part=part,
        volumes=Volumes(outputs, levels, plan_storage(levels, block, CHUNK), _span(geometry.shape, block, outputs)),
        memory=memory if compiled.is_cached() else replace(memory, compiling=COMPILING),
        versions={**_versions(device), **installed.versions(stages)},
    )


def _block(
    simulation: Spec,
    stages: Sequence[Stage],
    context: RunContext,
    imaging: ImagingPlan,
    fits: Callable[[Triple, int], bool],
) -> Triple:
    """Choose the block; `fits` says whether one can be computed, so many planes at a time."""
    shape = context.geometry.shape
    if any(s.flashes for s in stages) and context.acquisition.time:
        # few dyes are on, so that a movie is cut along time alone
        whole = triple(min(LARGEST, -(-n // a) * a) for n, a in zip(shape, ALIGN, strict=True))
        block = smaller(whole, lambda b: fits(b, LARGEST)) or ALIGN
        return triple(-(-n // a) * a for n, a in zip(block, ALIGN, strict=True))
    planes = LARGEST if fits(ALIGN, LARGEST) else 1  # not even the smallest block fits at once: plane by plane
    if planes == 1 and not fits(ALIGN, 1):
        return ALIGN
    seconds_per_cost = imaging.cost.seconds_per_cost * imaging_repeats(
        imaging.formation, stages, context.acquisition, simulation.microscope
    )
    fewest = simulation.execution.min_blocks
    return choose_block(shape, imaging.cost.relative, lambda b: fits(b, planes), seconds_per_cost, fewest)


def _greys(stages: Sequence[Stage], source: LabelSource) -> tuple[str, ...]:
    """Return the grey fields in use, in the source's order; raises SpecError if it lacks one."""
    used = [grey for stage in stages for grey in stage.greys_used]
    offered = [name for name, field in source.fields.items() if field.kind == "grey"]
    for name, what in used:
        if name not in offered:
            raise SpecError(f"{what} the field {name!r}, {not_grey(name, source.fields)}")
    return tuple(name for name in offered if name in {name for name, _ in used})


def _refuse_varying_maps(stages: Sequence[Stage], context: RunContext) -> None:
    """Refuse a map of what changes from frame to frame, since it is made once."""
    variation = Variation.of(stages, context.acquisition.names)
    for stage in stages:
        for wanted in stage.maps(context):
            axes = sorted(set().union(*(variation.quantities.get(q.name, frozenset()) for q in stage.inputs)))
            if axes:
                raise SpecError(
                    f"the stage {stage.tag!r} maps the specimen once for {wanted.name}, but what it maps changes with each "
                    f"{' and '.join(axes)}, so later frames would have the light of the first; set {wanted.name}: false"
                )


def _span(shape: Triple, block: Triple, outputs: Sequence[Output]) -> int:
    """Return the frames of a shard; see `frames_together`."""
    moving = [o for o in outputs if o.times and o.frame.group == outputs[0].frame.group]
    frame_bytes = sum(np.dtype(o.dtype).itemsize * max(1, len(o.channels)) for o in moving)
    return frames_together(shape, clipped(block, shape), max((o.times for o in moving), default=0), frame_bytes)


def _name_of(simulation: Spec) -> str:
    """Name a simulation's source in messages."""
    source = simulation.source
    return f"the source {source.path}" if isinstance(source, ZarrSource) else f"the {source.kind}"


def _clump_cell_nm(formation: ImageFormation, factor: float) -> tuple[float, float, float] | None:
    """Return the cell of the grid on which dyes are placed, nm of tissue; see `RunContext.clump_cell_nm`."""
    if formation.cell_nm is None:
        return None
    return three(float(n) / factor for n in formation.cell_nm)


@cache
def _versions(device: str) -> Mapping[str, str]:
    """Return the versions of the program, of its results, and of the libraries whose arithmetic decides bytes."""
    versions = {name: importlib.metadata.version(name) for name in ("simexm", "numpy", "scipy", "numba")}
    return {**versions, "results": str(RESULTS_VERSION)} | ({"cupy": cupy_device.version()} if device == "gpu" else {})


def _stages_until(simulation: Spec, until: str | None) -> tuple[Stage, ...]:
    """Return the stages up to and including `until`, and those that always run, such as the truth."""
    tags = [s.tag for s in simulation.stages]
    if until is None or text("until", until) == tags[-1]:
        return tuple(simulation.stages)
    possible = [t for t, s in zip(tags, simulation.stages, strict=True) if main_quantity(s)]
    if until not in possible:
        raise SpecError(
            f"--until {until}: nothing on the image's grid is stored after that stage; type one of {', '.join(possible)}"
        )
    kept = list(simulation.stages[: tags.index(until) + 1])
    return (*kept, *(s for s in simulation.stages[len(kept) :] if s.always))


def _outputs(simulation: Spec, stages: Sequence[Stage], context: RunContext) -> tuple[Output, ...]:
    """List all stored images and label images, the main one first; each group of frames has those that vary with it."""
    frames, main = context.acquisition, main_of(stages)
    variation = Variation.of(stages, frames.names)

    def declared(kind: str) -> list[tuple[int, Product, frozenset[str]]]:
        found = []
        for number, stage in enumerate(stages):
            for product in stage.products(context):
                if product.kind == kind:
                    varies = variation.quantities[product.name] if kind == "image" else variation.stages[number]
                    found.append((number, product, varies if product.varies is None else product.varies & frames.names))
        return found

    def outputs(path: str, number: int, product: Product, varies: frozenset[str]) -> list[Output]:
        times = frames.length("time") if "time" in varies else 0
        return [
            Output(path, product, number, varies, frame, times)
            for frame in frames.frames([axis for axis in GROUP_AXES if axis in varies])
        ]

    images = {product.name: (number, product, varies) for number, product, varies in declared("image")}
    kept = sorted(name for name in images if name in simulation.keep and name != main)
    found = [*outputs("", *images[main]), *(o for name in kept for o in outputs(name, *images[name]))]
    found.sort(key=lambda output: output.frame)  # stable, so the order within a group stays
    for number, product, varies in declared("labels"):
        found += outputs(f"labels/{product.name}", number, product, varies)
    return tuple(found)


def _predict(
    stages: Sequence[Stage],
    context: RunContext,
    simulation: Spec,
    outputs: Sequence[Output],
    id_dtype: str,
    tile: Triple,
    block: Triple,
    limit: int,
    reading: int,
) -> tuple[Triple, TileMemory]:
    """Choose the voxels of labels that are held at once, and predict the memory.

    Of `parts` the first that keeps memory below `limit`, or, if none does, the one with the least memory.
    """
    assert context.imaging is not None
    cost, g = context.imaging.cost, context.geometry
    voxels = voxels_read(stages, context, tile)
    labelling = sum(s.tile_bytes(voxels, context) for s in stages) + EMITTER_FILE * ("emitters" in simulation.keep)
    frames = context.acquisition
    first = frames.frames()[0]
    at_once = [o for o in outputs if o.made_in(first)]  # frames are computed and written one after the other
    channels = len(context.channels)
    stored = [np.dtype(o.dtype).itemsize for o in at_once for _ in range(max(1, len(o.channels)))]
    span = _span(g.shape, clipped(block, g.shape), outputs)
    moving = [np.dtype(o.dtype).itemsize for o in at_once if o.times for _ in range(max(1, len(o.channels)))]
    stored += moving * (span - 1)
    # dyes per pixel are counted in 64 bits, then stored in 32
    counted = len(context.emits) * any(o.product.name == LABELLED.name for o in at_once)
    made = sum(s.pixel_bytes(context) for s in simulation.stages) + 12 * counted
    kept = None
    if frames.axes:
        kept = cost.kept_bytes(tile, channels)
        once = once_and_each(stages, frames)[0]
        kept += math.prod(tile) * sum(s.pixel_bytes(context) for s in once if main_quantity(s))
    whole = any(s.whole_labels for s in stages)
    # labels are read again for each dye and each frame
    once_only = not whole and not frames.axes and len(set(context.dye_of_layer.values())) == 1
    choice = None
    for part in parts(voxels.shape, once_only):
        chunk_nm = emitters_depth_nm(stages, context, part, voxels.shape)
        needed = tile_memory(
            voxels=voxels.shape,
            part=part,
            id_bytes=np.dtype(id_dtype).itemsize,
            masks=len(context.masks),
            greys=len(context.greys),
            tile=tile,
            tile_bytes=made,
            block=clipped(block, g.shape),
            stored_bytes=stored,
            labelling=labelling,
            imaging=cost.tile_bytes(tile, channels, context, chunk_nm),
            kept=kept,
            reading=reading,
        )
        if choice is None or needed.steady < choice[1].steady:
            choice = part, needed
        if needed.steady <= limit or whole:
            break
    assert choice is not None
    return choice


def smaller_tile(plan: Plan, nbytes: int) -> str:
    """Return what to type for smaller tiles, of which a worker with so many bytes can compute one."""
    limit = int(plan.simulation.execution.memory_GiB * GiB)  # by which the plan for that tile will choose its parts
    reading = plan.memory.reading

    def fits(tile: Triple) -> bool:
        spec, outputs, block = plan.simulation, plan.outputs, plan.block
        needed = _predict(plan.stages, plan.context, spec, outputs, plan.id_dtype, tile, block, limit, reading)[1]
        return needed.steady + plan.memory.compiling <= nbytes

    tile = smaller(plan.tile, fits)
    if tile:
        return f"set --tile {' '.join(map(str, tile))}"
    if 0.9 * nbytes > plan.memory.base + reading:
        return f"set execution.memory_GiB to {0.9 * nbytes / GiB:.2g} for smaller blocks, as no tile of these is small enough"
    return "no tile is small enough: a worker that only reads the labels needs more"


def _without_tile(reading: int, limit: int) -> str:
    """Begin the remedy if no tile is small enough."""
    if 2 * reading > limit - BASE - CACHE_BYTES:
        return (
            f"no tile is small enough, since reading the labels alone needs {size(reading)}: their chunks are large; store "
            "them in smaller ones (simexm ingest SOURCE -o NAME.zarr), or"
        )
    return "no tile is small enough; use larger pixels, whose halo is smaller, or fewer channels, or"


def _refuse_empty(source: LabelSource, crop: Box) -> None:
    """Refuse a source without a cell, after reading at most a few thousand chunks; normally the first has one.

    A larger volume is checked on its finest level with few enough chunks. Thin and sparse cells may be missing there, so
    this can only issue a warning.
    """
    for level in (source, *source.coarser):
        start = triple(a * n // m for a, n, m in zip(crop.start, level.shape, source.shape, strict=True))
        stop = triple(-(-b * n // m) for b, n, m in zip(crop.stop, level.shape, source.shape, strict=True))
        box = Box(start, stop)
        cells = Tiling(box, triple(min(64, n) for n in box.shape))
        if len(cells) <= _SCAN_CHUNKS:
            if any(level.read(cells[i]).any() for i in range(len(cells))):
                return
            if level is not source:
                warnings.warn(
                    f"the labels' copy downsampled to {times(level.shape)} voxels is all 0 in the crop: if the "
                    "whole crop is, the run will end in an error; check the source's path, dataset and crop",
                    SimexmWarning,
                    stacklevel=3,
                )
                return
            raise SourceError(
                "every label in the crop is 0, so there is no cell to label and the image would be only noise; "
                "check the source's path, dataset and crop"
            )


def _warn_of_empty_regions(source: LabelSource, crop: Box, regions: Set[str]) -> None:
    """Warn of masks that overlap no cell; a crop of more than a few hundred chunks is not searched, to save time."""
    cells = Tiling(crop, triple(min(64, n) for n in crop.shape))
    if len(cells) > _SEARCHED_CHUNKS:
        return
    for name in sorted(regions):
        if not any((source.read_field(name, box) & (source.read(box) != 0)).any() for box in cells):
            warnings.warn(
                f"the region {name!r} overlaps no cell in the crop, so layers that label it will be empty; check the mask, "
                "whether it is stored in the labels' orientation, and the crop",
                SimexmWarning,
                stacklevel=3,
            )
