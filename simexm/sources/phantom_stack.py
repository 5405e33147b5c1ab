"""A phantom described in a YAML file, NAME.yaml: read like a stored volume, its ids or one of its fields."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from simexm.errors import SourceError
from simexm.geometry.grid import Box, Spacing, Triple
from simexm.settings import explain, read
from simexm.sources.phantom import Phantom, PhantomVolume
from simexm.sources.stack import PlanesByZ
from simexm.sources.state import FilesState


class PhantomStack(PlanesByZ):
    """Ids of a phantom, or the field `dataset`; obeys `simexm.sources.stack.Stack`.

    Raises SourceError if the file describes no phantom, or it has no such field.
    """

    def __init__(self, path: Path, dataset: str | None = None) -> None:
        self.where = f"{path} ({dataset})" if dataset else str(path)
        self.volume = open_phantom(path)
        if dataset is not None and dataset not in self.volume.fields:
            raise SourceError(f"{path} is a phantom, whose fields are {', '.join(self.volume.fields)}, not {dataset!r}")
        self._field = dataset
        self.shape: Triple = self.volume.shape
        self.grain: Triple = (1, 1, 1)
        self.dtype = np.dtype(self.volume.fields[dataset].dtype) if dataset else self.volume.dtype
        self.voxel_size_nm: Spacing | None = self.volume.voxel_size_nm
        self.origin_nm = self.volume.origin_nm

    @property
    def identity(self) -> str:
        """What decides all values."""
        return f"{self.volume.identity} {self._field or 'ids'}"

    def read(self, box: Box) -> NDArray[Any]:
        """Compute the ids or values in a box, (z, y, x)."""
        return self.volume.read(box) if self._field is None else self.volume.read_field(self._field, box)

    def state(self, box: Box) -> FilesState | None:
        """Nothing is stored that could change."""
        return None


def open_phantom(path: Path) -> PhantomVolume:
    """Open the phantom that a YAML file describes, alone or as the source of a spec; raises SourceError for any other."""
    found: dict[str, Any] = read(path, "description of a phantom")
    told = found.get("source", found)
    if not isinstance(told, dict) or told.get("kind") != "phantom":
        raise SourceError(
            f"{path} describes no phantom, so there is nothing to read; write `kind: phantom` and its shape in it, or name a "
            "volume"
        )
    try:
        return Phantom.model_validate(told).open()
    except ValidationError as error:
        raise explain(error, Phantom, str(path), "the phantom") from error
