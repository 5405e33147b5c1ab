"""What varies the density of a label: from cell to cell, with depth, and with a grey value."""

from __future__ import annotations

import math
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from simexm.geometry.geometry import Geometry
from simexm.geometry.grid import Box
from simexm.kernels.numbers.detmath import CUT_SIGMA, exp_array, normal_quantile_cut_array
from simexm.names import RegionName
from simexm.random import Key, id_uniform
from simexm.settings import Frozen

_DIGITS = 12
"""Digits of plan-time constants that enter draws: the last bits of functions of the C library depend on the machine."""

FACES = ("z_low", "z_high", "y_low", "y_high", "x_low", "x_high")
Face = Literal["z_low", "z_high", "y_low", "y_high", "x_low", "x_high"]


class Brightness(Frozen):
    """How the density of a label varies from cell to cell, as expression and infection do; its mean over cells is 1.

    A cell's factor is a function of seed, layer and cell id, so the cell is equally bright in all blocks.

    Attributes
    ----------
    distribution
        `fixed`: all cells alike. `uniform`: between 1 - sqrt(3) and 1 + sqrt(3) times `variation`. `lognormal`, truncated at
        4 standard deviations of the logarithm.
    variation
        Standard deviation over the mean, before truncation; for `uniform` at most 1 / sqrt(3), so that no cell is negative.
    """

    distribution: Literal["fixed", "uniform", "lognormal"] = "fixed"
    variation: float | None = Field(default=None, gt=0, le=2)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.distribution == "fixed") != (self.variation is None):
            raise ValueError(
                f"a {self.distribution} brightness {'has no' if self.distribution == 'fixed' else 'needs a'} variation, the "
                "standard deviation over the mean of cells; type, for example, {distribution: lognormal, variation: 0.5}"
            )
        if self.distribution == "uniform" and (self.variation or 0) > 3**-0.5:
            raise ValueError(
                f"a uniform brightness of variation {self.variation:g} would make some cells negative; give at most 0.577, or "
                "distribution: lognormal"
            )
        return self

    @property
    def _sigma(self) -> float:
        """Standard deviation of the logarithm."""
        return _rounded(math.sqrt(math.log1p((self.variation or 0.0) ** 2)))

    @property
    def largest(self) -> float:
        """Upper bound of the factor."""
        if self.distribution == "lognormal":
            return float(self._lognormal(np.array([CUT_SIGMA]))[0])
        return 1.0 + 3**0.5 * (self.variation or 0.0)

    def factors(self, ids: NDArray[np.uint64], key: Key) -> NDArray[np.float64]:
        """Factor of each id, (n,)."""
        if self.distribution == "fixed":
            return np.ones(ids.size)
        u = id_uniform(ids, key)
        if self.distribution == "uniform":
            return np.asarray(1.0 + _rounded(12**0.5) * (self.variation or 0.0) * (u - 0.5))
        return self._lognormal(normal_quantile_cut_array(u))

    def _lognormal(self, normal: NDArray[np.float64]) -> NDArray[np.float64]:
        """Factors of mean 1 for numbers of the truncated normal distribution."""
        s, root = self._sigma, math.sqrt(2)
        inside = math.erf(CUT_SIGMA / root)
        kept = (math.erf((CUT_SIGMA - s) / root) + math.erf((CUT_SIGMA + s) / root)) / 2
        return np.asarray(exp_array(s * normal) * _rounded(math.exp(-s * s / 2) * inside / kept))


class Penetration(Frozen):
    """How a stain thins out with depth, as antibodies that diffuse into tissue and bind on their way: exp(-depth / length).

    Depth is that of a voxel's centre below the nearest of `faces`.

    Attributes
    ----------
    length_um
        Depth at which the density has fallen to 1 / e, um of tissue before expansion.
    faces
        Faces of the source's volume that the stain enters, which a crop does not change: `z_low` is the one before the first
        plane, `z_high` the one behind the last.
    """

    length_um: float = Field(gt=0, le=1e6)
    faces: tuple[Face, ...] = Field(default=("z_low", "z_high"), min_length=1, max_length=len(FACES))

    def along_axes(self, box: Box, geometry: Geometry) -> NDArray[np.float64]:
        """Factors by plane, row and column of a box of voxels, joined; see `Factors.depth`."""
        found = []
        for axis, name in enumerate("zyx"):
            place = np.arange(box.start[axis], box.stop[axis]) + 0.5
            per_length = float(geometry.voxel_nm[axis]) / (1e3 * self.length_um)
            factors = np.zeros(place.size)
            for face, depth in ((f"{name}_low", place), (f"{name}_high", geometry.volume[axis] - place)):
                if face in self.faces:
                    factors = np.maximum(factors, exp_array(-depth * per_length))
            found.append(factors)
        return np.concatenate(found)


class GreyDensity(Frozen):
    """Dyes per um^3 = at_zero + per_value * grey value, cut to least ... most.

    The grey values are a field of the source: a measured stain, a probability map, or an image of the electron microscope,
    which shows osmium and not protein, and so is a proxy at best.

    Attributes
    ----------
    field
        Name of a grey field of the source.
    at_zero_per_um3
        Dyes per um^3 where the grey value is 0.
    per_value_per_um3
        Dyes per um^3 more for each unit of the grey value; negative where dark stands for much.
    least_per_um3, most_per_um3
        Bounds of the density.
    """

    field: RegionName
    at_zero_per_um3: float = Field(default=0.0, ge=-1e12, le=1e12)
    per_value_per_um3: float = Field(ge=-1e12, le=1e12)
    least_per_um3: float = Field(default=0.0, ge=0, le=1e9)
    most_per_um3: float = Field(gt=0, le=1e9)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.least_per_um3 >= self.most_per_um3:
            raise ValueError(
                f"least_per_um3 {self.least_per_um3:g} is not below most_per_um3 {self.most_per_um3:g}, so every voxel would "
                "have the same density; give density_per_um3 instead, or other bounds"
            )
        if self.per_value_per_um3 == 0:
            raise ValueError(
                "per_value_per_um3 is 0, so the grey values would not matter; give density_per_um3 instead, or another slope"
            )
        return self

    @property
    def share(self) -> tuple[float, float, float]:
        """At zero, per value, and least, as shares of the largest density; see `EmissionLaw.grey`."""
        most = self.most_per_um3
        return self.at_zero_per_um3 / most, self.per_value_per_um3 / most, self.least_per_um3 / most


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
