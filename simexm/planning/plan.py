"""The plan of a run, made before anything runs: grids, boxes, blocks, tiles, memory, and the parameter hash."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from simexm.errors import SimexmWarning
from simexm.geometry.geometry import Geometry
from simexm.geometry.grid import Box, NmBox, Tiling, Triple, exact, exact3
from simexm.planning.frames import main_of, once_and_each, varying_dyes
from simexm.planning.memory import TileMemory
from simexm.planning.outputs import Output, Table, Volumes, tables_of
from simexm.sources.base import ZarrSource
from simexm.stages.contract import RunContext, Stage
from simexm.stages.frames import Acquisition, Frame
from simexm.stages.roles import ImageFormation, ImagingPlan
from simexm.store.pyramid import Level
from simexm.units import times
from simexm.version import FORMAT_VERSION

if TYPE_CHECKING:
    from simexm.spec.simulation import Spec


SECONDS_PER_VOXEL = 25e-9


@dataclass(frozen=True, repr=False)
class Plan:
    """A simulation with everything derived from it."""

    simulation: Spec  # with all defaults resolved
    until: str  # the last stage that runs
    stages: tuple[Stage, ...]  # those that run
    context: RunContext  # shared by all blocks
    id_dtype: str
    identity: str  # fingerprint of the source's content; see `LabelSource.identity`
    block: Triple  # pixels of a shard, z y x
    tile: Triple  # pixels that are computed at once
    part: Triple  # voxels of labels that are held at once
    volumes: Volumes
    memory: TileMemory  # predicted peak of a worker
    versions: Mapping[str, str]  # of the program and of the libraries that decide bytes

    @property
    def outputs(self) -> tuple[Output, ...]:
        """The images and label images to write, the main image first."""
        return self.volumes.outputs

    @property
    def levels(self) -> tuple[Level, ...]:
        """The pyramid of every output."""
        return self.volumes.levels

    @property
    def geometry(self) -> Geometry:
        """Transform of image and truth."""
        return self.context.geometry

    @property
    def device(self) -> str:
        """Device that computes blocks, `cpu` or `gpu`."""
        return self.context.device

    def smaller(self, nbytes: int) -> str:
        """Return what to type for tiles that a worker with so many bytes can compute."""
        from simexm.planning.planner import smaller_tile

        return smaller_tile(self, nbytes)

    @property
    def shape(self) -> Triple:
        """Planes, rows, columns of the image."""
        return self.geometry.shape

    @property
    def blocks(self) -> Tiling:
        return Tiling(Box.of_shape(self.shape), self.block)

    @cached_property
    def spans(self) -> int:
        """Number of spans of time with blocks of their own; 1 if a block computes all frames."""
        times = max(o.times for o in self.outputs)
        return -(-times // self.volumes.span) if self.volumes.span > 1 else 1

    @property
    def count(self) -> int:
        """Number of blocks: one for each span of time and box of pixels, the first span's before the second's."""
        return self.spans * len(self.blocks)

    def part_of(self, number: int) -> tuple[Box, list[Frame]]:
        """Return the pixels and the frames of a block."""
        span, place = divmod(number, len(self.blocks))
        n = self.volumes.span
        inside = self.frames if self.spans == 1 else [f for f in self.frames if (f.time - 1) // n == span]
        return self.blocks[place], inside

    @property
    def acquisition(self) -> Acquisition:
        return self.context.acquisition

    @cached_property
    def frames(self) -> list[Frame]:
        """All frames, in the order of computation."""
        return self.acquisition.frames()

    @cached_property
    def once_and_each(self) -> tuple[tuple[Stage, ...], tuple[Stage, ...]]:
        """Stages that run once for all frames, and stages that run for each."""
        return once_and_each(self.stages, self.acquisition)

    @cached_property
    def tables(self) -> tuple[Table, ...]:
        """The tables to store, in the order of their declaration."""
        return tables_of(self.stages, self.context, self.simulation.keep)

    @property
    def main(self) -> str:
        """Quantity of the main image: image, expected or labelled."""
        return main_of(self.stages)

    @cached_property
    def hash(self) -> str:
        """Parameter hash, which decides every output byte."""
        return hashlib.blake2b(json.dumps(self._decisive(), sort_keys=True).encode(), digest_size=16).hexdigest()

    def _decisive(self) -> dict[str, Any]:
        spec = self.simulation.to_mapping()
        spec.pop("execution", None)
        if isinstance(self.simulation.source, ZarrSource):
            # The content of the source decides, not its path, so that a project can be moved.
            source = {k: v for k, v in spec["source"].items() if k != "path"}
            fields = {name: {**each, "path": ""} for name, each in spec["source"].get("fields", {}).items()}
            spec["source"] = {**source, "regions": list(self.simulation.source.regions), "fields": fields}
        spec["stages"] = [_without_paths(stage) for stage in spec["stages"]]
        return {
            "spec": spec,
            "identity": self.identity,
            "origin_nm": [str(v) for v in self.geometry.origin_nm],
            "until": self.until,
            "volume": self.geometry.volume,
            "voxel_nm": [str(v) for v in self.geometry.voxel_nm],
            "ids": self.id_dtype,
            "block": self.block,
            **({"span": self.volumes.span} if self.volumes.span > 1 else {}),
            "tile": self.tile,
            **({"part": self.part} if "emitters" in self.simulation.keep else {}),  # it decides their order in the file
            "device": self.context.device,
            "versions": dict(self.versions),
        }

    @property
    def imaging(self) -> ImagingPlan:
        """The resolved microscope."""
        assert self.context.imaging is not None
        return self.context.imaging

    @cached_property
    def core_seconds(self) -> float:
        """Rough estimate of the work, core-seconds of a machine of 2024."""
        pixels = math.prod(self.shape) * len(self.outputs[0].channels) * len(self.frames)
        tiles = _tile_shapes(self.blocks, self.tile)
        voxels = sum(n * voxels_read(self.stages, self.context, shape).size for shape, n in tiles.items())
        cost = self.imaging.cost
        imaging = cost.core_seconds(tiles) * self.imaging_repeats
        return imaging + pixels * cost.seconds_per_pixel + voxels * SECONDS_PER_VOXEL

    @property
    def imaging_repeats(self) -> float:
        """Average number of times that a dye is imaged."""
        return imaging_repeats(self.imaging.formation, self.stages, self.acquisition, self.simulation.microscope)

    @property
    def stored_bytes(self) -> int:
        """Bytes of all arrays before compression."""
        return self.volumes.stored_bytes

    def boxes(self, pixels: Box, frame: Frame | None = None) -> dict[str, NmBox]:
        """Return the box of every quantity that a tile needs in a frame, by default the first; see `walk_back`."""
        return walk_back(self.stages, self.context.at(frame or self.frames[0]), pixels)

    def warn(self) -> None:
        """Issue the warnings that are known before the run."""
        for text in self.imaging.description.warnings():
            warnings.warn(text, SimexmWarning, stacklevel=2)

    def to_mapping(self) -> dict[str, Any]:
        """Convert to plain data, for programs and for `plan.json`."""
        g = self.geometry
        return {
            "hash": self.hash,
            "format": FORMAT_VERSION,
            "until": self.until,
            "acquisition": self.acquisition.to_mapping(),
            "source": {
                "shape_voxels": list(g.volume),
                "crop_start": list(g.crop.start),
                "crop_stop": list(g.crop.stop),
                "voxel_size_nm": [float(v) for v in g.voxel_nm],
                "origin_nm": [float(v) for v in g.origin_nm],
                "ids": self.id_dtype,
                "regions": list(self.context.masks),
                "greys": list(self.context.greys),
                "identity": self.identity,
            },
            "image": {
                "channels": list(self.outputs[0].channels),
                "shape_pixels": list(g.shape),
                "pixel_size_expanded_nm": [float(p) for p in g.pixel_nm],
                "pixel_size_tissue_nm": [float(p) for p in g.pixel_tissue_nm],
                "expansion_factor": float(g.transform.scale),
                **self.volumes.pyramid(),
            },
            "optics": self.imaging.description.describe(self.tile),
            "detector": detector.describe() if (detector := self.simulation.detector) else None,
            "blocks": {
                "count": self.count,
                **({"frames": self.volumes.span} if self.volumes.span > 1 else {}),
                "levels": self.volumes.owned,
                "block_pixels": list(self.block),
                "tile_pixels": list(self.tile),
                "part_voxels": list(self.part),
                "files": len(self.blocks)
                * sum(len(self.volumes.lead_shards(o)) for o in self.outputs)
                * self.volumes.owned,
            },
            "outputs": [o.to_mapping() for o in self.outputs],
            "tables": [t.product.name for t in self.tables],
            "bytes_uncompressed": self.stored_bytes,
            "memory_per_worker_bytes": self.memory.total,
            "device": self.context.device,
            "memory_parts_bytes": self.memory.parts_bytes,
            "core_seconds": round(self.core_seconds, 1),
            "versions": dict(self.versions),
        }

    def __repr__(self) -> str:
        channels, shape = len(self.outputs[0].channels), times(self.shape)
        return f"Plan({self.simulation.name!r}: {channels} x {shape} (c, z, y, x), {len(self.blocks)} blocks, hash {self.hash})"

    shown: ClassVar[Callable[[Plan], str | None]] = lambda _: None
    """Makes the HTML for a notebook; set by `simexm.api`, since this module may not import pictures."""

    def _repr_html_(self) -> str:
        return type(self).shown(self) or repr(self)


def _without_paths(stage: Mapping[str, Any]) -> dict[str, Any]:
    """A stage without the paths of its files, whose digests decide."""
    found = {key: value for key, value in stage.items() if key != "codebook"}
    for key, value in found.items():
        if isinstance(value, dict) and value.get("digest"):
            found[key] = {k: v for k, v in value.items() if k != "path"}
    return found


def imaging_repeats(imaging: ImageFormation, stages: Sequence[Stage], frames: Acquisition, microscope: Stage) -> float:
    """Return how often a dye is imaged on average: varying dyes in each frame, others once."""
    if not frames.axes:
        return 1.0
    seen = {p.dye for p in imaging.pairs}
    varying = len(varying_dyes(stages, frames, seen, microscope))
    return (len(seen) + (len(frames.frames()) - 1) * varying) / len(seen)


def walk_back(stages: Sequence[Stage], context: RunContext, pixels: Box) -> dict[str, NmBox]:
    """Return the box of every quantity, nm from the specimen's corner, that is needed to compute `pixels` of all outputs.

    Walks back through the stages; see `needed`. In the first frame it includes the tile's own voxels, whose cells are
    counted and whose emitters may be stored.
    """
    g = context.geometry
    image = g.pixels_nm(pixels)
    tissue = g.transform.bound_inverse(image)
    if context.is_first:
        tissue = tissue.hull(g.voxels_nm(g.own_voxels(pixels).relative_to(g.crop.start)))
    wanted: dict[str, NmBox] = {"labels": tissue, "emitters": tissue, "fluorophores": tissue}
    last = {q.name for s in stages for q in s.writes} - {q.name for s in stages for q in s.inputs}
    for name in last - set(wanted):
        wanted[name] = image
    return needed(stages, context, wanted)


def needed(stages: Sequence[Stage], context: RunContext, wanted: dict[str, NmBox]) -> dict[str, NmBox]:
    """Return `wanted`, boxes of quantities by name, and what the stages need to write them; see `Stage.needs`."""
    for stage in reversed(stages):
        for q in stage.writes:
            if q.name in wanted:
                for name, box in stage.needs(wanted[q.name], context).items():
                    wanted[name] = box.hull(wanted[name]) if name in wanted else box
    return wanted


def voxels_read(stages: Sequence[Stage], context: RunContext, tile: Triple) -> Box:
    """Return the voxels of the ground truth that a tile in the middle of the image reads, wherever in a voxel it begins.

    If expansion is not uniform, the most that a tile there or at the image's borders reads, in any frame.
    """
    boxes = []
    for one in context.roughly().distinct:
        g = one.geometry
        starts = [(max(0, (n - t) // 2), 0, max(0, n - t)) for n, t in zip(g.shape, tile, strict=True)]
        for z, y, x in itertools.islice(itertools.product(*starts), 1 if g.transform.is_uniform else None):
            labels = walk_back(stages, one, Box.at((z, y, x), tile))["labels"]
            boxes.append(g.voxels(labels).grown((1, 1, 1)).intersect(Box.of_shape(g.volume)))
    return max(boxes, key=lambda box: box.size)


def emitters_depth_nm(
    stages: Sequence[Stage], context: RunContext, part: Triple, voxels: Triple, slab: int = 1
) -> float:
    """Return the extent in z of a chunk of emitters, nm of expanded tissue.

    `part` and `voxels` are those of labels that are held at once, and of the tile. If parts span the tile in y and x, a
    chunk holds the emitters of `slab` planes of voxels.
    """
    reach = max((s.reach_nm(context) for s in stages), default=0.0)
    planes = slab if part[1] >= voxels[1] and part[2] >= voxels[2] else part[0] + 1
    g = context.geometry
    specimen = g.voxels_nm(Box.of_shape(g.crop.shape)).grown(exact3((exact(reach),) * 3))
    layer_nm = planes * g.voxel_nm[0] + 2 * exact(reach)
    return max(float(one.geometry.transform.depth(layer_nm, specimen)) for one in context.roughly().distinct)


def _tile_shapes(blocks: Tiling, tile: Triple) -> dict[Triple, int]:
    """Count the tiles of each shape, from the few lengths along each axis."""
    axes = []
    for n, b, t in zip(blocks.box.shape, blocks.cell, tile, strict=True):
        found: dict[int, int] = {}
        full, rest = divmod(n, b)
        for block, count in ((b, full), (rest, 1)):
            for size, repeats in ((t, block // t), (block % t, 1)):
                if size and repeats and count:
                    found[size] = found.get(size, 0) + repeats * count
        axes.append(found)
    return {
        (z, y, x): cz * cy * cx for z, cz in axes[0].items() for y, cy in axes[1].items() for x, cx in axes[2].items()
    }
