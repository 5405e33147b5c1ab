"""What tissue and bleaching take of the light, against sums over single dyes by the laws of Beer and of first order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from simexm.errors import SpecError
from simexm.spectra.efficiency import EVERY_PHOTON
from tests.stages.optics_build import Array, Bench, dye_of, microscope

KINDS = ("confocal", "widefield", "two_photon", "light_sheet")
BASE: dict[str, Any] = {"pixel": 150, "plane": 500, "axial_range_um": 3, "na": 1.0}
SHAPE = (12, 14, 14)
TISSUE = {"excitation_per_mm": 6.0, "emission_per_mm": 4.0}


def near(z_nm: float, light: Array) -> NDArray[np.bool_]:
    """Planes that receive much of a dye's light and lie well within the axial range."""
    planes = (np.arange(SHAPE[0]) + 0.5) * 500
    return np.asarray((light > 0.1 * light.max()) & (np.abs(planes - z_nm) < 2100))


def sums(b: Bench, dye: Array) -> Array:
    """Light of a dye in each plane."""
    return np.asarray(b.image(dye)[0].sum(axis=(1, 2), dtype=np.float64))


@pytest.mark.parametrize("kind", KINDS)
def test_light_falls_off_with_the_depth_of_the_dye(kind: str) -> None:
    """In every plane alike; twice as fast where two photons excite it, and by emission alone under a sheet from the side."""
    plain, deep = Bench(microscope(kind, **BASE), SHAPE), Bench(microscope(kind, **BASE, tissue=TISSUE), SHAPE)
    per_mm = {"two_photon": 16.0, "light_sheet": 4.0}.get(kind, 10.0)
    for z in (750.0, 2750.0, 5250.0):  # in planes, so that neighbouring nodes are at symmetric depths
        dye = np.array([z, *plain.centre()[1:]])
        before = sums(plain, dye)
        bright = near(z, before)
        np.testing.assert_allclose(sums(deep, dye)[bright] / before[bright], np.exp(-per_mm * z * 1e-6), rtol=2e-3)


@pytest.mark.parametrize("kind", ["confocal", "two_photon"])
def test_power_makes_up_for_excitation_that_is_lost(kind: str) -> None:
    made_up = {"excitation_per_mm": 60.0, "power_per_mm": 60.0}
    plain, deep = Bench(microscope(kind, **BASE), SHAPE), Bench(microscope(kind, **BASE, tissue=made_up), SHAPE)
    for k in (1, 6, 11):
        dye = np.array([(k + 0.5) * 500, *plain.centre()[1:]])
        assert sums(deep, dye)[k] == pytest.approx(sums(plain, dye)[k], rel=2e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_dye_fades_by_what_earlier_planes_made_it_emit(kind: str) -> None:
    """Alike in all planes under one photon; by two photons and under a sheet only once its plane has come near."""
    plain = Bench(microscope(kind, **BASE), SHAPE)
    z = np.arange(0, 6001.0, 500.0)
    photons = plain.optics.emitted(plain.channel, plain.dye, z)
    mean = 40.0 * float(photons[0])
    faded = Bench(microscope(kind, **BASE, bleaching={"photons": mean}), SHAPE)
    for plane in (2, 6):
        dye = np.array([(plane + 0.5) * 500, *plain.centre()[1:]])
        before = sums(plain, dye)
        bright = near(dye[0], before)
        expected = [np.exp(-sum(photons[abs(plane - j)] for j in range(k)) / mean) for k in range(12)]
        np.testing.assert_allclose(sums(faded, dye)[bright] / before[bright], np.array(expected)[bright], rtol=5e-3)


def test_each_dye_fades_by_its_own_number_of_photons() -> None:
    def faded(**bleaching: Any) -> Array:
        b = Bench(microscope("widefield", **BASE, bleaching=bleaching), SHAPE)
        return sums(b, b.centre())

    assert (faded(photons=1e12, by_dye={"ATTO488": 2e4}) == faded(photons=2e4)).all()
    assert (faded(photons=2e4, by_dye={"Cy5": 1e12}) == faded(photons=2e4)).all()
    assert faded(photons=2e4)[-1] < 0.9 * faded(photons=1e12)[-1]


def test_photons_of_a_dye_that_no_layer_carries_are_refused() -> None:
    optics = microscope("widefield", **BASE, bleaching={"by_dye": {"Cy5": 1e5}})
    with pytest.raises(SpecError, match="by_dye"):
        optics.check({"ATTO488": dye_of(optics)}, 4.0, EVERY_PHOTON)


@pytest.mark.parametrize("kind", KINDS)
def test_tiles_leave_no_seam(kind: str) -> None:
    b = Bench(microscope(kind, **BASE, tissue={**TISSUE, "power_per_mm": 80.0}, bleaching={"photons": 2e4}), SHAPE)
    dyes = b.centre() + np.random.default_rng(2).uniform(-0.5, 0.5, (300, 3)) * b.pitch * b.shape
    whole, tiled = b.image(dyes), b.image(dyes, tile=(5, 9, 8))
    assert np.abs(whole - tiled).max() < 2e-6 * whole.max()


def test_bleaching_is_remarked_on_where_it_is_not_simulated() -> None:
    bleached = {**BASE, "bleaching": {"photons": 3e5}}
    for settings, remarked in ((BASE, True), (bleached, False)):
        b = Bench(microscope("confocal", **settings, power=2000), SHAPE)
        assert b.pair.emitted_in_stack > 1e5
        assert bool(b.resolved.description.remarks()) is remarked
