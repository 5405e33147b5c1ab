"""Laws of photons, background and camera of the model of 2017, and of all of it in tiles."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from simexm.geometry.grid import Box
from simexm.kernels.labels.regions import CYTOSOL, MEMBRANE
from simexm.legacy2017.kernels import frame as frames
from simexm.legacy2017.kernels import light
from simexm.legacy2017.kernels import psf as kernels
from simexm.random import derive_key
from tests.legacy2017.build import Channel, LayerSpec, Model, blobs

KEY = derive_key(1, "test")


@pytest.mark.parametrize(
    ("voxel", "pixel", "plane", "expected"),
    [
        ((40, 32, 32), 6500.0, 500.0, frames.Frame(3, 1, 1)),
        ((40, 16, 16), 6500.0, 160.0, frames.Frame(1, 3, 1)),  # 2.54
        ((40, 10, 10), 4000.0, 400.0, frames.Frame(2, 2, 1)),  # 2.5 both, half to even
        ((500, 125, 125), 13000.0, 2000.0, frames.Frame(1, 1, 2)),  # 0.65
        ((40, 40, 40), 4800.0, 10.0, frames.Frame(1, 1, 1)),  # 0.75
    ],
)
def test_spacings_are_rounded_to_voxels(
    voxel: tuple[float, float, float], pixel: float, plane: float, expected: frames.Frame
) -> None:
    assert frames.frame(voxel, 4.0, pixel, 40.0, plane) == expected


def test_shapes_are_rounded_up() -> None:
    assert frames.Frame(3, 4, 1).shape((10, 9, 8)) == (4, 3, 2)
    assert frames.Frame(1, 1, 2).shape((10, 9, 8)) == (10, 18, 16)


def test_all_dyes_of_a_voxel_share_one_draw() -> None:
    dyes = np.zeros((200, 200), np.int32)
    dyes[::2] = 7
    photons = light.photons(dyes, (5, 3, 2), 4.2, KEY)
    assert not photons[1::2].any()
    draws = photons[::2] // 7
    np.testing.assert_array_equal(draws * 7, photons[::2])
    assert draws.mean() == pytest.approx(4.2, abs=5 * np.sqrt(4.2 / draws.size))
    assert draws.var() == pytest.approx(4.2, rel=0.06)
    np.testing.assert_array_equal(light.photons(dyes[50:90, 7:], (5, 53, 9), 4.2, KEY), photons[50:90, 7:])


def test_background_falls_off_from_the_middle() -> None:
    out = np.zeros((60, 80), np.int64)
    falloff = light.vignette(60, 0, 60), light.vignette(80, 0, 80)
    for z in range(200):
        light.add_background(100.0, *falloff, (z, 0, 0), KEY, out)
    r, c = np.indices(out.shape)
    expected = 100 * np.exp(-((r - 30) ** 2 / (0.5 * 60**2) + (c - 40) ** 2 / (0.5 * 80**2)))
    np.testing.assert_allclose(out / 200, expected, atol=5 * 10 / np.sqrt(200))
    assert out.mean() / 200 == pytest.approx(expected.mean(), rel=2e-3)


def test_bins_keep_the_sum_and_voxels_are_thrown_by_a_poisson_number() -> None:
    image = np.arange(1, 64, dtype=np.int64).reshape(7, 9)
    binned = frames.sample(image, (0, 0, 0), (0, 0, 7, 9), frames.Frame(1, 4, 1), (0, 2), (0, 3), KEY)
    assert binned.sum() == image.sum()
    assert binned[0, 0] == image[:4, :4].sum()
    assert binned[1, 2] == image[4:, 8:].sum()
    one = np.zeros((60, 60), np.int64)
    one[10, 20] = 5
    places = []
    for z in range(1500):
        thrown = frames.sample(one, (z, 0, 0), (0, 0, 60, 60), frames.Frame(1, 1, 3), (0, 180), (0, 180), KEY)
        assert thrown.sum() == 5
        places.append(np.argwhere(thrown)[0] - (30, 60))
    for steps in np.array(places).T:
        seen = np.bincount(np.minimum(steps, 8), minlength=9)
        share = np.append(stats.poisson.pmf(np.arange(8), 3), stats.poisson.sf(7, 3))
        assert stats.chisquare(seen, share * len(places)).pvalue > 1e-4
    assert abs(np.corrcoef(np.array(places).T)[0, 1]) < 0.12


def test_what_would_leave_the_frame_stays_on_its_last_pixels() -> None:
    image = np.full((5, 5), 3, np.int64)
    thrown = frames.sample(image, (0, 0, 0), (0, 0, 5, 5), frames.Frame(1, 1, 4), (0, 20), (0, 20), KEY)
    assert thrown.sum() == image.sum()


LABELS = blobs((44, 50, 46), 9, 2)
CROP = Box((3, 5, 4), (43, 47, 44))


def model(camera: frames.Frame, in_slice: bool, amp: float) -> Model:
    kernel = kernels.quantised(kernels.kernel_volume("confocal", (40, 32, 32), 4.0, 488.0, 525.0, 1.15, 1.33, 1.25))
    other = kernels.quantised(kernels.kernel_volume("two photon", (40, 32, 32), 4.0, 800.0, 669.0, 1.0, 1.33, 1.25))
    layers = [
        LayerSpec("a", "ATTO488", MEMBRANE, 1e-5, 0.3, amp),
        LayerSpec("b", "ATTO488", CYTOSOL, 2e-6, 0.0, 1.5),
        LayerSpec("c", "ATTO647N", CYTOSOL, 1e-5, 1.0, 1.0),
    ]
    channels = [
        Channel("blue", {"ATTO488": (5.6, kernel)}),
        Channel("red", {"ATTO488": (0.4, kernel), "ATTO647N": (3.0, other)}),
    ]
    return Model(LABELS, CROP, (40, 32, 32), in_slice, layers, channels, camera, 3.0)


@settings(max_examples=8, deadline=None)
@given(
    camera=st.sampled_from(
        [frames.Frame(1, 1, 1), frames.Frame(3, 2, 1), frames.Frame(2, 5, 1), frames.Frame(4, 1, 2)]
    ),
    in_slice=st.booleans(),
    amp=st.sampled_from([1.0, 5e4]),
    tile=st.tuples(st.integers(9, 40), st.integers(15, 60), st.integers(15, 60)),
)
def test_tiles_of_any_size_give_the_same_image(
    camera: frames.Frame, in_slice: bool, amp: float, tile: tuple[int, int, int]
) -> None:
    one = model(camera, in_slice, amp)
    whole = one.image(seed=3)
    assert whole.min() >= 0
    assert whole.max() > 100
    np.testing.assert_array_equal(one.image(3, tile), whole)
