"""The voxels of objects: ids as stored, a mask, or a thresholded map, cleaned by opening, closing and erosion."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from simexm.analysis.volume import Content, Volume, VolumeAnalysis, voxel_floats
from simexm.geometry.grid import Box, Triple, three
from simexm.kernels.objects.morphology import closed, eroded, opened, reach


class Foreground(VolumeAnalysis):
    """Settings of what belongs to objects.

    Attributes
    ----------
    content
        labels: ids, 0 is outside. mask: everything but 0. probability: a map of 0 to 1; integers are divided by the largest of
        their type.
    threshold
        For a probability: voxels above it belong to objects.
    opening_nm, closing_nm, erosion_nm
        For masks and probabilities, in this order: radius of a ball; what is narrower is removed, gaps that are narrower are
        filled, and the rest is made thinner. Outside the volume is no background.
    """

    content: Content = "labels"
    threshold: float | None = Field(default=None, ge=0, le=1)
    opening_nm: float = Field(default=0.0, ge=0, le=1e5)
    closing_nm: float = Field(default=0.0, ge=0, le=1e5)
    erosion_nm: float = Field(default=0.0, ge=0, le=1e5)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.threshold is None) == (self.content == "probability"):
            raise ValueError("a threshold and content: probability belong together; give both, or neither")
        if self.content == "labels" and (self.opening_nm or self.closing_nm or self.erosion_nm):
            raise ValueError(
                "opening, closing and erosion act on masks, and would join or cut ids; set content to mask or probability, or "
                "leave them out"
            )
        return self

    def halo(self, volume: Volume) -> Triple:
        """Voxels around a box that decide what belongs to objects in it."""
        steps = [self.opening_nm] * 2 + [self.closing_nm] * 2 + [self.erosion_nm]
        each = [reach(radius, voxel_floats(volume)) for radius in steps]
        return three(sum(axis) for axis in zip(*each, strict=True))


class ForegroundReader:
    """Reads a volume's objects box by box, as unsigned integers; outside the region of interest is nothing."""

    def __init__(self, settings: Foreground, volume: Volume, whole: Box) -> None:
        self._settings, self._voxel = settings, voxel_floats(volume)
        self._read = volume.numbers(settings.content)
        self._halo, self._all = settings.halo(volume), whole

    def read(self, box: Box) -> NDArray[Any]:
        """Return the ids in a box, (z, y, x); 1 for those of masks."""
        wide = box.grown(self._halo).intersect(self._all)
        values, s = self._read(wide), self._settings
        if s.content == "labels":
            return values
        inside = values > s.threshold if s.threshold is not None else values != 0
        inside = opened(inside, s.opening_nm, self._voxel)
        inside = closed(inside, s.closing_nm, self._voxel)
        inside = eroded(inside, s.erosion_nm, self._voxel)
        return np.ascontiguousarray(inside[box.relative_to(wide.start).slices]).view(np.uint8)
