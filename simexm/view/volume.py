"""Present labels of any source as a Zarr whose chunks are computed on request, so that a browser can read them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
from numcodecs.zstd import Zstd  # type: ignore[import-untyped]

from simexm.geometry.grid import Box, Spacing, Triple, combine, three
from simexm.sources.base import LabelSource, Voxels
from simexm.sources.phantom import PhantomVolume
from simexm.sources.zarr import ngff
from simexm.sources.zarr.source import ZarrLabels
from simexm.sources.zarr.volume import Volume
from simexm.store.ngff import datasets
from simexm.store.pyramid import plan_levels
from simexm.store.shards import ZSTD_LEVEL
from simexm.view.run_record import spacing_um
from simexm.view.scene import LevelGeometry

CHUNK = 64
"""Voxels a side of a chunk: at most two megabytes."""
_WIDEST = 32 * CHUNK
_DEEPEST = 8
"""Largest factor of a phantom's level: it is computed from the tissue, so the time for a chunk grows with its cells."""
_zstd = Zstd(level=ZSTD_LEVEL)
_KEY = re.compile(r"(\d+)/c/(\d+)/(\d+)/(\d+)")


@dataclass(frozen=True)
class ServedVolume:
    """A label volume, read by the file names of a Zarr v3."""

    source: LabelSource
    levels: Sequence[Voxels] = field(init=False)  # the source and its coarser copies

    def __post_init__(self) -> None:
        object.__setattr__(self, "levels", (self.source, *_coarser(self.source)))

    @property
    def has_overview(self) -> bool:
        """Whether a view of the complete volume needs few chunks, not millions as without coarse levels."""
        return max(self.levels[-1].shape) <= _WIDEST

    @property
    def steps(self) -> list[LevelGeometry]:
        """Scale and corner of each level."""
        origin = spacing_um(self.source.origin_nm)
        scales = [combine(self.source.voxel_size_nm, _factors(self.source, v), lambda a, b: a * b) for v in self.levels]
        return [LevelGeometry(str(n), spacing_um(scale), origin) for n, scale in enumerate(scales)]

    def get(self, name: str) -> bytes | None:
        """Return the bytes of a file, None if there is none; raises SourceError if the source cannot be read."""
        level, _, file = name.partition("/")
        if file == "zarr.json" and level.isdigit() and int(level) < len(self.levels):
            return self._metadata(self.levels[int(level)].shape)
        found = _KEY.fullmatch(name)
        if not found:
            return None
        number, *cell = map(int, found.groups())
        if number >= len(self.levels):
            return None
        return self._chunk(self.levels[number], three(cell))

    def _metadata(self, shape: Triple) -> bytes:
        metadata = {
            "zarr_format": 3,
            "node_type": "array",
            "shape": list(shape),
            "data_type": np.dtype(self.source.dtype).name,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [CHUNK] * 3}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": 0,
            "codecs": [
                {"name": "bytes", "configuration": {"endian": "little"}},
                {"name": "zstd", "configuration": {"level": ZSTD_LEVEL, "checksum": False}},
            ],
            "dimension_names": ["z", "y", "x"],
            "attributes": {},
        }
        return json.dumps(metadata).encode()

    def _chunk(self, level: Voxels, cell: Triple) -> bytes | None:
        z, y, x = (c * CHUNK for c in cell)
        box = Box.at((z, y, x), (CHUNK,) * 3).intersect(Box.of_shape(level.shape))
        if box.is_empty:
            return None
        dtype: Any = np.dtype(self.source.dtype).newbyteorder("<")
        data = np.zeros((CHUNK,) * 3, dtype)
        data[box.relative_to((z, y, x)).slices] = level.read(box)
        return bytes(_zstd.encode(data))


def _factors(source: LabelSource, level: Voxels) -> Spacing:
    """Return the size of a level's voxels over that of the source's."""
    if isinstance(level, PhantomVolume):
        return combine(level.voxel_size_nm, source.voxel_size_nm, lambda a, b: a / b)
    if isinstance(source, ZarrLabels) and isinstance(level, Volume):
        fine, coarse = (_stored_size(v) for v in (source.labels, level))
        if fine and coarse:  # from the metadata, even if the user gave the voxels another size
            return combine(fine, coarse, lambda a, b: b / a)
    return combine(source.shape, level.shape, lambda a, b: Fraction(max(1, round(a / b))))


def _stored_size(volume: Volume) -> Spacing | None:
    if volume.group is None:
        return None
    name = volume.array.path.removeprefix(f"{volume.group.path}/")
    attributes = dict(volume.group.attrs)
    if name not in datasets(attributes):
        return None
    return ngff.multiscale_geometry(volume.where, attributes, name, volume.array.shape).voxel_size_nm


def _coarser(source: LabelSource) -> Sequence[Voxels]:
    if not isinstance(source, PhantomVolume):
        return tuple(source.coarser)
    levels = plan_levels(source.shape, source.voxel_size_nm)[1:]
    return tuple(
        PhantomVolume(level.shape, level.spacing, source.seed) for level in levels if max(level.factors) <= _DEEPEST
    )
