"""Phantom: neuropil computed on the fly, a source of labels without files.

Nothing is stored: a voxel's id is a function of the seed and of the voxel's position, and so are all its other fields. These
are computed only where they are asked for, and never change the ids.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from simexm.errors import SourceError
from simexm.geometry.grid import Box, Spacing, Tiling, Triple, exact3
from simexm.kernels.neuropil.annotate import annotate, synapses_in
from simexm.kernels.neuropil.blocks import fill
from simexm.kernels.neuropil.organelles import (
    AXON_SHAFT,
    BOUTON,
    DENDRITE,
    DENSITY,
    EXCITATORY,
    GLIA,
    INHIBITORY,
    MITOCHONDRION,
    MYELIN,
    NUCLEUS_OF_SOMA,
    SOMA,
    SPINE_HEAD,
    SPINE_NECK,
    VESICLES,
    types_of,
)
from simexm.kernels.neuropil.tubes import LARGEST_NM
from simexm.random import Key, derive_key
from simexm.sources import fields
from simexm.sources.base import VoxelSizeNm
from simexm.sources.made import MadeVolume

_PIECE_NM = 12000.0
_CACHED_BYTES = 48 * 2**20
_NOTED_BYTES = 8 + 1 + 2 * 12 + 1
"""Bytes per voxel of the ids, the fields of a box and of a piece, and what is returned of them."""

_COMPARTMENTS = {
    SOMA: "soma", NUCLEUS_OF_SOMA: "nucleus", DENDRITE: "dendrite", SPINE_NECK: "spine_neck", SPINE_HEAD: "spine_head",
    AXON_SHAFT: "axon", BOUTON: "bouton",
}  # fmt: skip
_TYPES = {EXCITATORY: "excitatory", INHIBITORY: "inhibitory", GLIA: "glia"}
_ORGANELLES = {"mitochondria": MITOCHONDRION, "vesicles": VESICLES, "synaptic_density": DENSITY, "myelin": MYELIN}

FIELDS: Mapping[str, fields.Field] = fields.with_classes(
    {
        "synapse": fields.Field("synapse", "mask", "bool"),
        **{name: fields.Field(name, "mask", "bool") for name in _ORGANELLES},
        "compartment": fields.Field("compartment", "classes", "uint8", _COMPARTMENTS),
        "cell_type": fields.Field("cell_type", "classes", "uint8", _TYPES),
        "synapse_id": fields.Field("synapse_id", "ids", "uint64"),
        "em": fields.Field("em", "grey", "uint8"),
    }
)
"""What a phantom offers beside its ids, the named classes as masks too."""

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


def _no_notes() -> list[tuple[Box, dict[str, NDArray[Any]]]]:
    return [(Box.of_shape((0, 0, 0)), {})]


@dataclass(frozen=True, slots=True)
class PhantomVolume(MadeVolume):
    """A phantom that is read box by box; ids need up to 62 bits."""

    shape: Triple
    voxel_size_nm: Spacing
    seed: int
    # the last box and its synapses, as a region is mostly read after the ids of its box
    _last: list[tuple[Box, NDArray[np.bool_]]] = field(default_factory=_nothing, init=False, repr=False, compare=False)
    # the last box of which other fields were read, as several are mostly read together
    _noted: list[tuple[Box, dict[str, NDArray[Any]]]] = field(
        default_factory=_no_notes, init=False, repr=False, compare=False
    )

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.uint64)

    @property
    def fields(self) -> Mapping[str, fields.Field]:
        return FIELDS

    @property
    def identity(self) -> str:
        """The seed and the grid, which decide every id."""
        return f"phantom {self.shape} {[str(size) for size in self.voxel_size_nm]} {self.seed}"

    def read(self, box: Box, time: int = 0) -> NDArray[np.uint64]:
        """Return the ids in a box inside the volume, (z, y, x); 0 is extracellular space."""
        self._check(box)
        return self._fill(box)[0]

    def read_field(self, name: str, box: Box, time: int = 0) -> NDArray[Any]:
        """Return the values of a field in a box inside the volume, (z, y, x).

        "synapse" is both sides of a patch, 300 to 500 nm across, where the head of a spine meets another neuron, up to
        about 60 nm deep. There is about one patch in two cubic micrometres. "synapse_id" numbers these patches; see
        `synapses`. "mitochondria", "vesicles" (clouds behind synapses), "synaptic_density" (of the postsynaptic side) and
        "myelin" (inside an axon's own voxels) are masks, "compartment" and "cell_type" classes, whose names are masks, too,
        and "em" is a grey value, dark where an electron micrograph is.

        Raises SourceError if the name is unknown or the box leaves the volume.
        """
        if name not in self.fields:
            known = ", ".join(self.fields)
            raise SourceError(f"a phantom has no region {name!r}, so nothing could be labelled there; it has {known}")
        self._check(box)
        if name == "synapse":
            last, synapse = self._last[0]
            return synapse.copy() if last == box else self._fill(box)[1]
        last, notes = self._noted[0]
        found = notes if last == box else self._note(box)
        if name in _ORGANELLES:
            return np.asarray(found["organelles"] & _ORGANELLES[name] != 0)
        origin, number = fields.class_of(name, self.fields) or (name, None)
        return found[origin].copy() if number is None else np.asarray(found[origin] == number)

    def synapses(self, box: Box | None = None) -> dict[str, NDArray[Any]]:
        """List the synapses whose centre lies in a box; by default in the volume.

        The presynaptic side is the neuron that the head of a spine touches: an axon in two of three, or another dendrite.

        Returns
        -------
        dict
            Columns of equal length: `id` as in the field "synapse_id"; `pre`, `post`, ids of the two neurons (uint64);
            `z_nm`, `y_nm`, `x_nm`, the middle of the patch from the corner of the volume; `radius_nm`; `sign`, 1 where `pre`
            is excitatory and -1 where it is inhibitory.
        """
        box = Box.of_shape(self.shape) if box is None else box
        self._check(box)
        parts = [
            synapses_in(np.array(piece.start), np.array(piece.shape), self._voxel_nm, *self._key)
            for piece in Tiling(box, self._piece(box))
        ]
        ids, pairs, places = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        columns = {"id": ids, "pre": pairs[:, 1], "post": pairs[:, 0]}
        found: dict[str, NDArray[Any]] = {name: values.astype(np.uint64) for name, values in columns.items()}
        kinds = np.empty((1, 1, len(ids)), np.uint8)
        types_of(found["pre"].reshape(kinds.shape), kinds, *self._key)
        found["sign"] = np.where(kinds[0, 0] == INHIBITORY, -1, 1)
        return found | dict(zip(("z_nm", "y_nm", "x_nm", "radius_nm"), places.T.copy(), strict=True))

    def reading_bytes(self, shape: Triple, regions: Sequence[str]) -> int:
        """The ids and all other fields of the box, if one of them is read."""
        return _NOTED_BYTES * math.prod(shape) if set(regions) - {"synapse"} else 0

    @property
    def _voxel_nm(self) -> NDArray[np.float64]:
        return np.array([float(size) for size in self.voxel_size_nm])

    @property
    def _key(self) -> Key:
        return derive_key(self.seed, "phantom")

    def _piece(self, box: Box) -> Triple:
        """Shape of the pieces that a box is computed in, which bound the memory."""
        pieces = np.maximum(1, np.ceil(np.array(box.shape) * self._voxel_nm / _PIECE_NM))
        z, y, x = np.maximum(1, np.ceil(box.shape / pieces)).astype(int).tolist()
        return z, y, x

    def _note(self, box: Box) -> dict[str, NDArray[Any]]:
        """Compute all fields of a box but the synapses."""
        types = {
            "compartment": np.uint8,
            "organelles": np.uint8,
            "em": np.uint8,
            "synapse_id": np.int64,
            "cell_type": np.uint8,
        }
        found: dict[str, NDArray[Any]] = {name: np.empty(box.shape, dtype) for name, dtype in types.items()}
        for piece in Tiling(box, self._piece(box)):
            ids, synapse = np.empty(piece.shape, np.uint64), np.empty(piece.shape, np.bool_)
            fill(ids, synapse, np.array(piece.start), self._voxel_nm, *self._key)
            *out, kinds = (np.empty(piece.shape, dtype) for dtype in types.values())
            annotate(ids, synapse, np.array(piece.start), self._voxel_nm, tuple(out), *self._key)
            types_of(ids, kinds, *self._key)
            for values, part in zip(found.values(), (*out, kinds), strict=True):
                values[piece.relative_to(box.start).slices] = part
        found["synapse_id"] = found["synapse_id"].view(np.uint64)
        if sum(values.nbytes for values in found.values()) <= _CACHED_BYTES:
            self._noted[0] = box, found
        return found

    def _fill(self, box: Box) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
        """Compute ids and synapses of a box, in pieces that bound the memory."""
        ids, synapse = np.empty(box.shape, np.uint64), np.empty(box.shape, np.bool_)
        voxel_nm, key = self._voxel_nm, self._key
        for piece in Tiling(box, self._piece(box)):
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
