"""The image of an emitter that a fit assumes: of a lens, of a measured stack, or the very one of a simulation."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from simexm.analysis.localisation.frames import Movie
from simexm.errors import OutputError
from simexm.kernels.diffraction import pupil
from simexm.kernels.diffraction.objective import Objective
from simexm.kernels.diffraction.tables import SURFACE, Focus
from simexm.kernels.localisation.fit import Model
from simexm.kernels.localisation.models import GAUSSIAN, TABLE
from simexm.kernels.localisation.response import (
    PER_PIXEL,
    SPARE,
    Images,
    Response,
    round_images,
    square_images,
    tabulate,
)
from simexm.settings import Frozen
from simexm.stages.microscope import objectives, planar
from simexm.stages.microscope.optics import Optics
from simexm.stages.microscope.optics_plan import Channel, OpticsPair, OpticsPlan

Array = NDArray[np.float64]
_Z_STEP_NM = 40.0
_START_NM = 100.0
"""Distance of the starts along z from which the most likely is chosen."""


class Lens(Frozen):
    """An objective, whose image of a point is computed.

    Attributes
    ----------
    numerical_aperture
        Aperture of the objective.
    emission_nm
        Wavelength.
    refractive_index
        Index around the emitters.
    immersion_index
        Index of the immersion; by default that around the emitters, which lie at the cover glass otherwise.
    zernike
        Aberrations; a cylindrical lens is {n: 2, m: 2, nm: 70} or so.
    """

    numerical_aperture: float = Field(gt=0, le=2)
    emission_nm: float = Field(gt=300, le=2000)
    refractive_index: float = Field(default=1.333, ge=1, le=2)
    immersion_index: float | None = Field(default=None, ge=1, le=2)
    zernike: tuple[objectives.Zernike, ...] = Field(default=(), max_length=20)

    @model_validator(mode="after")
    def _aperture(self) -> Self:
        if self.numerical_aperture >= (self.immersion_index or self.refractive_index):
            raise ValueError(
                f"numerical_aperture {self.numerical_aperture:g} is not below the index of the immersion; give immersion_index "
                "(oil 1.515, silicone 1.406)"
            )
        return self

    @property
    def objective(self) -> Objective:
        """For the diffraction integrals."""
        return Objective(
            self.numerical_aperture,
            self.refractive_index,
            immersion=self.immersion_index or 0.0,
            spherical=tuple((z.n, z.nm) for z in self.zernike if z.m == 0),
            aberrations=tuple((z.n, z.m, z.nm) for z in self.zernike if z.m != 0),
        )

    def images(self) -> Images:
        """Light of a point per square nm, of unit energy in each plane."""
        lens, wavelength = self.objective, self.emission_nm
        focus = SURFACE if lens.matched else objectives.focus_at(lens, wavelength, 0.0)
        if lens.round:
            return round_images(lambda z, r: pupil.emission(z, r, wavelength, lens, focus))
        pitch = wavelength / (8 * self.numerical_aperture)

        def squares(z: Array, radius: float) -> tuple[float, Array]:
            at = pupil.Square(pitch, 2 * math.ceil(radius / pitch) + 1)
            return pitch, pupil.emission(z, at, wavelength, lens, focus)[:, ::-1, ::-1]

        return square_images(squares)


def width_nm(numerical_aperture: float, emission_nm: float) -> float:
    """Standard deviation of the Gaussian that is most like the image of a point (Zhang et al., Appl. Opt. 46, 1819, 2007)."""
    return 0.21 * emission_nm / numerical_aperture


class Seen:
    """An emitter as the simulation of a movie shows it: the brightest dye of the channel."""

    def __init__(self, movie: Movie) -> None:
        plan = movie.plan
        formation, optics = getattr(plan.imaging, "formation", None), plan.simulation.microscope
        if not isinstance(formation, OpticsPlan) or not isinstance(optics, Optics) or not optics.keeps_light:
            raise OutputError(
                f"{movie.path} was not imaged with a camera, and the fit knows the response of widefield and light sheet; set "
                "model to gaussian"
            )
        self.optics: Optics = optics
        name = optics.all_channels[movie.number].name
        pairs = [p for p in formation.pairs if p.channel == name]
        self.pair: OpticsPair = max(pairs, key=lambda p: p.in_focus)
        self.dye = plan.context.dyes[self.pair.dye]
        self.scale = float(plan.geometry.transform.scale)
        self.focus: Focus = SURFACE if formation.depths is None else formation.depths.foci[0]

    @property
    def is_round(self) -> bool:
        """Whether its image is symmetric about the axis."""
        return not self.optics.planar(self._channel)

    @property
    def _channel(self) -> Channel:
        return next(c for c in self.optics.all_channels if c.name == self.pair.channel)

    def images(self) -> Images:
        """Light of an emitter per square nm (expanded), of unit energy in each plane."""
        optics, pair, dye, focus = self.optics, self.pair, self.dye, self.focus
        channel = next(c for c in optics.all_channels if c.name == pair.channel)

        def light(z: Array) -> Array:
            found = optics.emitted(channel, dye, z) * optics.collected(channel, dye)
            return np.asarray(found)[:, None, None]

        if self.is_round:
            return round_images(
                lambda z, r: optics.response(channel, dye, pair.emission_nm, z, r, focus) / light(z)[..., 0]
            )

        def squares(z: Array, radius: float) -> tuple[float, Array]:
            pitch, found = planar.images(optics, channel, dye, pair.emission_nm, z, radius, focus)
            return pitch, found / light(z)

        return square_images(squares)


def gaussian_model(sigma_px: float, side: int, free: bool) -> Model:
    """A Gaussian whose width is fitted, if `free`."""
    return Model(
        GAUSSIAN, side, 4 + free, 0.4, side / 2.0, np.array([sigma_px]), np.zeros((1, 1, 1)), 1
    )  # fmt: skip


def table_model(response: Response, side: int) -> Model:
    """A tabulated image; its distance from the plane is fitted if the table has several planes."""
    planes = len(response.coefficients)
    if planes == 1:
        return Model(TABLE, side, 4, -1.0, 1.0, np.zeros(1), response.coefficients, PER_PIXEL)
    low, high = float(SPARE), float(planes - 1 - SPARE)
    count = max(2, round((high - low) * response.plane_nm / _START_NM))
    starts = low + (np.arange(count) + 0.5) * (high - low) / count
    return Model(TABLE, side, 5, low, high, starts, response.coefficients, PER_PIXEL)


def z_planes(range_nm: tuple[float, float] | None) -> tuple[float, float, float] | None:
    """Range of distances from the plane with the step of the table."""
    return None if range_nm is None else (*range_nm, _Z_STEP_NM)


@lru_cache(maxsize=4)
def response_of_lens(lens: Lens, pixel_nm: float, side: int, range_nm: tuple[float, float] | None) -> Response:
    """Table of a lens."""
    return tabulate(lens.images(), pixel_nm, side, z_planes(range_nm))
