"""What a file with a transform holds, in the axes of simexm."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.analysis.registration.transform import Floats, Frame, identity
from simexm.errors import SpecError


@dataclass(frozen=True)
class Content:
    """An affine map after a displacement.

    Attributes
    ----------
    digest
        Of the file's values.
    affine
        (3, 4), um, z y x.
    displacement
        An array (3, z, y, x), um, at the centres of `frame`, components z, y, x; it may be on disk. None for none.
    frame
        Grid of the displacement.
    """

    digest: str
    affine: Floats = field(default_factory=identity)
    displacement: Any = None
    frame: Frame | None = None

    @property
    def held_bytes(self) -> int:
        """Memory that the displacement takes."""
        return self.displacement.nbytes if isinstance(self.displacement, np.ndarray) else 0


def digest_of(path: Path) -> str:
    """Digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()[:32]


def refuse_not_finite(values: NDArray[Any], where: str, plane: int = 0) -> None:
    """Raise SpecError for a displacement, (3, z, y, x), from a plane on, with NaN or infinity."""
    wrong = ~np.isfinite(values)
    if wrong.any():
        component, z, y, x = (int(v) for v in np.argwhere(wrong)[0])
        raise SpecError(
            f"the displacement of {where} along {'zyx'[component]} at voxel {(z + plane, y, x)} is not finite, so points there "
            "would be lost; correct it"
        )
