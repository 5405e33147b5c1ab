"""What a run will do, worked out before anything runs: grids, boxes, blocks, tiles, memory, and the hash of it all."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from simexm.engine.blocks import LARGEST, choose_block
from simexm.engine.memory import EMITTER_FILE, TileMemory, tile_memory
from simexm.errors import SimexmWarning, SourceError, SpecError
from simexm.grid import Box, Geometry, NmBox, Tiling, Triple
from simexm.kernels import emit, imaging
from simexm.kernels.regions import CYTOSOL, MEMBRANE
from simexm.sources.phantom import Phantom
from simexm.stages import Truth
from simexm.stages.base import Stage, World
from simexm.stages.optics import LEFT_OUT_LIMIT
from simexm.stages.optics_plan import ring_depth
from simexm.store.pyramid import Level, Storage, plan_levels, plan_storage

if TYPE_CHECKING:
    from simexm.simulation import Simulation
    from simexm.sources.base import LabelSource

GiB = 1 << 30
CHUNK: Triple = (64, 64, 64)
MAIN = {"image": "uint16", "expected": "float32", "labelled": "uint32"}
"""What can be stored on the image's grid, and as what."""

SECONDS_PER_NODE = 8e-9
SECONDS_PER_PIXEL = 250e-9
SECONDS_PER_VOXEL = 40e-9
_SCAN_CHUNKS = 4096


@dataclass(frozen=True)
class Output:
    """One multiscale array that a run writes.

    Attributes
    ----------
    path
        Group below the result's root; "" is the root itself.
    channels
        Names along the channel axis; empty for labels, which have none.
    dtype
        Name of the data type.
    """

    path: str
    channels: tuple[str, ...]
    dtype: str

    @property
    def is_labels(self) -> bool:
        """Labels take the mode when they shrink, images the mean."""
        return not self.channels


@dataclass(frozen=True)
class Plan:
    """A simulation with all that follows from it.

    Attributes
    ----------
    simulation
        The resolved spec.
    until
        The last stage that runs.
    stages
        The stages that run.
    world
        What every block knows.
    id_dtype
        Data type of the ids.
    identity
        What tells the source's content from another's; see `LabelSource.identity`.
    block, tile
        Pixels of a shard, and of what is computed at once; z y x.
    levels, storage
        The pyramid and how each level is stored (z y x).
    outputs
        What is written, the main image first.
    memory
        Predicted peak of a worker.
    versions
        Of the program and the libraries that decide bytes.
    """

    simulation: Simulation
    until: str
    stages: tuple[Stage, ...]
    world: World
    id_dtype: str
    identity: str
    block: Triple
    tile: Triple
    levels: tuple[Level, ...]
    storage: tuple[Storage, ...]
    outputs: tuple[Output, ...]
    memory: TileMemory
    versions: Mapping[str, str]

    @property
    def geometry(self) -> Geometry:
        """Transform of image and truth."""
        return self.world.geometry

    @property
    def shape(self) -> Triple:
        """Planes, rows, columns of the image."""
        return self.geometry.shape

    @property
    def blocks(self) -> Tiling:
        """Blocks of the image."""
        return Tiling(Box.of_shape(self.shape), self.block)

    @property
    def main(self) -> str:
        """Which quantity the main image is: image, expected or labelled."""
        return _main(self.stages)

    @cached_property
    def hash(self) -> str:
        """Parameter hash: decides every output byte."""
        return hashlib.blake2b(json.dumps(self._decisive(), sort_keys=True).encode(), digest_size=16).hexdigest()

    def _decisive(self) -> dict[str, Any]:
        spec = self.simulation.to_mapping()
        spec.pop("execution", None)
        if not isinstance(self.simulation.source, Phantom):
            # Not where the source stands but what it holds decides, so that a project can be moved.
            source = {k: v for k, v in spec["source"].items() if k != "path"}
            spec["source"] = {**source, "regions": list(self.simulation.source.regions)}
        return {
            "spec": spec,
            "identity": self.identity,
            "origin_nm": [str(v) for v in self.geometry.origin_nm],
            "until": self.until,
            "volume": self.geometry.volume,
            "voxel_nm": [str(v) for v in self.geometry.voxel_nm],
            "ids": self.id_dtype,
            "block": self.block,
            "tile": self.tile,
            "device": self.world.device,
            "versions": dict(self.versions),
        }

    @cached_property
    def nodes(self) -> int:
        """Nodes of the simulation grid that all tiles transform, halos included."""
        optics = self.world.optics
        assert optics is not None
        total = 0
        for shape, count in _tile_shapes(self.blocks, self.tile).items():
            grid = optics.lateral(shape)
            planes = shape[0] * optics.subdivision[0] + 2 * optics.reach
            total += count * planes * grid.nodes[0] * grid.nodes[1]
        return total * len(optics.dyes())

    @property
    def core_seconds(self) -> float:
        """Rough estimate of the work, core-seconds of a machine of 2024."""
        pixels = math.prod(self.shape) * len(self.outputs[0].channels)
        voxels = self.geometry.crop.size * 2.0
        return self.nodes * SECONDS_PER_NODE + pixels * SECONDS_PER_PIXEL + voxels * SECONDS_PER_VOXEL

    @property
    def stored_bytes(self) -> int:
        """Bytes of all arrays before compression."""
        pixels = sum(math.prod(level.shape) for level in self.levels)
        return sum(pixels * max(1, len(o.channels)) * np.dtype(o.dtype).itemsize for o in self.outputs)

    def boxes(self, pixels: Box) -> dict[str, NmBox]:
        """Box of every quantity that a tile needs, walked back through the stages; see `Stage.needs`."""
        return walk_back(self.stages, self.world, pixels)

    def warn(self) -> None:
        """Issue the warnings that are known before the run."""
        optics = self.world.optics
        assert optics is not None
        for pair in optics.pairs:
            if pair.left_out > LEFT_OUT_LIMIT:
                warnings.warn(
                    f"axial_range_um {optics.range_nm / 1000:.3g} leaves out {pair.left_out:.0%} of the light of a uniformly "
                    f"stained stack ({pair.dye} in {pair.channel}): haze will be too weak; give a larger axial_range_um",
                    SimexmWarning,
                    stacklevel=2,
                )

    def to_mapping(self) -> dict[str, Any]:
        """The plan as plain data, for programs and for `plan.json`."""
        optics = self.world.optics
        assert optics is not None
        grid = optics.lateral(self.tile)
        g = self.geometry
        return {
            "hash": self.hash,
            "until": self.until,
            "source": {
                "shape_voxels": list(g.volume),
                "crop_start": list(g.crop.start),
                "crop_stop": list(g.crop.stop),
                "voxel_size_nm": [float(v) for v in g.voxel_nm],
                "ids": self.id_dtype,
            },
            "image": {
                "channels": list(self.outputs[0].channels),
                "shape_pixels": list(g.shape),
                "pixel_size_expanded_nm": [float(p) for p in g.pixel_nm],
                "pixel_size_tissue_nm": [float(p) for p in g.pixel_tissue_nm],
                "expansion_factor": float(g.factor),
                "levels": [list(level.shape) for level in self.levels],
            },
            "optics": {
                "simulation_grid_expanded_nm": [float(v) for v in optics.node_nm],
                "nodes_per_pixel": list(optics.subdivision),
                "axial_range_um": optics.range_nm / 1000,
                "lateral_radius_um": optics.radius_nm / 1000,
                "halo_pixels": [math.ceil(optics.reach / optics.subdivision[0]), optics.halo, optics.halo],
                "transform": list(grid.nodes),
                "pairs": [
                    {
                        "channel": p.channel,
                        "dye": p.dye,
                        "emission_nm": round(p.emission_nm, 3),
                        "electrons_per_dye_in_focus": p.in_focus,
                        "photons_per_dye_in_stack": p.emitted_in_stack,
                        "left_out_share": p.left_out,
                        "fwhm_axial_nm": p.fwhm_nm[0],
                        "fwhm_lateral_nm": p.fwhm_nm[1],
                    }
                    for p in optics.pairs
                ],
            },
            "blocks": {
                "count": len(self.blocks),
                "block_pixels": list(self.block),
                "tile_pixels": list(self.tile),
                "files": len(self.blocks)
                * sum(max(1, len(o.channels)) for o in self.outputs)
                * sum(s.owned for s in self.storage),
            },
            "outputs": [{"path": o.path or ".", "channels": list(o.channels), "dtype": o.dtype} for o in self.outputs],
            "bytes_uncompressed": self.stored_bytes,
            "memory_per_worker_bytes": self.memory.total,
            "memory_parts_bytes": dict(vars(self.memory)),
            "core_seconds": round(self.core_seconds, 1),
            "versions": dict(self.versions),
        }


def walk_back(stages: Sequence[Stage], world: World, pixels: Box) -> dict[str, NmBox]:
    """Box of every quantity, nm from the specimen's corner, that is needed to make `pixels` of all that is stored.

    The tile's own voxels (counted, and whose emitters are kept) are wanted, too.
    """
    g = world.geometry
    image = g.pixels_nm(pixels)
    own = g.own_voxels(pixels)
    tissue = NmBox(
        *(
            _spacing((c - o) * v for c, o, v in zip(corner, g.crop.start, g.voxel_nm, strict=True))
            for corner in (own.start, own.stop)
        )
    )
    tissue = tissue.hull(image.scaled(1 / g.factor))
    wanted: dict[str, NmBox] = {"labels": tissue, "emitters": tissue}
    last = {q.name for s in stages for q in s.writes} - {q.name for s in stages for q in s.reads}
    for name in last - {"labels", "emitters"}:
        wanted[name] = image
    for stage in reversed(stages):
        for q in stage.writes:
            if q.name in wanted:
                for name, box in stage.needs(wanted[q.name], world).items():
                    wanted[name] = box.hull(wanted[name]) if name in wanted else box
    return wanted


def make_plan(simulation: Simulation, *, until: str | None = None, source: LabelSource | None = None) -> Plan:
    """Work out what a run would do.

    Raises
    ------
    SpecError, SourceError
        If it cannot be done, or would not fit into memory.
    """
    resolved = simulation.resolved()
    opened = source if source is not None else resolved.source.open()
    stages = _stages_until(resolved, until)
    factor = resolved.expansion.exact_factor if resolved.expansion else Fraction(1)
    crop = resolved.crop_box(opened.shape)
    geometry = Geometry(opened.shape, crop, opened.voxel_size_nm, opened.origin_nm, factor, resolved.optics.spacing_nm)
    if source is None:
        _refuse_empty(opened, crop)
    for layer in resolved.labelling.layers:
        if layer.region not in ("membrane", "cytosol", *opened.region_names):
            raise SpecError(f"layer {layer.name!r} labels the region {layer.region!r}, of which the source has no mask")
    bits = {"membrane": MEMBRANE, "cytosol": CYTOSOL}
    labelled = {layer.region for layer in resolved.labelling.layers}
    bits |= {name: 4 << i for i, name in enumerate(n for n in opened.region_names if n in labelled)}
    dyes = {d.name: d for d in resolved.fluorophores().values()}
    depth = float(crop.shape[0] * geometry.voxel_nm[0] * factor)
    world = World(
        seed=resolved.seed,
        geometry=geometry,
        region_bits=bits,
        dye_of_layer={layer.name: layer.dye for layer in resolved.labelling.layers},
        optics=resolved.optics.resolve(dyes, depth),
        device=_device(resolved.execution.device),
    )
    levels = plan_levels(geometry.shape, geometry.pixel_tissue_nm)
    id_dtype = np.dtype(opened.dtype).name
    limit = int(resolved.execution.memory_GiB * GiB)

    def predict(tile: Triple, block: Triple) -> TileMemory:
        return _predict(stages, world, resolved, id_dtype, tile, block)

    block = choose_block(geometry.shape, _cost(world), lambda b: predict(_clip(b, geometry.shape), b).total <= limit)
    asked = resolved.execution.tile
    tile = _clip(asked or block, _clip((LARGEST,) * 3, geometry.shape))
    fitting = _fitting(tile, lambda t: predict(t, block).total <= limit)
    if fitting is None or (asked is not None and fitting != tile):
        needed = predict(tile, block).total / GiB
        remedy = (
            f"give --tile {' '.join(map(str, fitting))}, or"
            if fitting
            else "no tile is small enough; use fewer channels, or"
        )
        raise SpecError(
            f"a tile of {' x '.join(map(str, tile))} pixels needs {needed:.2f} GiB in each worker, but execution.memory_GiB is "
            f"{resolved.execution.memory_GiB:g}: workers would be killed; {remedy} raise memory_GiB"
        )
    tile = _clip(fitting, block)
    return Plan(
        simulation=resolved,
        until=str(type(stages[-1]).model_fields["stage"].default) if until is None else until,
        stages=stages,
        world=world,
        id_dtype=id_dtype,
        identity=opened.identity,
        block=block,
        tile=tile,
        levels=levels,
        storage=plan_storage(levels, block, CHUNK),
        outputs=_outputs(resolved, stages, id_dtype),
        memory=predict(tile, block),
        versions=_versions(),
    )


@cache
def _versions() -> Mapping[str, str]:
    """Of the program and of the libraries whose arithmetic decides bytes."""
    return {name: importlib.metadata.version(name) for name in ("simexm", "numpy", "scipy", "numba")}


def _stages_until(simulation: Simulation, until: str | None) -> tuple[Stage, ...]:
    """The stages up to and with `until`; the truth is always made."""
    tags = [str(type(s).model_fields["stage"].default) for s in simulation.stages]
    if until is None:
        return tuple(simulation.stages)
    possible = [t for t, s in zip(tags, simulation.stages, strict=True) if _main_quantity(s)]
    if until not in possible:
        raise SpecError(
            f"--until {until}: nothing on the image's grid is stored after that stage; one of {', '.join(possible)}"
        )
    kept = list(simulation.stages[: tags.index(until) + 1])
    if not any(isinstance(s, Truth) for s in kept):
        kept.append(simulation.truth)
    return tuple(kept)


def _main_quantity(stage: Stage) -> str | None:
    names = {q.name for q in stage.writes}
    if names & {"emitters", "expanded"}:
        return "labelled"
    return next(iter(names & {"image", "expected"}), None)


def _main(stages: Sequence[Stage]) -> str:
    return next(m for m in (_main_quantity(s) for s in reversed(stages)) if m)


def _outputs(simulation: Simulation, stages: Sequence[Stage], id_dtype: str) -> tuple[Output, ...]:
    channels = tuple(c.name for c in simulation.optics.all_channels)
    layers = tuple(layer.name for layer in simulation.labelling.layers)
    main = _main(stages)
    axis = {"image": channels, "expected": channels, "labelled": layers}
    outputs = [Output("", axis[main], MAIN[main])]
    for name in ("expected", "labelled"):
        written = name == "labelled" or any(name in {q.name for q in s.writes} for s in stages)
        if name in simulation.keep and name != main and written:
            outputs.append(Output(name, axis[name], MAIN[name]))
    return (*outputs, *(Output(f"labels/{n}", (), id_dtype) for n in ("cells", *layers)))


def _device(wanted: str) -> str:
    if wanted == "gpu":
        warnings.warn(
            "execution.device is gpu, but this version computes on the CPU only: the run will be slower; set it to auto",
            SimexmWarning,
            stacklevel=3,
        )
    return "cpu"


def _cost(world: World) -> Any:
    optics = world.optics
    assert optics is not None

    def cost(axis: int, pixels: int) -> float:
        if axis == 0:
            return pixels * optics.subdivision[0] + 2 * optics.reach
        return imaging.fast_pixels(pixels + 2 * optics.halo, optics.subdivision[1])

    return cost


def _predict(
    stages: Sequence[Stage], world: World, simulation: Simulation, id_dtype: str, tile: Triple, block: Triple
) -> TileMemory:
    optics, g = world.optics, world.geometry
    assert optics is not None
    middle = _triple(max(0, (n - t) // 2) for n, t in zip(g.shape, tile, strict=True))
    boxes = walk_back(stages, world, Box.at(middle, tile))
    grid = optics.lateral(tile)
    layers = simulation.labelling.layers
    widest = max(layer.sigma_nm(float(g.factor)) for layer in layers) * emit.CUT_SIGMA
    chunk_nm = (float(g.voxel_nm[0]) + 2 * widest) * float(g.factor)
    channels = len(simulation.optics.all_channels)
    kept = 4 * channels * ("expected" in simulation.keep) + 12 * len(layers) * ("labelled" in simulation.keep)
    planes = optics.node_planes(Box.of_shape(tile))
    return tile_memory(
        voxels=g.voxels(boxes["labels"])
        .grown((1, 1, 1))
        .intersect(Box.of_shape(g.volume)),  # wherever tiles begin in voxels
        id_bytes=np.dtype(id_dtype).itemsize,
        masks=len(world.masks),
        tile=tile,
        block=_clip(block, g.shape),
        channels=channels,
        label_images=1 + len(layers),
        kept_bytes=kept,
        chunk_bytes=emit.CAPACITY * emit.EMITTER_BYTES + EMITTER_FILE * ("emitters" in simulation.keep),
        nodes=grid.nodes,
        band=grid.band,
        pixels=grid.pixels,
        node_planes=planes[1] - planes[0],
        ring_planes=ring_depth(optics, chunk_nm),
        offsets=optics.reach + 1,
        pairs=len(optics.pairs),
    )


def _fitting(tile: Triple, fits: Any) -> Triple | None:
    """The largest tile made by halving the longest side of `tile` that fits."""
    while not fits(tile):
        longest = max(range(3), key=lambda a: (tile[a], a))
        if tile[longest] <= 8:
            return None
        tile = _triple(-(-n // 2) if a == longest else n for a, n in enumerate(tile))
    return tile


def _clip(a: Triple, b: Triple) -> Triple:
    return _triple(min(m, n) for m, n in zip(a, b, strict=True))


def _tile_shapes(blocks: Tiling, tile: Triple) -> dict[Triple, int]:
    """Shapes of all tiles and how many there are of each; from the few shapes along each axis."""
    axes = []
    for n, b, t in zip(blocks.box.shape, blocks.cell, tile, strict=True):
        found: dict[int, int] = {}
        full, rest = divmod(n, b)
        for block, count in ((b, full), (rest, 1)):
            for size, times in ((t, block // t), (block % t, 1)):
                if size and times and count:
                    found[size] = found.get(size, 0) + times * count
        axes.append(found)
    return {
        (z, y, x): cz * cy * cx for z, cz in axes[0].items() for y, cy in axes[1].items() for x, cx in axes[2].items()
    }


def _refuse_empty(source: LabelSource, crop: Box) -> None:
    """Refuse a source without a cell, looking at most at a few thousand chunks: normally the first has one.

    Of a volume of more chunks the finest level that has no more is looked at; without one, nothing is refused.
    """
    for level in (source, *source.coarser):
        start = _triple(a * n // m for a, n, m in zip(crop.start, level.shape, source.shape, strict=True))
        stop = _triple(-(-b * n // m) for b, n, m in zip(crop.stop, level.shape, source.shape, strict=True))
        box = Box(start, stop)
        cells = Tiling(box, _triple(min(64, n) for n in box.shape))
        if len(cells) <= _SCAN_CHUNKS:
            if any(level.read(cells[i]).any() for i in range(len(cells))):
                return
            seen = (
                ""
                if level is source
                else f" as far as its copy downsampled to {' x '.join(map(str, level.shape))} shows"
            )
            raise SourceError(
                f"every label in the crop is 0{seen}, so there is no cell to label and the image would be noise alone; "
                "check the source's path, dataset and crop"
                + (", or crop more closely around the cells" if seen else "")
            )


def _spacing(values: Any) -> tuple[Fraction, Fraction, Fraction]:
    z, y, x = (Fraction(v) for v in values)
    return z, y, x


def _triple(values: Any) -> Triple:
    z, y, x = values
    return z, y, x
