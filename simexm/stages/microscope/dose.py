"""What tissue and bleaching leave of a dye's light, by the depth of the dye and the plane that is imaged.

Light falls off as exp(-mu d) on its way to and from a dye at depth d (Beer and Lambert). A dye that has emitted n photons is
left with the probability exp(-n / N), N its mean number of photons before it bleaches (Eggeling et al. 1998, Anal. Chem. 70,
2651: 1e5 to 1e6). A plane's scan excites dyes in all planes, evenly in one-photon microscopes, near the focus with two
photons and in a light sheet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from simexm.kernels.numbers import detmath
from simexm.settings import Frozen
from simexm.spectra.fluorophores import Fluorophore
from simexm.stages.microscope.optics_plan import Array, OpticsPair, OpticsPlan

if TYPE_CHECKING:
    from simexm.stages.microscope.optics import Optics

_MM_PER_NM = 1e-6


class Tissue(Frozen):
    """Attenuation with depth, per mm of expanded tissue, from the face of the specimen that lies towards the objective.

    Attributes
    ----------
    excitation_per_mm, emission_per_mm
        Attenuation coefficients of the light that excites dyes and of the light that they emit.
    power_per_mm
        Rate at which the laser power is raised with the depth of the plane, as exp(rate * depth), to make up for it.
    """

    excitation_per_mm: float = Field(default=0.0, ge=0, le=1e3)
    emission_per_mm: float = Field(default=0.0, ge=0, le=1e3)
    power_per_mm: float = Field(default=0.0, ge=0, le=1e3)


class Bleaching(Frozen):
    """Bleaching of dyes.

    Attributes
    ----------
    photons
        Photons that a dye emits on average before it bleaches.
    by_dye
        The same of some dyes, by their name.
    """

    photons: float = Field(default=3e5, gt=0, le=1e12)
    by_dye: dict[str, Annotated[float, Field(gt=0, le=1e12)]] = Field(default_factory=dict)

    def __hash__(self) -> int:
        return hash((self.photons, *sorted(self.by_dye.items())))

    def of(self, dye: str) -> float:
        """Photons that this dye emits on average before it bleaches."""
        return self.by_dye.get(dye, self.photons)


def shares(optics: Optics, plan: OpticsPlan, pair: OpticsPair, dye: Fluorophore, planes: range) -> Array | None:
    """Share of a dye's light that is left, (planes, offsets), by image plane and node plane -reach ... reach from it.

    None where neither tissue nor bleaching takes any. Light beyond saturation is not followed.
    """
    number = plan.pairs.index(pair)
    return _left(optics, plan, number, dye, planes, np.arange(-plan.reach, plan.reach + 1))


def far_shares(
    optics: Optics, plan: OpticsPlan, number: int, dye: Fluorophore, planes: range, reach: int
) -> NDArray[np.float32]:
    """`shares` of a pair, by its number, at planes of coarse nodes -reach to reach from the image plane, (planes, offsets).

    (planes, 1) if all is left.
    """
    assert plan.haze is not None
    offsets = np.arange(-reach, reach + 1, dtype=np.float64) * (plan.subdivision[0] / plan.haze.per_plane)
    left = _left(optics, plan, number, dye, planes, offsets)
    return np.ones((len(planes), 1), np.float32) if left is None else left.astype(np.float32)


def _left(
    optics: Optics,
    plan: OpticsPlan,
    number: int,
    dye: Fluorophore,
    planes: range,
    offsets: NDArray[np.int64] | Array,
) -> Array | None:
    """Share that is left at these offsets, in node planes.

    A chromatic shift moves dyes on the grid, not in the tissue: light passes as much of it as before.
    """
    if optics.tissue is None and optics.bleaching is None:
        return None
    tissue = optics.tissue or Tissue()
    m, node_mm = plan.subdivision[0], float(plan.node_nm[0]) * _MM_PER_NM
    k = np.array(planes, dtype=np.int64)
    shifted_mm = plan.shift(number).axial_nm * _MM_PER_NM
    depth_mm = np.asarray(np.maximum(0.0, (k[:, None] * m + offsets + m / 2) * node_mm + shifted_mm), np.float64)
    order = 2 if optics.multiphoton else 1
    reaching = _exp(-order * tissue.excitation_per_mm * depth_mm) if optics.lit_from_above else np.ones(depth_mm.shape)
    power = _exp(order * tissue.power_per_mm * (np.arange(planes.stop, dtype=np.float64) + 0.5) * m * node_mm)
    left = reaching * power[k][:, None] * _exp(-tissue.emission_per_mm * depth_mm)
    if optics.bleaching is not None:
        dose = np.zeros(left.shape)
        for before in range(1, planes.stop):
            some = np.flatnonzero(k >= before)
            emitted = _emitted(optics, plan, number, dye, offsets + before * m)
            dose[some] += emitted * power[k[some] - before][:, None]
        left = left * _exp(-dose * reaching / optics.bleaching.of(plan.pairs[number].dye))
    return left


def _emitted(
    optics: Optics, plan: OpticsPlan, number: int, dye: Fluorophore, distance: NDArray[np.int64] | Array
) -> Array:
    """Photons that a dye emits in all channels together, shown by a pair so many node planes from the plane that is imaged."""
    z = np.asarray(distance, np.float64) * float(plan.node_nm[0])
    own = plan.shift(number).axial_nm
    photons = np.zeros(z.size)
    for channel in optics.all_channels:
        if optics.excites(channel, dye):
            away = z + (own - optics.light_nm(channel))
            photons += optics.emitted(channel, dye, away if optics.uneven else np.abs(away))
    return photons


def _exp(x: Array) -> Array:
    result: Array = detmath.exp_array(x)
    return result
