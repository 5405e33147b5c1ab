"""Objectives by name, and the layers between them and the gel."""

from __future__ import annotations

import difflib
from fractions import Fraction
from functools import lru_cache
from typing import Annotated, Any, Literal, NamedTuple, Self

import numpy as np
from pydantic import Field, model_validator

from simexm.kernels.diffraction import objective, tables
from simexm.kernels.diffraction.special import Array
from simexm.kernels.diffraction.tables import Focus
from simexm.settings import Frozen

WATER, SILICONE, OIL, AIR = 1.333, 1.406, 1.515, 1.0
"""Refractive indices of immersions in green light at 23 C."""
REFERENCE_NM = 50_000.0
"""Depth at which the ratio of focus depth to stage travel is taken."""
INTERPOLATION_ERROR = 2e-3
"""Largest error of the interpolation between depths, relative to the peak of an unaberrated response."""
_WIDEST_STEP_NM = 20_000
_FINEST_STEP_NM = 200
_DEPTHS_TRIED = (
    0.0,
    0.02,
    0.05,
    0.1,
    0.2,
    0.35,
    0.5,
    0.75,
    1.0,
)  # of the deepest; closer near the surface, where images are sharp


class Named(NamedTuple):
    """Numerical aperture and immersion of an objective; without an index it takes any and is immersed in the gel's."""

    numerical_aperture: float
    immersion_index: float | None


Name = Literal[
    "water_1.0", "water_1.15", "water_1.2", "silicone_1.05", "silicone_1.3", "oil_1.4", "air_0.5", "air_0.8",
    "multi_immersion_0.4", "multi_immersion_1.0",
]  # fmt: skip
OBJECTIVES: dict[str, Named] = {
    "water_1.0": Named(1.0, WATER),
    "water_1.15": Named(1.15, WATER),
    "water_1.2": Named(1.2, WATER),
    "silicone_1.05": Named(1.05, SILICONE),
    "silicone_1.3": Named(1.3, SILICONE),
    "oil_1.4": Named(1.4, OIL),
    "air_0.5": Named(0.5, AIR),
    "air_0.8": Named(0.8, AIR),
    "multi_immersion_0.4": Named(0.4, None),
    "multi_immersion_1.0": Named(1.0, None),
}


class CoverGlass(Frozen):
    """The cover glass and the one that the objective expects.

    Attributes
    ----------
    thickness_um, index
        Of the glass in use.
    design_thickness_um, design_index
        Of the glass for which the objective is made, or to which its correction collar is set.
    """

    thickness_um: float = Field(default=170.0, ge=0, le=2000)
    index: float = Field(default=1.5255, ge=1.3, le=2)
    design_thickness_um: float = Field(default=170.0, ge=0, le=2000)
    design_index: float = Field(default=1.5255, ge=1.3, le=2)

    def layer(self) -> objective.Glass | None:
        """For the diffraction tables; None if it is the one that the objective expects."""
        made = (self.design_thickness_um, self.design_index)
        if (self.thickness_um, self.index) == made:
            return None
        return objective.Glass(self.thickness_um * 1000, self.index, self.design_thickness_um * 1000, self.design_index)


class Zernike(Frozen):
    """An aberration of the objective.

    Attributes
    ----------
    n, m
        Order and frequency of Zernike's polynomial: (4, 0) is spherical aberration, (2, 2) and (2, -2) astigmatism, (3, 1) and
        (3, -1) coma, (3, 3) and (3, -3) trefoil. It varies as cos(m phi) for m > 0 and as sin(-m phi) for m < 0 (ANSI Z80.28),
        phi being the direction in which a ray travels, from x towards y.
    nm
        Optical path, root mean square over the pupil (Noll).
    """

    n: Annotated[int, Field(ge=2, le=20)]
    m: Annotated[int, Field(ge=-20, le=20)] = 0
    nm: Annotated[float, Field(ge=-1000, le=1000)]

    @model_validator(mode="after")
    def _polynomial(self) -> Self:
        if abs(self.m) > self.n or (self.n - self.m) % 2:
            raise ValueError(
                f"there is no polynomial of Zernike's with n {self.n} and m {self.m}: m is one of "
                f"{', '.join(map(str, range(-self.n, self.n + 1, 2)))}"
            )
        return self


def fill_in(given: dict[str, Any]) -> dict[str, Any]:
    """Add what the named objective says to the keys that are given; ValueError if there is none of that name."""
    name = given.get("objective")
    if not isinstance(name, str):
        return given
    named = OBJECTIVES.get(name)
    if named is None:
        near = difflib.get_close_matches(name, OBJECTIVES, n=2)
        hint = f"did you mean {' or '.join(near)}? All of them" if near else "they are"
        raise ValueError(
            f"there is no objective {name!r}; {hint}: {', '.join(OBJECTIVES)}; or give numerical_aperture and immersion_index"
        )
    found = {"numerical_aperture": named.numerical_aperture, "immersion_index": named.immersion_index}
    return {**{k: v for k, v in found.items() if v is not None}, **given}


@lru_cache(maxsize=64)
def focus_scale(lens: objective.Objective, wavelength_nm: float) -> Fraction:
    """Depth by which the focus moves in the gel for each unit of stage travel, a fraction of at most three digits."""
    if lens.n1 == lens.gel:
        return Fraction(1)
    start, end = (tables.best_focus_nm(d, wavelength_nm, lens) for d in (0.0, REFERENCE_NM))
    return Fraction(REFERENCE_NM / (end - start)).limit_denominator(999)


def focus_at(lens: objective.Objective, wavelength_nm: float, depth_nm: float) -> Focus:
    """A plane at this depth, and the focus setting with which it is imaged."""
    return Focus(depth_nm, _surface_nm(lens, wavelength_nm) + depth_nm / float(focus_scale(lens, wavelength_nm)))


@lru_cache(maxsize=64)
def _surface_nm(lens: objective.Objective, wavelength_nm: float) -> float:
    return tables.best_focus_nm(0.0, wavelength_nm, lens)


@lru_cache(maxsize=64)
def depth_step_nm(lens: objective.Objective, wavelength_nm: float, deepest_nm: float) -> float:
    """Spacing of the depths between which responses may be interpolated linearly; infinite without a mismatch.

    The widest of 20, 14, 9.8, ... um with an error below `INTERPOLATION_ERROR` at depths from the surface to the end, for a dye's
    image and for its square: a scanner's response is a product of two such patterns.
    """
    if lens.n1 == lens.gel:
        return float("inf")
    r = np.arange(12, dtype=np.float64) * (wavelength_nm / lens.aperture / 12)
    z = np.arange(-12, 13, dtype=np.float64) * (wavelength_nm * lens.n1 / lens.aperture**2 / 6)
    plain = lens._replace(glass=None, spherical=(), aberrations=())
    peak = float(tables.emission_table(np.zeros(1), np.zeros(1), wavelength_nm, plain).max())

    def image(depth_nm: float) -> Array:
        return tables.emission_table(z, r, wavelength_nm, lens, focus_at(lens, wavelength_nm, depth_nm)) / peak

    def error(depth_nm: float) -> float:
        near, between, far = (image(depth_nm + part * step) for part in (0.0, 0.5, 1.0))
        return max(float(np.abs(between**n - (near**n + far**n) / 2).max()) for n in (1, 2))

    step: float = _WIDEST_STEP_NM
    while step > _FINEST_STEP_NM:
        starts = sorted({deepest_nm * part // step * step for part in _DEPTHS_TRIED})
        if all(error(start) <= INTERPOLATION_ERROR for start in starts):
            break
        step = round(0.7 * step)
    return step
