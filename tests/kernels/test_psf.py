"""Laws of the diffraction tables, their Hankel transforms and the instruments' responses."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import psf
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import interpolate, ndimage, special

from simexm import compiled
from simexm.kernels.diffraction import even_spline, hankel, tables
from simexm.kernels.diffraction import response as psf_response
from simexm.kernels.diffraction import special as psf_special
from simexm.kernels.diffraction.objective import Model, Objective
from simexm.kernels.diffraction.response import Response

Array = NDArray[np.float64]
Table = Callable[[Array, Array, float, Objective], Array]
EX_NM, EM_NM, NA, INDEX = 488.0, 525.0, 1.15, 1.33
LENS, BEAM = Objective(NA, INDEX), Objective(NA, INDEX, fill=1.0)


def uniform(end: float, spacing: float) -> Array:
    return np.arange(0.0, end + 0.5 * spacing, spacing, dtype=np.float64)


def field_integrals(z: float, r: float, wavelength: float, o: Objective, excitation: bool) -> float:
    """The defining integrals over the angle theta by an unrelated, much finer rule."""
    alpha = math.asin(o.aperture / o.gel)
    nodes, weights = np.polynomial.legendre.leggauss(32)
    panel = alpha / 60
    theta = (np.arange(60)[:, None] * panel + panel * (nodes + 1) / 2).ravel()
    weights = np.tile(panel * weights / 2, 60)
    s, c, k = np.sin(theta), np.cos(theta), 2 * math.pi * o.gel / wavelength
    pupil = np.exp(-((s * o.gel / o.aperture / o.fill) ** 2)) if excitation else np.ones_like(c)
    vectorial = o.model == "vectorial"
    a = pupil * (np.sqrt(c) if vectorial or excitation else 1)
    wave = weights * s * a * np.exp(1j * k * z * c)
    k0, k1, k2 = (abs((wave * g * special.jv(m, k * r * s)).sum()) ** 2 for m, g in enumerate((1 + c, s, 1 - c)))
    if vectorial:
        plane = (weights * s * 4 * pupil**2 * (c if excitation else 1)).sum()
        return float((k0 + 2 * k1 + k2) * k**2 / (2 * math.pi) / plane)
    plane = (weights * s * a**2 * (6 - 2 * c**2) / c).sum()
    return float((k0 + 4 * k1 + k2) * k**2 / (2 * math.pi) / plane)


def images_of_dipoles(z: float, r: Array, wavelength: float, o: Objective) -> Array:
    """Mean image of dipoles along x, y and z, from the far fields that a tube lens focuses, by sums over the pupil's plane."""
    k, across = 2 * math.pi * o.gel / wavelength, 1000
    step = 2 * o.aperture / o.gel / across
    sx = (np.arange(across) + 0.5) * step - o.aperture / o.gel
    sy = sx[:, None]
    sine2 = sx**2 + sy**2
    inside = sine2 < (o.aperture / o.gel) ** 2
    c = np.sqrt(np.where(inside, 1 - sine2, 1.0))
    sine = np.sqrt(np.where(inside, sine2, 1.0))
    cos_phi, sin_phi = sx / sine, sy / sine
    # a dipole's far field has the components p_theta and p_phi, which the lens turns into the radial and azimuthal ones
    thetas = {"x": c * cos_phi, "y": c * sin_phi, "z": -sine}
    phis = {"x": -sin_phi, "y": cos_phi, "z": 0 * sine}
    wave = inside / np.sqrt(c) * np.exp(1j * k * z * c)  # 1 / sqrt(c): conservation of energy in the aplanatic lens
    fan = np.exp(1j * k * r[:, None] * sx)
    total = np.zeros(r.size)
    for axis in "xyz":
        for field in (thetas[axis] * cos_phi - phis[axis] * sin_phi, thetas[axis] * sin_phi + phis[axis] * cos_phi):
            total += abs(fan @ (wave * field).sum(axis=0)) ** 2
    # energy of all three dipoles through the lens: int (p_theta^2 + p_phi^2) sin dtheta dphi = 2 * 2 pi (1 - cos alpha)
    cap = 4 * math.pi * (1 - math.sqrt(1 - (o.aperture / o.gel) ** 2))
    return total * step**4 * k**2 / (2 * math.pi) ** 2 / cap


class TestSpecial:
    @settings(deadline=None)
    @given(st.floats(0, 1e4))
    def test_functions_agree_with_scipy(self, x: float) -> None:
        j0, j1 = psf_special.bessel_01(x, psf_special.bessel_table())
        assert (j0, j1) == pytest.approx((special.j0(x), special.j1(x)), abs=2e-10)
        assert psf_special.sin_cos(x) == pytest.approx((math.sin(x), math.cos(x)), abs=1e-15)
        assert psf_special.sin_cos(-x) == pytest.approx((-math.sin(x), math.cos(x)), abs=1e-15)

    def test_sinc_is_that_of_numpy(self) -> None:
        x = np.concatenate([np.linspace(-40, 40, 1001), [0.0, 1e-300, 1e-9]]).reshape(4, -1)
        np.testing.assert_allclose(psf_special.sinc_array(x), np.sinc(x), rtol=0, atol=2e-15)

    @pytest.mark.parametrize("n", [1, 2, 20, 301])
    def test_gauss_legendre(self, n: int) -> None:
        nodes, weights = psf_special.gauss_legendre(n)
        expected = np.polynomial.legendre.leggauss(n)
        np.testing.assert_allclose(nodes[::-1], expected[0], atol=1e-14)
        np.testing.assert_allclose(weights[::-1], expected[1], atol=1e-13)


class TestForms:
    """Whether NumPy or compiled code computes a table, it has the same bits."""

    @staticmethod
    def both(monkeypatch: pytest.MonkeyPatch, compute: Callable[[], Array]) -> tuple[Array, Array]:
        forms = []
        for pays in (False, True):
            monkeypatch.setattr(compiled, "pays", lambda operations, pays=pays: pays)
            psf_special.gauss_legendre_rules.cache_clear()
            psf_response.disc_matrix.cache_clear()
            forms.append(compute())
        return forms[0], forms[1]

    @pytest.mark.parametrize("na", [0.2, 0.8, 1.15, 1.3])
    @pytest.mark.parametrize("depth_nm", [0.0, 700.0, 20_000.0])
    @pytest.mark.parametrize("radius_nm", [170.0, 2010.0])
    @pytest.mark.parametrize("table", [tables.excitation_table, tables.emission_table])
    def test_of_the_tables(
        self, na: float, depth_nm: float, radius_nm: float, table: Table, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        z, r = np.linspace(0.0, depth_nm, 7), uniform(radius_nm, 10.0)
        np.testing.assert_array_equal(
            *self.both(monkeypatch, lambda: table(z, r, EM_NM, Objective(na, INDEX, fill=1.0)))
        )

    @pytest.mark.parametrize("size", [17, 66, 300])
    def test_of_what_is_made_of_them(self, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
        table, r = np.random.default_rng(size).normal(size=(5, size)), np.arange(float(size))
        k = uniform(2.0, 0.004)
        np.testing.assert_array_equal(*self.both(monkeypatch, lambda: hankel.radial_spectrum(table, r, k)))
        for radius in (0.3, 4.0, 7.9):
            if psf_response.pinhole_margin(radius, 1.0) < size:
                np.testing.assert_array_equal(
                    *self.both(monkeypatch, lambda: psf_response.pinhole_share(table, 1.0, radius))  # noqa: B023
                )

    @pytest.mark.parametrize("end", [1.0, 30.0, 9e4])
    def test_of_the_functions(self, end: float) -> None:
        x = np.concatenate([np.linspace(0.0, end, 999), [24.999999, 25.0]])
        for array, scalar in (
            (psf_special.sin_cos_array(x), [psf_special.sin_cos(v) for v in x]),
            (psf_special.bessel_01_array(x), [psf_special.bessel_01(v, psf_special.bessel_table()) for v in x]),
        ):
            np.testing.assert_array_equal(np.stack(array, axis=1), scalar)


class TestEvenSpline:
    @pytest.mark.parametrize("n", [3, 4, 5, 17, 400])
    def test_it_is_that_of_scipy(self, n: int) -> None:
        x = np.arange(n, dtype=np.float64) * 37.0
        y = np.cos(x / x[-1]) / (1 + (x / x[-1] * 2.5) ** 2)
        theirs = interpolate.CubicSpline(np.concatenate((-x[:0:-1], x)), np.concatenate((y[:0:-1], y)))
        assert even_spline.integral(x, y) == pytest.approx(float(theirs.integrate(0.0, x[-1])), rel=1e-14)
        crossings = theirs.solve(0.5 * y[0], extrapolate=False)
        assert even_spline.half_width(x, y) == pytest.approx(crossings[crossings > 0].min(), rel=1e-14)

    def test_what_stays_high_has_no_half_width(self) -> None:
        assert even_spline.half_width(np.arange(9.0), np.linspace(1.0, 0.6, 9)) is None


class TestTables:
    @settings(max_examples=60, deadline=None)
    @given(
        st.floats(0, 40000), st.floats(0, 70000), st.floats(0.2, 1.25), st.booleans(),
        st.sampled_from([0.5, 1.0, math.inf]), st.sampled_from(["vectorial", "psf"]),
    )  # fmt: skip
    def test_tables_are_the_field_integrals(
        self, z: float, r: float, na: float, excitation: bool, fill: float, model: Model
    ) -> None:
        table = tables.excitation_table if excitation else tables.emission_table
        lens = Objective(na, INDEX, fill=fill, model=model)
        value = table(np.array([z]), np.array([r]), EM_NM, lens)[0, 0]
        expected = field_integrals(z, r, EM_NM, lens, excitation)
        peak = field_integrals(0.0, 0.0, EM_NM, lens, excitation)
        assert value == pytest.approx(expected, rel=1e-6, abs=1e-12 * peak)

    @pytest.mark.parametrize(("na", "n"), [(0.8, 1.333), (1.15, 1.333), (1.4, 1.515)])
    @pytest.mark.parametrize("z", [0.0, 600.0, 3000.0])
    def test_a_turning_dye_is_three_dipoles(self, na: float, n: float, z: float) -> None:
        lens, r = Objective(na, n), uniform(2000.0, 20.0)
        peak = tables.emission_table(np.zeros(1), np.zeros(1), EM_NM, lens)[0, 0]
        ours = tables.emission_table(np.array([z]), r, EM_NM, lens)[0]
        np.testing.assert_allclose(ours, images_of_dipoles(z, r, EM_NM, lens), rtol=0, atol=5e-4 * peak)

    @pytest.mark.parametrize(
        ("na", "n", "widefield", "confocal", "share", "uniform_fluence", "filled_fluence"),
        [
            (0.8, 1.333, (344.3, 1730), (340, 1360), 0.819, 1.111, 1.073),
            (1.0, 1.333, (281.3, 1027), (274, 811), 0.803, 1.204, 1.130),
            (1.15, 1.333, (250.5, 710.9), (241, 564), 0.780, 1.328, 1.200),
            (1.2, 1.333, (242.6, 626.8), (232, 498), 0.768, 1.393, 1.234),
            (1.4, 1.515, (209.6, 507.2), (199, 404), 0.758, 1.447, 1.261),
        ],
    )  # fmt: skip
    def test_widths_and_light_are_those_of_an_independent_model(
        self, na: float, n: float, widefield: tuple[float, float], confocal: tuple[float, float], share: float,
        uniform_fluence: float, filled_fluence: float,
    ) -> None:  # fmt: skip
        """520 nm, excited at 488 nm with a fill of 1, pinhole 1.22 * 520 nm / NA: quadratures by another program."""
        lens, beam = Objective(na, n), Objective(na, n, fill=1.0)
        z, r = uniform(2000.0, 20.0), uniform(800.0, 10.0)
        emission = tables.emission_table(z, r, 520.0, lens)
        passed = psf_response.pinhole_table(z, r, 520.0, lens, 0.61 * 520.0 / na)
        both = (emission, tables.excitation_table(z, r, 488.0, beam) * passed)
        for table, (lateral, axial) in zip(both, (widefield, confocal), strict=True):
            assert psf_response.fwhm_lateral_nm(Response(z, r, table)) == pytest.approx(lateral, rel=0.005)
            assert psf_response.fwhm_axial_nm(Response(z, r, table)) == pytest.approx(axial, rel=0.005)
        assert passed[0, 0] == pytest.approx(share, rel=0.005)
        assert tables.plane_fluence(lens) == pytest.approx(uniform_fluence, rel=0.005)
        assert tables.plane_fluence(lens) == pytest.approx(2 / (1 + lens.least_cosine), rel=1e-9)
        assert tables.plane_fluence(beam) == pytest.approx(filled_fluence, rel=0.005)

    @pytest.mark.parametrize("table", [tables.excitation_table, tables.emission_table])
    def test_at_low_aperture_the_peak_is_that_of_a_paraxial_lens(self, table: Table) -> None:
        peak = table(np.zeros(1), np.zeros(1), EM_NM, Objective(0.02, 1.0))[0, 0]
        assert peak == pytest.approx(math.pi * (0.02 / EM_NM) ** 2, rel=5e-4)

    @pytest.mark.parametrize(
        ("kind", "table", "keyword"),
        [(psf.EXCITATION, tables.excitation_table, "ex_wavelen"), (psf.EMISSION, tables.emission_table, "em_wavelen")],
    )
    @pytest.mark.parametrize(("na", "n"), [(0.4, 1.33), (1.15, 1.33), (1.4, 1.515)])
    def test_near_focus_the_package_agrees(
        self, kind: psf.PsfType, table: Table, keyword: str, na: float, n: float
    ) -> None:
        z, r = uniform(500.0, 100.0), uniform(15 * EM_NM / na, 10.0)
        wavelength: dict[str, Any] = {keyword: EM_NM}
        package = psf.PSF(
            psf.ISOTROPIC | kind,
            shape=(z.size, r.size),
            dims=(z[-1] / 1e3, r[-1] / 1e3),  # spacing = dims / (shape - 1)
            num_aperture=na,
            refr_index=n,
            **wavelength,
        ).data
        ours = table(z, r, EM_NM, Objective(na, n, fill=1.0, model="psf"))
        # the package interpolates Bessel functions linearly in steps of 0.1, an error of up to 6e-4 of an amplitude
        np.testing.assert_allclose(package, ours / ours[0, 0], atol=1.3e-3)

    @pytest.mark.parametrize("lens", [LENS, BEAM, LENS._replace(model="psf"), BEAM._replace(model="psf")])
    @pytest.mark.parametrize("table", [tables.excitation_table, tables.emission_table])
    def test_every_plane_holds_the_same_energy(self, table: Table, lens: Objective) -> None:
        z, r = uniform(4000.0, 1000.0), uniform(60000.0, 10.0)
        energy = hankel.plane_energy(table(z, r, EM_NM, lens), r)
        whole = tables.plane_fluence(lens) if table is tables.excitation_table else 1.0
        # what is missing lies beyond the table: rings that fall as 1 / r^3, so their energy as 1 / r
        half = hankel.plane_energy(table(z, r[: r.size // 2 + 1], EM_NM, lens), r[: r.size // 2 + 1])
        assert np.all(energy < whole)
        np.testing.assert_allclose(2 * energy - half, whole, atol=5e-4)

    @pytest.mark.parametrize(("range_nm", "na"), [(500.0, 0.5), (500.0, 1.15), (10_000.0, 0.5), (10_000.0, 1.15)])
    def test_the_radius_holds_its_share_of_the_light_and_is_no_larger(self, range_nm: float, na: float) -> None:
        radius = tables.holding_radius_nm(range_nm, EM_NM, Objective(na, INDEX), 0.995)
        least = tables.lateral_radius_nm(range_nm, EM_NM, Objective(na, INDEX))
        z = np.array([0.0, range_nm])
        held = [
            hankel.plane_energy(tables.emission_table(z, r, EM_NM, Objective(na, INDEX)), r).min()
            for r in (uniform(radius, 10.0), uniform(radius - EM_NM / na / 2, 10.0))
        ]
        assert radius > least
        assert held[0] == pytest.approx(0.995, abs=2e-4)
        assert held[1] < 0.995
        assert tables.holding_radius_nm(range_nm, EM_NM, Objective(na, INDEX), 0.5) == pytest.approx(
            least, abs=EM_NM / na / 12
        )

    @pytest.mark.parametrize("na", [0.1, 0.3, 0.5])
    def test_widefield_is_as_wide_as_theory_has_it(self, na: float) -> None:
        z, r = uniform(2.0 * EM_NM / na**2, EM_NM / na**2 / 50), uniform(2 * EM_NM / na, 5.0)
        response = Response(z, r, tables.emission_table(z, r, EM_NM, Objective(na, 1.0)))
        assert psf_response.fwhm_lateral_nm(response) == pytest.approx(0.51 * EM_NM / na, rel=0.05)
        # on the axis sinc^2 of half the phase between the marginal and the central ray (Born & Wolf 8.8.2)
        assert psf_response.fwhm_axial_nm(response) == pytest.approx(
            0.886 * EM_NM / (1 - math.sqrt(1 - na**2)), rel=0.05
        )

    def test_aperture_beyond_the_index_is_refused(self) -> None:
        with pytest.raises(ValueError, match="numerical aperture"):
            tables.emission_table(np.zeros(1), np.zeros(1), EM_NM, Objective(1.4, 1.33))


class TestHankel:
    @settings(deadline=None)
    @given(st.floats(90, 400), st.floats(0, 0.01))
    def test_gaussian(self, sigma: float, k: float) -> None:
        r = uniform(8 * sigma, 10.0)
        gaussian = np.exp(-(r**2) / (2 * sigma**2))[None] / (2 * math.pi * sigma**2)
        assert hankel.radial_spectrum(gaussian, r, np.array([k]))[0, 0] == pytest.approx(
            math.exp(-2 * (math.pi * sigma * k) ** 2), abs=1e-7
        )
        assert hankel.plane_energy(gaussian, r)[0] == pytest.approx(1.0, abs=1e-9)

    def test_a_hard_end_is_part_of_the_kernel(self) -> None:
        """A disc has the spectrum R J1(2 pi k R) / k."""
        r, k = uniform(3000.0, 10.0), uniform(0.005, 1e-4)[1:]
        spectrum = hankel.radial_spectrum(np.ones((1, r.size)), r, k)[0]
        np.testing.assert_allclose(spectrum, 3000 * special.j1(2 * math.pi * k * 3000) / k, atol=1e-6 * math.pi * 9e6)

    def test_spectrum_is_the_optical_transfer_function(self) -> None:
        """It ends at 2 NA / wavelength and is as large at 0 as the plane's energy."""
        z, r = uniform(1000.0, 500.0), uniform(40000.0, 10.0)
        table = tables.emission_table(z, r, EM_NM, LENS)
        k = np.array([0.0, 2.05 * NA / EM_NM, 3 * NA / EM_NM])
        spectrum = hankel.radial_spectrum(table, r, k)
        np.testing.assert_allclose(spectrum[:, 0], hankel.plane_energy(table, r), rtol=1e-12)
        assert np.abs(spectrum[:, 1:]).max() < 2e-5

    def test_same_value_whatever_else_is_asked(self) -> None:
        r = uniform(2990.0, 10.0)
        table = tables.emission_table(uniform(600.0, 200.0), r, EM_NM, LENS)
        k = uniform(0.005, 0.00003)
        whole = hankel.radial_spectrum(table, r, k)
        np.testing.assert_array_equal(hankel.radial_spectrum(table[1:3], r, k[70:90]), whole[1:3, 70:90])

    def test_uneven_radii_are_refused(self) -> None:
        r = uniform(200.0, 10.0) ** 1.5
        with pytest.raises(ValueError, match="evenly spaced"):
            hankel.plane_energy(np.ones((1, r.size)), r)


class TestPinhole:
    @pytest.mark.parametrize("radius", [60.0, 283.0, 900.0])
    def test_disc_convolution_in_two_dimensions(self, radius: float) -> None:
        spacing = 10.0
        r = uniform(4000.0, spacing)
        emission = tables.emission_table(uniform(900.0, 300.0), r, EM_NM, LENS)
        share = psf_response.pinhole_share(emission, spacing, radius)
        # sums over a fine Cartesian grid in the disc about points on the axis, each cell by its share inside the disc
        fine, grid = 10, np.arange(-math.ceil(radius / spacing), math.ceil(radius / spacing) + 1) * spacing
        offset = (np.arange(fine) + 0.5) / fine * spacing - spacing / 2
        inside = ((grid[:, None] + offset)[:, :, None, None] ** 2 + (grid[:, None] + offset) ** 2 < radius**2).mean(
            axis=(1, 3)
        )
        for row, values in enumerate(emission):
            for i in (0, 7, 30, 120):
                distance = np.hypot(grid[:, None], grid + i * spacing) / spacing
                picked = ndimage.map_coordinates(values, [distance.ravel()], order=3, mode="mirror")
                direct = (picked.reshape(inside.shape) * inside).sum() * spacing**2
                assert share[row, i] == pytest.approx(direct, abs=2e-4)

    def test_between_zero_and_one_and_wider_passes_more(self) -> None:
        z, r = uniform(2000.0, 250.0), uniform(2000.0, 10.0)
        shares = [psf_response.pinhole_table(z, r, EM_NM, LENS, a) for a in (50.0, 150.0, 283.0, 800.0, 3000.0)]
        assert shares[0].min() >= 0
        assert shares[-1].max() <= 1
        for narrow, wide in pairwise(shares):
            assert np.all(wide > narrow)

    def test_a_tiny_pinhole_samples_and_a_wide_one_opens(self) -> None:
        z, r = uniform(900.0, 300.0), uniform(1000.0, 10.0)
        emission = tables.emission_table(z, r, EM_NM, LENS)
        tiny = psf_response.pinhole_table(z, r, EM_NM, LENS, 5.0)
        np.testing.assert_allclose(tiny / (math.pi * 25.0), emission, atol=1e-3 * emission.max())
        excitation = tables.excitation_table(z, r, EX_NM, BEAM)
        wide = psf_response.pinhole_table(z, r, EM_NM, LENS, 20000.0)
        np.testing.assert_allclose(excitation * wide, excitation, atol=0.01 * excitation.max())

    def test_on_the_axis_it_is_the_encircled_energy(self) -> None:
        z, r = uniform(1500.0, 500.0), uniform(400.0, 10.0)
        share = psf_response.pinhole_table(z, r, EM_NM, LENS, 300.0)[:, 0]
        disc = uniform(300.0, 10.0)
        encircled = hankel.plane_energy(tables.emission_table(z, disc, EM_NM, LENS), disc)
        np.testing.assert_allclose(share, encircled, atol=1e-6)

    def test_too_short_a_table_is_refused(self) -> None:
        with pytest.raises(ValueError, match="pinhole"):
            psf_response.pinhole_share(np.ones((1, 20)), 10.0, 300.0)


class TestResponse:
    def test_confocal_is_narrower_than_either_of_its_factors(self) -> None:
        z, r = uniform(3000.0, 100.0), uniform(2000.0, 10.0)
        excitation = tables.excitation_table(z, r, EX_NM, BEAM)
        widths = []
        for radius in (10.0, 0.61 * EM_NM / NA, 5000.0):
            share = psf_response.pinhole_table(z, r, EM_NM, LENS, radius)
            response = Response(z, r, excitation * share)
            widths.append((psf_response.fwhm_lateral_nm(response), psf_response.fwhm_axial_nm(response)))
        open_pinhole = Response(z, r, excitation)
        limits = psf_response.fwhm_lateral_nm(open_pinhole), psf_response.fwhm_axial_nm(open_pinhole)
        for axis in (0, 1):
            assert 0.6 * limits[axis] < widths[0][axis] < widths[1][axis] < widths[2][axis] <= 1.001 * limits[axis]

    def test_light_sheet_profile(self) -> None:
        profile = psf_response.light_sheet_profile(np.array([0.0, 1000.0, 1e6]), 1000.0)
        np.testing.assert_allclose(profile, [1.0, math.exp(-2), 0.0], rtol=1e-14)

    def test_shapes_must_agree(self) -> None:
        with pytest.raises(ValueError, match="depths"):
            Response(np.zeros(3), np.zeros(4), np.zeros((4, 3)))

    def test_a_profile_without_half_maximum_is_refused(self) -> None:
        response = Response(uniform(1000.0, 100.0), uniform(50.0, 5.0), np.ones((11, 11)))
        with pytest.raises(ValueError, match="half"):
            psf_response.fwhm_axial_nm(response)


class TestLeftOut:
    def test_widefield_is_one_minus_range_over_depth(self) -> None:
        z = uniform(4000.0, 100.0)
        assert psf_response.left_out_share(np.ones(z.size), z, 20000.0, "constant") == pytest.approx(0.8)
        assert psf_response.left_out_share(np.ones(z.size), z, 4000.0, "constant") == 0.0

    def test_a_scanner_s_tail_is_foretold_from_a_shorter_table(self) -> None:
        z = uniform(20000.0, 100.0)
        r = uniform(tables.lateral_radius_nm(z[-1], EM_NM, LENS), 20.0)
        share = psf_response.pinhole_table(z, r, EM_NM, LENS, 0.61 * EM_NM / NA)
        energy = hankel.plane_energy(tables.excitation_table(z, r, EX_NM, BEAM) * share, r)
        total = float(np.trapezoid(energy, z))
        for size in (31, 61):
            known = 1 - float(np.trapezoid(energy[:size], z[:size])) / total
            told = psf_response.left_out_share(energy[:size], z[:size], z[-1], "inverse_square")
            assert told == pytest.approx(known, abs=0.1 * known)
