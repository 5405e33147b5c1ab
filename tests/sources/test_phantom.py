"""Laws of the phantom: a pure function of seed and place, and tissue such as an electron microscope sees."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from simexm.errors import SourceError
from simexm.geometry.grid import Box, Triple
from simexm.sources.phantom import Phantom, PhantomVolume

SIDE = 10**6
VOXEL_UM3 = 0.04 * 0.032 * 0.032


@pytest.fixture(scope="module")
def volume() -> PhantomVolume:
    return Phantom(shape=(SIDE, SIDE, SIDE)).open()


@pytest.fixture(scope="module")
def tissue(volume: PhantomVolume) -> NDArray[np.uint64]:
    """8 x 8 x 8 um of neuropil."""
    return volume.read(Box.at((5000, 5000, 5000), (200, 250, 250)))


def kind(ids: NDArray[np.uint64]) -> NDArray[np.uint64]:
    return ids >> np.uint64(58)


corner = st.tuples(*[st.sampled_from([0, 1, 12_345, 500_000, 999_000, 999_960])] * 3)
cut = st.tuples(st.integers(1, 11), st.integers(1, 19), st.integers(1, 23))


@settings(max_examples=12, deadline=None)
@given(start=corner, at=cut)
def test_pieces_equal_the_whole(start: Triple, at: Triple) -> None:
    volume = Phantom(shape=(SIDE, SIDE, SIDE)).open()
    box = Box.at(start, (12, 20, 24))
    whole, region = volume.read(box), volume.read_field("synapse", box)
    z, y, x = at
    for first, last in (((0, 0, 0), at), ((0, 0, x), (z, y, 24)), ((0, y, 0), (z, 20, 24)), ((z, 0, 0), (12, 20, 24))):
        part = Box(first, last)
        piece = part.shifted(start)
        np.testing.assert_array_equal(volume.read(piece), whole[part.slices])
        np.testing.assert_array_equal(volume.read_field("synapse", piece), region[part.slices])


def test_large_pieces_equal_the_whole(volume: PhantomVolume) -> None:
    """Boxes over several of the cells that the tissue is computed in, at a cell body's surface too."""
    for start in ((998_000, 700, 999_000), (2500, 300, 300)):
        box = Box.at(start, (70, 100, 400))
        whole, region = volume.read(box), volume.read_field("synapse", box)
        assert region.any()
        for part in (Box((0, 0, 0), (17, 100, 400)), Box((17, 0, 0), (70, 63, 97)), Box((17, 63, 90), (70, 100, 400))):
            piece = part.shifted(box.start)
            np.testing.assert_array_equal(volume.read_field("synapse", piece), region[part.slices])
            np.testing.assert_array_equal(volume.read(piece), whole[part.slices])


def test_the_region_does_not_depend_on_what_was_read_before(volume: PhantomVolume) -> None:
    box = Box.at((3000, 3000, 3000), (20, 60, 60))
    fresh = Phantom(shape=volume.shape).open().read_field("synapse", box)
    assert fresh.any()
    volume.read(box)
    kept = volume.read_field("synapse", box)
    np.testing.assert_array_equal(kept, fresh)
    kept[:] = True
    np.testing.assert_array_equal(volume.read_field("synapse", box), fresh)
    volume.read(box.shifted((0, 0, 1)))
    np.testing.assert_array_equal(volume.read_field("synapse", box), fresh)


def test_a_larger_volume_is_the_same_tissue(volume: PhantomVolume) -> None:
    small = Phantom(shape=(30, 40, 50)).open()
    box = Box.of_shape(small.shape)
    np.testing.assert_array_equal(small.read(box), volume.read(box))


def test_seed_decides(volume: PhantomVolume) -> None:
    box = Box.at((100, 100, 100), (16, 64, 64))
    here = volume.read(box)
    np.testing.assert_array_equal(here, Phantom(shape=(SIDE, SIDE, SIDE), seed=1).open().read(box))
    other = Phantom(shape=(SIDE, SIDE, SIDE), seed=2).open().read(box)
    assert (here[here != 0] == other[here != 0]).mean() < 0.2


@pytest.mark.parametrize("voxel_nm", [(40.0, 32.0, 32.0), (33.3, 7.0, 50.0)])
def test_finer_voxels_sample_the_same_tissue(voxel_nm: tuple[float, float, float]) -> None:
    """The centre of every third voxel of a third of the size is the centre of the coarse voxel."""
    z, y, x = voxel_nm
    coarse = Phantom(shape=(SIDE, SIDE, SIDE), voxel_size_nm=voxel_nm).open().read(Box.at((700, 800, 900), (8, 30, 30)))
    fine = Phantom(shape=(SIDE, SIDE, SIDE), voxel_size_nm=(z / 3, y / 3, x / 3)).open()
    sampled = fine.read(Box.at((2100, 2400, 2700), (24, 90, 90)))[1::3, 1::3, 1::3]
    assert (sampled == coarse).mean() > 0.9999


def test_extracellular_share(tissue: NDArray[np.uint64]) -> None:
    assert 0.06 < (tissue == 0).mean() < 0.14


def test_share_of_astrocytes(tissue: NDArray[np.uint64]) -> None:
    assert 0.03 < (kind(tissue) == 7).mean() < 0.15


def test_number_of_processes(tissue: NDArray[np.uint64]) -> None:
    """The cortex volume has 0.46 ids per cubic micrometre, its cells cut by the borders of 20 x 16 x 16 um."""
    per_um3 = (len(np.unique(tissue)) - 1) / (tissue.size * VOXEL_UM3)
    assert 0.2 < per_um3 < 2


def test_membrane_area(tissue: NDArray[np.uint64]) -> None:
    """Lines cross cell surface S / 2 times per length, on average over directions: S in um^2 per um^3."""
    crossings = []
    for axis, step_um in enumerate((0.04, 0.032, 0.032)):
        a, b = np.moveaxis(tissue, axis, 0)[1:], np.moveaxis(tissue, axis, 0)[:-1]
        crossings.append(((a != b) * ((a > 0).astype(int) + (b > 0))).mean() / step_um)
    assert 6 < 2 * np.mean(crossings) < 10


def test_calibres(tissue: NDArray[np.uint64]) -> None:
    """Profiles in a section range from thin axons (under 0.1 um^2) to dendrites (over 1 um^2), few of them crumbs.

    In the cortex volume 17 % of all profiles are of three pixels or fewer, and the median of those of ten or more is
    0.24 um^2 with its large cell bodies.
    """
    pieces: list[int] = []
    for plane in tissue[::50]:
        for cell in np.unique(plane[plane > 0]):
            parts, _ = ndimage.label(plane == cell)
            pieces += np.bincount(parts.ravel())[1:].tolist()
    pixels = np.array(pieces)
    assert (pixels <= 3).mean() < 0.17
    assert pixels[pixels < 10].sum() < 0.005 * pixels.sum()
    areas = pixels[pixels >= 10] * 0.032**2
    assert np.percentile(areas, 25) < 0.1
    assert 0.15 < np.median(areas) < 0.25
    assert np.percentile(areas, 97) > 1.2


def test_processes_are_long() -> None:
    """In a box 20 um wide, processes of all six families run on for more than 10 um."""
    volume = Phantom(shape=(SIDE, SIDE, SIDE), voxel_size_nm=(160, 160, 160)).open()
    ids, inverse = np.unique(volume.read(Box.at((2000, 2000, 2000), (125, 125, 125))), return_inverse=True)
    long = set()
    for cell, where in zip(ids, ndimage.find_objects(inverse.reshape(125, 125, 125) + 1), strict=True):
        if cell and np.linalg.norm([0.16 * (s.stop - s.start) for s in where]) > 10:
            long.add(int(cell) >> 58)
    assert {1, 2, 3, 4, 5, 6} <= long


def test_dendrites_hang_together(tissue: NDArray[np.uint64]) -> None:
    """Seen in full around its middle, nearly all of a thick process is one piece."""
    ids, sizes = np.unique(tissue[kind(tissue) == 1], return_counts=True)
    checked = 0
    for cell in ids[np.argsort(sizes)[-6:]]:
        parts, _ = ndimage.label(tissue == cell, np.ones((3, 3, 3)))
        assert np.bincount(parts.ravel())[1:].max() > 0.5 * (parts > 0).sum()
        checked += 1
    assert checked == 6


def test_ids_are_told_apart_at_both_ends(volume: PhantomVolume) -> None:
    ends = [
        volume.read(Box.at(at, (8, 64, 64))) for at in ((0, 0, 0), (999_900, 0, 0), (0, 999_900, 0), (0, 0, 999_900))
    ]
    sets = [set(np.unique(end).tolist()) - {0} for end in ends]
    assert len(set.union(*sets)) == sum(map(len, sets))
    assert ends[0].dtype == volume.dtype == np.uint64


def test_some_cell_bodies() -> None:
    """At 1 um voxels: a body is a ball that is all one id; about one for each 14 000 um^3."""
    volume = Phantom(shape=(48, 48, 48), voxel_size_nm=(1000, 1000, 1000)).open()
    ids = volume.read(Box.of_shape(volume.shape))
    same = ids > 0
    for axis in range(3):
        for step in (-2, -1, 1, 2):
            same &= np.roll(ids, step, axis) == ids
    assert 4 <= ndimage.label(same)[1] <= 14


def test_synapses_lie_where_two_neurons_touch(volume: PhantomVolume) -> None:
    """Where a process is squeezed between others, what is nearest by its calibre may be a little farther off."""
    box = Box.at((4000, 4000, 4000), (60, 100, 100))
    ids, region = volume.read(box.grown((4, 4, 4))), volume.read_field("synapse", box)
    near: NDArray[Any] = np.zeros(region.shape, bool)
    own = ids[4:-4, 4:-4, 4:-4]
    for dz, dy, dx in np.ndindex(9, 9, 9):
        if (40 * (dz - 4)) ** 2 + (32 * (dy - 4)) ** 2 + (32 * (dx - 4)) ** 2 <= 150**2:
            other = ids[dz : dz + 60, dy : dy + 100, dx : dx + 100]
            near |= (other != own) & (other != 0) & (kind(other) != 7)
    assert near[region].mean() > 0.93
    assert (own[region] > 0).all()
    assert (kind(own[region]) != 7).all()
    assert 0.001 < region.mean() < 0.05
    parts, number = ndimage.label(region, np.ones((3, 3, 3)))
    assert 0.2 < number / (region.size * VOXEL_UM3) < 2
    both = [len(np.unique(own[parts == n])) for n in range(1, number + 1)]
    assert np.mean(np.array(both) >= 2) > 0.7
    for part in ndimage.find_objects(parts):
        extent = [(s.stop - s.start) * step for s, step in zip(part, (40, 32, 32), strict=True)]
        assert max(extent) <= 2 * 600


def test_boxes_outside_and_unknown_regions_are_refused() -> None:
    volume = Phantom(shape=(10, 10, 10)).open()
    with pytest.raises(SourceError, match="leaves the phantom"):
        volume.read(Box.at((0, 0, 5), (5, 5, 6)))
    with pytest.raises(SourceError, match="no region 'membrane'"):
        volume.read_field("membrane", Box.of_shape(volume.shape))
    assert volume.read(Box.at((3, 3, 3), (0, 2, 2))).shape == (0, 2, 2)


@pytest.mark.parametrize(
    "wrong",
    [{"shape": (0, 1, 1)}, {"shape": (1, 1, 10**6 + 1)}, {"shape": (10**6, 1, 1), "voxel_size_nm": (2000, 32, 32)}],
)
def test_impossible_phantoms_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Phantom(**wrong)
