"""Body of an animal in a tissue: a bent, tapered tube that holds its cells."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from simexm.settings import Frozen

Array = NDArray[np.float64]


class Body(Frozen):
    """A tube along x, in the middle of the tissue, that bends along y as a worm does.

    At each x its section is a disc. The radius is `radius_um` in the middle of its length, and falls to 0 at its ends as that of
    an ellipsoid does. Its axis is an S: at t from the middle, in half lengths, it lies `bend_um` 3 sqrt(3) / 2 t (1 - t^2) aside.

    Attributes
    ----------
    length_um
        From end to end; it may be longer than the tissue, which then shows a part.
    radius_um
        Of the thickest section.
    bend_um
        Largest distance of its axis from the middle of the tissue, along y.
    """

    length_um: float = Field(gt=0, le=1e6)
    radius_um: float = Field(gt=0, le=1e5)
    bend_um: float = Field(default=0.0, ge=0, le=1e5)

    def holds(self, places_um: Array, size_um: tuple[float, float, float]) -> NDArray[np.bool_]:
        """Which places, (n, 3), z y x, lie in it."""
        z, y, x = (places_um - np.asarray(size_um) / 2).T
        along = 2 * x / self.length_um
        thinner = 1 - along**2
        aside = self.bend_um * _LARGEST * along * thinner
        return np.asarray(z**2 + (y - aside) ** 2 < self.radius_um**2 * thinner)


_LARGEST = 1.5 * 3**0.5
"""One over the largest value of t (1 - t^2), at 1 / sqrt(3)."""
