"""Phantom: neuropil computed on the fly, a source of labels without files.

Nothing is stored: a voxel's id is a function of the seed and of the voxel's position.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from simexm.errors import SourceError
from simexm.geometry.grid import Box, Spacing, Tiling, Triple, exact3
from simexm.kernels.neuropil.blocks import fill
from simexm.kernels.neuropil.tubes import LARGEST_NM
from simexm.random import derive_key
from simexm.sources import fields
from simexm.sources.base import VoxelSizeNm
from simexm.sources.state import FilesState
from simexm.store.shard_list import ShardList

_PIECE_NM = 12000.0
_CACHED_BYTES = 48 * 2**20

FIELDS: Mapping[str, fields.Field] = {"synapse": fields.Field("synapse", "mask", "bool")}

Voxels = Annotated[int, Field(ge=1, le=10**6)]


class Phantom(BaseModel):
    """Procedural neuropil: dendrites with spines, axons, astrocytes, cell bodies and the gaps between them.

    Attributes
    ----------
    shape
        Voxels along z, y, x.
    voxel_size_nm
        Voxel size along z, y, x, nm of tissue before expansion. The tissue does not depend on it: smaller voxels sample the
        same processes more finely.
    seed
        Seed of the tissue, independent of the simulation's seed: a phantom stays the same under another labelling.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["phantom"] = "phantom"
    shape: tuple[Voxels, Voxels, Voxels]
    voxel_size_nm: VoxelSizeNm = (40.0, 32.0, 32.0)
    seed: int = 1

    @model_validator(mode="after")
    def _fits_ids(self) -> Phantom:
        for axis, n, size in zip("zyx", self.shape, self.voxel_size_nm, strict=True):
            if n * size > LARGEST_NM:
                raise ValueError(
                    f"the phantom is {n * size / 1e9:.3g} m long along {axis}; beyond {LARGEST_NM / 1e9:g} m its ids would "
                    f"no longer be unique: set shape * voxel_size_nm to at most {LARGEST_NM:.3g} nm"
                )
        return self

    def offered(self) -> Mapping[str, fields.Field]:
        """Return its fields, which are the same for all phantoms."""
        return FIELDS

    def open(self) -> PhantomVolume:
        """Open it for reading."""
        return PhantomVolume(self.shape, exact3(self.voxel_size_nm), self.seed)


def _nothing() -> list[tuple[Box, NDArray[np.bool_]]]:
    return [(Box.of_shape((0, 0, 0)), np.zeros((0, 0, 0), np.bool_))]


@dataclass(frozen=True, slots=True)
class PhantomVolume:
    """A phantom that is read box by box; ids need up to 62 bits."""

    shape: Triple
    voxel_size_nm: Spacing
    seed: int
    # the last box and its synapses, as a region is mostly read after the ids of its box
    _last: list[tuple[Box, NDArray[np.bool_]]] = field(default_factory=_nothing, init=False, repr=False, compare=False)

    @property
    def times(self) -> int:
        """One: the tissue does not move."""
        return 1

    @property
    def seconds_per_time(self) -> None:
        """None, as there is one time point."""

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.uint64)

    @property
    def origin_nm(self) -> Spacing:
        return Fraction(0), Fraction(0), Fraction(0)

    @property
    def fields(self) -> Mapping[str, fields.Field]:
        return FIELDS

    @property
    def coarser(self) -> tuple[()]:
        return ()

    @property
    def identity(self) -> str:
        """The seed and the grid, which decide every id."""
        return f"phantom {self.shape} {[str(size) for size in self.voxel_size_nm]} {self.seed}"

    def state(self, box: Box, masks: Sequence[str]) -> dict[str, FilesState]:
        """No files."""
        return {}

    def expecting(self, listed: Mapping[str, ShardList]) -> PhantomVolume:
        """Return itself."""
        return self

    def read(self, box: Box, time: int = 0) -> NDArray[np.uint64]:
        """Return the ids in a box inside the volume, (z, y, x); 0 is extracellular space."""
        self._check(box)
        return self._fill(box)[0]

    def read_field(self, name: str, box: Box, time: int = 0) -> NDArray[np.bool_]:
        """Return the mask of a region in a box inside the volume, (z, y, x).

        "synapse" is both sides of a patch, 300 to 500 nm across, where the head of a spine meets another neuron, up to
        about 60 nm deep. There is about one patch in two cubic micrometres.

        Raises SourceError if the name is unknown or the box leaves the volume.
        """
        if name not in self.fields:
            raise SourceError(f"a phantom has no region {name!r}, so nothing could be labelled there: use 'synapse'")
        self._check(box)
        last, synapse = self._last[0]
        return synapse.copy() if last == box else self._fill(box)[1]

    def reading_bytes(self, shape: Triple, regions: Sequence[str]) -> int:
        """Nothing: pieces are small."""
        return 0

    def _fill(self, box: Box) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
        """Compute ids and synapses of a box, in pieces that bound the memory."""
        ids, synapse = np.empty(box.shape, np.uint64), np.empty(box.shape, np.bool_)
        voxel_nm = np.array([float(size) for size in self.voxel_size_nm])
        pieces = np.ceil(np.array(box.shape) * voxel_nm / _PIECE_NM)
        z, y, x = np.maximum(1, np.ceil(box.shape / np.maximum(1, pieces))).astype(int).tolist()
        key = derive_key(self.seed, "phantom")
        for piece in Tiling(box, (z, y, x)):
            if piece == box:
                fill(ids, synapse, np.array(box.start), voxel_nm, *key)
                continue
            # New arrays: slices of larger ones would have `fill` compiled a second time.
            part, marks = np.empty(piece.shape, np.uint64), np.empty(piece.shape, np.bool_)
            fill(part, marks, np.array(piece.start), voxel_nm, *key)
            at = piece.relative_to(box.start).slices
            ids[at], synapse[at] = part, marks
        if synapse.nbytes <= _CACHED_BYTES:
            self._last[0] = box, synapse.copy()
        return ids, synapse

    def _check(self, box: Box) -> None:
        if not Box.of_shape(self.shape).contains(box):
            raise SourceError(
                f"the box {box.start} to {box.stop} leaves the phantom of shape {self.shape}: ask for a box inside it"
            )
