"""Uniform expansion of the gel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from simexm.geometry.grid import exact
from simexm.geometry.transform import UniformExpansion
from simexm.stages.expansion.moving import Moving


class Expansion(Moving):
    """Uniform expansion about the specimen's corner.

    Attributes
    ----------
    factor
        Linear factor; 4 to 4.5 for the first protocol (Chen, Tillberg & Boyden, Science 2015), up to 20 for iterated
        ones.
    """

    stage: Literal["expansion"] = "expansion"
    factor: float = Field(default=4.0, ge=1, le=100)

    def transform(self, frame: Mapping[str, int] | None = None) -> UniformExpansion:
        """Expansion by the exact decimal factor of the spec."""
        return UniformExpansion(exact(self.factor))
