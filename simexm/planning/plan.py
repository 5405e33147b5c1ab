"""What a run will do, worked out before anything runs: grids, boxes, blocks, tiles, memory, and the hash of it all."""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from simexm.errors import SimexmWarning
from simexm.geometry.grid import Box, Geometry, NmBox, Tiling, Triple, exact
from simexm.planning.memory import TileMemory
from simexm.sources.phantom import Phantom
from simexm.stages.contract import Stage, World
from simexm.stages.roles import Imaging, Labeller
from simexm.stages.sample.barcodes import Barcodes
from simexm.store.pyramid import Level, Storage
from simexm.version import FORMAT_VERSION

if TYPE_CHECKING:
    from simexm.spec.simulation import Spec

GiB = 1 << 30

SECONDS_PER_VOXEL = 25e-9


@dataclass(frozen=True)
class Output:
    """One multiscale array that a run writes.

    Attributes
    ----------
    path
        Group below the image's; "" is the image itself.
    channels
        Names along the channel axis; empty for labels, which have none.
    dtype
        Name of the data type.
    layer, region
        Of label images: the layer whose cells they hold (`cells` for all), and the region to which they are cut, if any.
    round
        The round that it belongs to, from 1 on; 0 where there are none.
    """

    path: str
    channels: tuple[str, ...]
    dtype: str
    layer: str = ""
    region: str = ""
    round: int = 0

    @property
    def group(self) -> str:
        """Group below the result's root; "" is the root itself."""
        return f"{round_group(self.round)}/{self.path}".strip("/") if self.round else self.path

    @property
    def is_labels(self) -> bool:
        """Labels take the mode when they shrink, images the mean."""
        return not self.channels


def round_group(number: int) -> str:
    """Group of a round's image; "" for 0, where there are no rounds."""
    return f"round_{number:02d}" if number else ""


@dataclass(frozen=True, repr=False)
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
    part
        Voxels of which labels are held at once, z y x.
    levels, storage
        The pyramid and how each level is stored (z y x).
    outputs
        What is written, the main image first.
    memory
        Predicted peak of a worker.
    versions
        Of the program and the libraries that decide bytes.
    """

    simulation: Spec
    until: str
    stages: tuple[Stage, ...]
    world: World
    id_dtype: str
    identity: str
    block: Triple
    tile: Triple
    part: Triple
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
    def barcodes(self) -> Barcodes | None:
        """The stage that makes rounds, if it runs."""
        return next((s for s in self.stages if isinstance(s, Barcodes)), None)

    @property
    def rounds(self) -> tuple[int, ...]:
        """The rounds of imaging, 1, 2, ...; 0 alone where there are none."""
        return tuple(range(1, self.world.rounds + 1)) or (0,)

    @property
    def labelled_names(self) -> tuple[str, ...]:
        """What dyes per pixel are counted of: the layers, and the amplicons of each letter."""
        return (*self.world.dye_of_layer, *(self.barcodes.layer_of_dye.values() if self.barcodes else ()))

    @property
    def main(self) -> str:
        """Which quantity the main image is: image, expected or labelled."""
        return main_of(self.stages)

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
            fields = {name: {**each, "path": ""} for name, each in spec["source"].get("fields", {}).items()}
            spec["source"] = {**source, "regions": list(self.simulation.source.regions), "fields": fields}
        spec["stages"] = [{k: v for k, v in stage.items() if k != "codebook"} for stage in spec["stages"]]
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
            **({"part": self.part} if "emitters" in self.simulation.keep else {}),  # they are kept in its order
            "device": self.world.device,
            "versions": dict(self.versions),
        }

    @property
    def imaging(self) -> Imaging:
        """What the microscope was resolved to."""
        assert self.world.optics is not None
        return self.world.optics

    @cached_property
    def core_seconds(self) -> float:
        """Rough estimate of the work, core-seconds of a machine of 2024."""
        pixels = math.prod(self.shape) * len(self.outputs[0].channels) * len(self.rounds)
        tiles = _tile_shapes(self.blocks, self.tile)
        voxels = sum(n * voxels_read(self.stages, self.world, shape).size for shape, n in tiles.items())
        imaging = self.imaging.core_seconds(tiles) * imaging_repeats(self.imaging, self.barcodes)
        return imaging + pixels * self.imaging.seconds_per_pixel + voxels * SECONDS_PER_VOXEL

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
        for text in self.imaging.warnings():
            warnings.warn(text, SimexmWarning, stacklevel=2)

    def to_mapping(self) -> dict[str, Any]:
        """The plan as plain data, for programs and for `plan.json`."""
        g = self.geometry
        return {
            "hash": self.hash,
            "format": FORMAT_VERSION,
            "until": self.until,
            "rounds": self.world.rounds,
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
                "shards": [list(storage.shard) for storage in self.storage],
            },
            "optics": self.imaging.describe(self.tile),
            "blocks": {
                "count": len(self.blocks),
                "levels": sum(s.owned for s in self.storage),
                "block_pixels": list(self.block),
                "tile_pixels": list(self.tile),
                "part_voxels": list(self.part),
                "files": len(self.blocks)
                * sum(max(1, len(o.channels)) for o in self.outputs)
                * sum(s.owned for s in self.storage),
            },
            "outputs": [{"path": o.group or ".", "channels": list(o.channels), "dtype": o.dtype} for o in self.outputs],
            "bytes_uncompressed": self.stored_bytes,
            "memory_per_worker_bytes": self.memory.total,
            "device": self.world.device,
            "memory_parts_bytes": self.memory.parts_bytes,
            "core_seconds": round(self.core_seconds, 1),
            "versions": dict(self.versions),
        }

    def __repr__(self) -> str:
        channels, shape = len(self.outputs[0].channels), " x ".join(map(str, self.shape))
        return f"Plan({self.simulation.name!r}: {channels} x {shape} (c, z, y, x), {len(self.blocks)} blocks, hash {self.hash})"

    shown: ClassVar[Callable[[Plan], str | None]] = lambda _: None
    """Makes the HTML that a notebook shows; `simexm.api` sets it, for pictures stand on a higher floor."""

    def _repr_html_(self) -> str:
        return type(self).shown(self) or repr(self)


def imaging_repeats(imaging: Imaging, barcodes: Barcodes | None) -> float:
    """How often the dyes are imaged on average: those of letters once a round, others once."""
    if barcodes is None:
        return 1.0
    seen = {p.dye for p in imaging.pairs}
    varying = len(seen & set(barcodes.dyes.values()))
    return (len(seen) + (barcodes.rounds - 1) * varying) / len(seen)


def walk_back(stages: Sequence[Stage], world: World, pixels: Box) -> dict[str, NmBox]:
    """Box of every quantity, nm from the specimen's corner, that is needed to make `pixels` of all that is stored.

    The tile's own voxels (counted, and whose emitters are kept) are wanted, too.
    """
    g = world.geometry
    image = g.pixels_nm(pixels)
    own = g.own_voxels(pixels)
    tissue = g.voxels_nm(own.relative_to(g.crop.start))
    tissue = tissue.hull(image.scaled(1 / g.factor))
    wanted: dict[str, NmBox] = {"labels": tissue, "emitters": tissue, "fluorophores": tissue}
    last = {q.name for s in stages for q in s.writes} - {q.name for s in stages for q in s.inputs}
    for name in last - set(wanted):
        wanted[name] = image
    for stage in reversed(stages):
        for q in stage.writes:
            if q.name in wanted:
                for name, box in stage.needs(wanted[q.name], world).items():
                    wanted[name] = box.hull(wanted[name]) if name in wanted else box
    return wanted


def voxels_read(stages: Sequence[Stage], world: World, tile: Triple) -> Box:
    """Voxels of the ground truth that a tile in the middle of the image reads, wherever in a voxel it begins."""
    g = world.geometry
    z, y, x = (max(0, (n - t) // 2) for n, t in zip(g.shape, tile, strict=True))
    labels = walk_back(stages, world, Box.at((z, y, x), tile))["labels"]
    return g.voxels(labels).grown((1, 1, 1)).intersect(Box.of_shape(g.volume))


def emitters_depth_nm(stages: Sequence[Stage], world: World, part: Triple, voxels: Triple, slab: int = 1) -> float:
    """How deep along z emitters that come together may lie, nm of expanded tissue.

    Parameters
    ----------
    stages, world
        Of the plan.
    part, voxels
        Voxels of which labels are held at once, and of the tile.
    slab
        Planes of voxels that are emitted at once where parts span the tile across the axis.
    """
    reach = max(
        0.0,
        *(s.reach_nm(world) for s in stages if isinstance(s, Labeller)),
        *(s.radius_nm(world) for s in stages if isinstance(s, Barcodes)),
    )
    planes = slab if part[1] >= voxels[1] and part[2] >= voxels[2] else part[0] + 1
    return float((planes * world.geometry.voxel_nm[0] + 2 * exact(reach)) * world.geometry.factor)


def main_quantity(stage: Stage) -> str | None:
    """What a stage leaves on the image's grid: image, expected, labelled, or None."""
    names = {q.name for q in stage.writes}
    if names & {"emitters", "expanded"}:
        return "labelled"
    return next(iter(names & {"image", "expected"}), None)


def main_of(stages: Sequence[Stage]) -> str:
    """The quantity of the main image: that of the last stage which leaves one."""
    return next(m for m in (main_quantity(s) for s in reversed(stages)) if m)


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
