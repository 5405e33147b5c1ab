"""Labels of a result as its plan records them, so that it can be planned again without reading them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from simexm.errors import SourceError
from simexm.geometry.grid import Box, Spacing, Triple, exact3, triple
from simexm.sources.base import Voxels
from simexm.sources.fields import Field
from simexm.sources.state import FilesState
from simexm.store.shard_list import ShardList


@dataclass(frozen=True)
class RecordedLabels:
    """A `simexm.sources.base.LabelSource` with shape, sizes and names, but without voxels."""

    shape: Triple
    voxel_size_nm: Spacing
    origin_nm: Spacing
    dtype: np.dtype[Any]
    fields: Mapping[str, Field]
    identity: str
    times: int = 1
    seconds_per_time: float | None = None
    coarser: Sequence[Voxels] = ()

    @classmethod
    def of(cls, plan: Mapping[str, Any]) -> RecordedLabels:
        """Read them from the content of `plan.json`."""
        source = plan["source"]
        return cls(
            triple(source["shape_voxels"]),
            exact3(tuple(source["voxel_size_nm"])),
            exact3(tuple(source["origin_nm"])),
            np.dtype(source["ids"]),
            {
                **{name: Field(name, "mask", "bool") for name in source["regions"]},
                **{name: Field(name, "grey", "float32") for name in source["greys"]},
            },
            source["identity"],
        )

    def state(self, box: Box, masks: Sequence[str]) -> Mapping[str, FilesState]:
        """Return nothing: there are no files."""
        return {}

    def expecting(self, listed: Mapping[str, ShardList]) -> RecordedLabels:
        """Return the same labels."""
        return self

    def read(self, box: Box, time: int = 0) -> NoReturn:
        """Raise SourceError."""
        raise SourceError("a plan records only the size of its labels; open the source of the spec to read them")

    def read_field(self, name: str, box: Box, time: int = 0) -> NoReturn:
        """Raise SourceError."""
        self.read(box)

    def reading_bytes(self, shape: Triple, regions: Sequence[str]) -> int:
        """Return 0."""
        return 0
