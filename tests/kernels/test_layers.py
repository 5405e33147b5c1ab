"""Laws of light through layers: gel, cover glass and immersion of different refractive indices, and aberrations."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import integrate, special

from simexm.kernels.diffraction import hankel, tables
from simexm.kernels.diffraction.objective import Glass, Objective
from simexm.kernels.diffraction.tables import Focus

Array = NDArray[np.float64]
NM = 520.0
SILICONE, SILICONE_HIGH = Objective(1.05, 1.333, immersion=1.406), Objective(1.3, 1.333, immersion=1.406)
OIL, AIR = Objective(1.4, 1.333, immersion=1.515), Objective(0.8, 1.333, immersion=1.0)
WATER, AIR_LOW = Objective(1.2, 1.340, immersion=1.333), Objective(0.5, 1.333, immersion=1.0)
GLASS = Objective(1.0, 1.333, immersion=1.333, glass=Glass(190_000.0, 1.5255, 170_000.0, 1.518))
ABERRATED = Objective(1.1, 1.333, spherical=((4, 40.0), (6, -25.0)))


def fields(z: float, r: float, o: Objective, focus: Focus, excitation: bool) -> float:
    """The integrals over the angle theta1 in the immersion, by a fine rule, with Fresnel's and Snell's laws written out."""
    n1, n2, k0 = o.n1, o.gel, 2 * math.pi / NM
    end = math.asin(min(o.aperture, n2) / n1)
    nodes, weights = np.polynomial.legendre.leggauss(40)
    # theta1 = end sin(u), in whose u the cosine of theta2 is smooth where the gel refracts up to a right angle
    panels = 120
    u = ((np.arange(panels)[:, None] + (nodes + 1) / 2) / panels).ravel() * math.pi / 2
    weights = np.tile(weights / 2 / panels * math.pi / 2, panels)
    theta1, weights = end * np.sin(u), weights * end * np.cos(u)
    s1, c1 = np.sin(theta1), np.cos(theta1)
    s2 = n1 * s1 / n2
    c2 = np.sqrt(np.maximum(0, 1 - s2**2))
    ts, tp, path = np.ones_like(c1), np.ones_like(c1), focus.depth_nm * n2 * c2 - focus.setting_nm * n1 * c1
    layers = [(n1, c1), (n2, c2)]
    if o.glass:
        cg = np.sqrt(1 - (n1 * s1 / o.glass.n) ** 2)
        design = np.sqrt(1 - (n1 * s1 / o.glass.design_n) ** 2)
        layers.insert(1, (o.glass.n, cg))
        path += o.glass.thickness_nm * o.glass.n * cg - o.glass.design_thickness_nm * o.glass.design_n * design
    for (n, c), (m, d) in pairwise(layers):
        ts, tp = ts * 2 * n * c / (n * c + m * d), tp * 2 * n * c / (m * c + n * d)
    rho = n1 * s1 / o.aperture
    for order, nm in o.spherical:
        path += nm * math.sqrt(order + 1) * special.eval_legendre(order // 2, 2 * rho**2 - 1)
    pupil = np.exp(-((rho / o.fill) ** 2)) if excitation else np.ones_like(c1)
    wave = weights * s1 * np.sqrt(c1) * pupil * np.exp(1j * k0 * (path + z * n2 * c2))
    x = k0 * n1 * r * s1
    k = [abs((wave * g * special.jv(m, x)).sum()) ** 2 for m, g in enumerate((ts + tp * c2, tp * s2, ts - tp * c2))]
    per_plane = (2 * math.pi / (k0 * n1) ** 2) * (weights * s1 * 2 * pupil**2 * (ts**2 + tp**2)).sum()
    if excitation:
        per_plane = n1 / n2 * (2 * math.pi / (k0 * n1) ** 2) * (weights * s1 * 4 * pupil**2 * c1).sum()
    return float((k[0] + 2 * k[1] + k[2]) / per_plane)


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from([SILICONE, SILICONE_HIGH, OIL, AIR, WATER, GLASS, ABERRATED, SILICONE_HIGH._replace(fill=0.8)]),
    st.floats(-8000, 8000), st.floats(0, 8000), st.floats(0, 200_000), st.booleans(),
)  # fmt: skip
def test_tables_are_the_integrals_over_the_angle_in_the_immersion(
    lens: Objective, z: float, r: float, depth: float, excitation: bool
) -> None:
    focus = Focus(depth, tables.best_focus_nm(depth, NM, lens))
    table = tables.excitation_table if excitation else tables.emission_table
    value = table(np.array([z]), np.array([r]), NM, lens, focus)[0, 0]
    peak = fields(0.0, 0.0, lens._replace(glass=None, spherical=()), Focus(0.0, 0.0), excitation)
    assert value == pytest.approx(fields(z, r, lens, focus, excitation), abs=1e-6 * peak)


@pytest.mark.parametrize(
    ("lens", "depth_um", "peak", "setting_um"),
    [
        (Objective(1.15, 1.336, immersion=1.333), 100, 0.97, 99.6),
        (WATER, 100, 0.72, 98.95),
        (WATER, 300, 0.35, 297.55),
        (SILICONE, 10, 0.97, 10.84),
        (SILICONE, 50, 0.506, 54.12),
        (SILICONE_HIGH, 50, 0.19, 54.0),
        (OIL, 50, 0.10, 58.8),
        (AIR_LOW, 100, 0.92, 72.7),
        (AIR, 50, 0.279, 34.82),
    ],
)
def test_peak_and_focus_are_those_of_an_independent_model(
    lens: Objective, depth_um: float, peak: float, setting_um: float
) -> None:
    """Figures of an independent quadrature, to the digits given."""
    depth = depth_um * 1000.0
    setting = tables.best_focus_nm(depth, NM, lens)
    here, surface = (float(tables.axial_peak(d, np.array([t]), NM, lens)[0]) for d, t in ((depth, setting), (0.0, 0.0)))
    digits = 0.0006 if round(peak, 2) != peak else 0.006
    assert here / surface == pytest.approx(peak, abs=digits)
    assert setting / 1000 == pytest.approx(setting_um, abs=0.05)


@pytest.mark.parametrize("lens", [SILICONE, SILICONE_HIGH, AIR, GLASS])
def test_every_plane_holds_the_same_energy(lens: Objective) -> None:
    depth = 1_000.0 if lens.slope > 2 else 30_000.0  # rays that graze the surface go far
    focus = Focus(depth, tables.best_focus_nm(depth, NM, lens))
    z, r = np.array([-depth / 20, 0.0, depth / 20]), np.arange(0.0, 60_000.0, 12.0)
    for table, whole in ((tables.emission_table, 1.0), (tables.excitation_table, tables.plane_fluence(lens))):
        values = table(z, r, NM, lens, focus)
        energy, half = (hankel.plane_energy(values[:, :n], r[:n]) for n in (r.size, r.size // 2))
        np.testing.assert_allclose(2 * energy - half, whole, rtol=2e-3)


def test_layers_of_one_index_are_none() -> None:
    z, r = np.linspace(-3000.0, 3000.0, 7), np.arange(0.0, 2000.0, 50.0)
    one = Objective(1.15, 1.333)
    same = one._replace(glass=Glass(170_000.0, 1.5255, 170_000.0, 1.5255))
    depth = Focus(80_000.0, 80_000.0)
    ours, theirs = (tables.emission_table(z, r, NM, lens, depth) for lens in (one, same))
    np.testing.assert_allclose(
        theirs, ours, rtol=0, atol=2e-3 * ours.max()
    )  # the glass reflects a little at large angles


@pytest.mark.parametrize(("lens", "whole"), [(SILICONE, None), (OIL, None), (Objective(1.15, 1.333), 0.2471)])
def test_the_objective_collects_what_passes_the_surface(lens: Objective, whole: float | None) -> None:
    """Against the transmitted power by Fresnel's formulas at each angle in the gel."""
    theta = (np.arange(20_000) + 0.5) / 20_000 * math.asin(min(lens.aperture, lens.gel) / lens.gel)
    s2, c2 = np.sin(theta), np.cos(theta)
    c1 = np.sqrt(1 - (lens.gel * s2 / lens.n1) ** 2)
    rs = (lens.gel * c2 - lens.n1 * c1) / (lens.gel * c2 + lens.n1 * c1)
    rp = (lens.n1 * c2 - lens.gel * c1) / (lens.n1 * c2 + lens.gel * c1)
    share = 0.25 * np.trapezoid((2 - rs**2 - rp**2) * s2, theta)
    assert lens.collected() == pytest.approx(share, rel=1e-3)
    if whole is not None:
        assert lens.collected() == pytest.approx((1 - math.sqrt(1 - (1.15 / 1.333) ** 2)) / 2, rel=1e-9)


@pytest.mark.parametrize("nm", [5.0, 15.0])
def test_a_weak_aberration_lowers_the_peak_by_marechals_law(nm: float) -> None:
    lens = Objective(0.3, 1.333, spherical=((4, nm),))
    peaks = [float(tables.axial_peak(0.0, np.zeros(1), NM, o)[0]) for o in (lens, lens._replace(spherical=()))]
    assert peaks[0] / peaks[1] == pytest.approx(math.exp(-((2 * math.pi * nm / NM) ** 2)), abs=2e-3)


@pytest.mark.parametrize("index", [1.0, 1.333, 1.515])
@pytest.mark.parametrize("fraction", [1e-6, 0.1, 0.75, 0.999, 1.0])
def test_collection_is_the_solid_angle_of_the_cone(fraction: float, index: float) -> None:
    solid_angle, _ = integrate.quad(lambda theta: 2 * math.pi * math.sin(theta), 0, math.asin(fraction), epsabs=0)
    assert Objective(fraction * index, index).collected() == pytest.approx(solid_angle / (4 * math.pi), rel=1e-9)
