"""The blur of the model of 2017 is exact, whatever the tile and however many photons."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from simexm.legacy2017.kernels import blur
from simexm.legacy2017.kernels import psf as kernels

Volume = NDArray[np.int64]


def even_volume(rng: np.random.Generator, broad: bool) -> NDArray[np.float64]:
    """A random kernel, even along each axis: falling off from its peak, or of the same height all over."""
    quarter = rng.uniform(size=(16, 16, 16))
    if not broad:
        quarter *= np.exp(-np.indices(quarter.shape).sum(axis=0) / 2)
    quarter[0, 0, 0] = 1
    folded = [np.abs(np.arange(-15, 16))] * 3
    return quarter[np.ix_(*folded)]


def direct(volume: Volume, kernel: kernels.Kernel, z: int, y: int, x: int) -> int:
    """One blurred voxel in Python's whole numbers, rounded half to even."""
    padded = np.pad(volume, kernels.REACH, mode="reflect")
    taps = kernel.taps[np.abs(np.arange(-15, 16))]
    around = padded[z : z + 31, y : y + 31, x : x + 31]
    total = int((around.astype(object) * taps.astype(object)).sum())
    unit = 1 << kernel.bits
    whole, rest = divmod(total, unit)
    return whole + (2 * rest > unit or (2 * rest == unit and whole % 2 == 1))


def whole_image(volume: Volume, kernel: kernels.Kernel, tile: tuple[int, int, int], step: int) -> Volume:
    """The image in tiles of (kept planes, rows, columns)."""
    depth, ny, nx = volume.shape
    kept = range(0, depth, step)
    out = np.full((len(kept), ny, nx), -1, np.int64)
    for y in range(0, ny, tile[1]):
        for x in range(0, nx, tile[2]):
            y1, x1 = min(y + tile[1], ny), min(x + tile[2], nx)
            one = blur.Blur(kernel, (y, y1, ny), (x, x1, nx))
            (a, b), (c, d) = one.source
            for k in range(0, len(kept), tile[0]):
                for z, plane in one.planes(lambda z: volume[z, a:b, c:d], depth, kept[k : k + tile[0]]):  # noqa: B023
                    out[z // step, y:y1, x:x1] = plane
    return out


@given(start=st.integers(-40, 20), length=st.integers(1, 60), size=st.integers(1, 20))
def test_reflection_is_that_of_numpy(start: int, length: int, size: int) -> None:
    padded = np.pad(np.arange(size), 100, mode="reflect")
    places = blur.reflected(start, start + length, size)
    np.testing.assert_array_equal(places, padded[100 + start : 100 + start + length])


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 60), st.integers(1, 40), st.integers(1, 40)),
    brightest=st.sampled_from([0, 3, 500, 10**5, 10**9]),
    broad=st.booleans(),
    step=st.integers(1, 5),
    tile=st.tuples(st.integers(1, 20), st.integers(7, 40), st.integers(7, 40)),
    seed=st.integers(0, 2**32),
)
def test_every_tile_gives_the_exact_sum(
    shape: tuple[int, int, int], brightest: int, broad: bool, step: int, tile: tuple[int, int, int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    volume = rng.integers(0, brightest, shape, endpoint=True) * (rng.uniform(size=shape) < 0.3)
    volume[rng.integers(shape[0])] = 0
    kernel = kernels.quantised(even_volume(rng, broad))
    image = whole_image(volume, kernel, tile, step)
    np.testing.assert_array_equal(image, whole_image(volume, kernel, shape, step))
    for k, y, x in [rng.integers(image.shape) for _ in range(6)]:
        assert image[k, y, x] == direct(volume, kernel, k * step, y, x)


def test_halves_are_rounded_to_even() -> None:
    volume = np.zeros((31, 31, 31))
    volume[15, 15, 15] = 1
    volume[15, 15, [14, 16]] = 0.5
    photons = np.zeros((40, 40, 40), np.int64)
    photons[20, 20, [10, 20, 30]] = 1, 3, 5
    image = whole_image(photons, kernels.quantised(volume), (40, 40, 40), 1)
    assert [image[20, 20, x] for x in (9, 19, 29)] == [0, 2, 2]


def test_too_many_photons_are_refused() -> None:
    kernel = kernels.quantised(even_volume(np.random.default_rng(0), True))
    with pytest.raises(ValueError, match="photons in one voxel"):
        whole_image(np.full((2, 8, 8), 2**40), kernel, (2, 8, 8), 1)


@pytest.mark.parametrize("microscope", ["confocal", "widefield", "two photon"])
def test_a_rounded_kernel_is_the_packages(microscope: str) -> None:
    excitation = 900.0 if microscope == "two photon" else 488.0
    volume = kernels.kernel_volume(microscope, (40, 32, 32), 4.0, excitation, 525.0, 1.15, 1.33, 1.25)  # type: ignore[arg-type]
    kernel = kernels.quantised(volume)
    assert volume.shape == (31, 31, 31)
    assert volume.max() == volume[15, 15, 15] == 1
    assert kernel.total / 2**kernel.bits == pytest.approx(volume.sum(), rel=1e-5)
    assert np.abs(kernel.taps / 2**kernel.bits - volume[15:]).max() <= 2.0 ** -(kernel.bits + 1)


def test_the_microscopes_differ() -> None:
    given = (40.0, 32.0, 32.0), 4.0, 488.0, 525.0, 1.15, 1.33
    confocal = kernels.kernel_volume("confocal", *given, 0.3).sum()
    open_pinhole = kernels.kernel_volume("confocal", *given, 1.25).sum()
    widefield = kernels.kernel_volume("widefield", *given, 1.25).sum()
    assert confocal < open_pinhole < widefield


def test_a_kernel_that_is_none_is_refused() -> None:
    volume = even_volume(np.random.default_rng(0), False)
    volume[0, 0, 0] += 1e-9
    for wrong in (volume, volume[1:], -volume, volume * np.nan):
        with pytest.raises(ValueError, match="a kernel has 31 samples"):
            kernels.quantised(wrong)
    with pytest.raises(ValueError, match="beyond the emission"):
        kernels.kernel_volume("widefield", (40, 32, 32), 4.0, 530.0, 525.0, 1.15, 1.33, 1.25)
