"""The text of the GPU's primitives gives the very bits of the CPU's kernels: compiled for the host, and on a GPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from simexm.geometry.grid import Box, Triple
from simexm.kernels.devices.array_device import ArrayDevice
from simexm.kernels.devices.array_planes import Backend
from simexm.kernels.devices.cpu_device import CPU
from simexm.kernels.devices.device import Cells, Device, NodeGrid, Where
from simexm.kernels.emission import amplicons
from simexm.kernels.emission.amplicons import Amplicons
from simexm.kernels.emission.points import (
    BINOMIAL,
    NO_DEPTH,
    NO_GREY,
    POISSON,
    EmissionLaw,
    Emitters,
    Factors,
    LayerKeys,
)
from simexm.kernels.imaging.image import LateralGrid
from simexm.kernels.labels.regions import crofton_weights
from simexm.kernels.numbers import detmath
from simexm.random import derive_key, philox_array
from tests.kernels.test_draws import apply, binomial_quantiles, means, poisson_quantiles, uniforms

VOXEL_NM = (40.0, 32.0, 32.0)
N = 200_000


@pytest.fixture
def gpu(backend: Backend) -> ArrayDevice:
    """The device under test."""
    return ArrayDevice(backend)


def run(gpu: ArrayDevice, name: str, inputs: tuple[NDArray[Any], ...], out: NDArray[Any]) -> NDArray[Any]:
    """What a primitive over `len(inputs[0])` elements writes."""
    to = gpu.put(out)
    count = len(inputs[0])
    gpu.launch(name, count, *(gpu.put(a) for a in inputs), count, to)
    return gpu.to_host(to)


# ------------------------------------------------------------------ numbers


def test_random_words_are_those_of_the_cpu(gpu: ArrayDevice) -> None:
    rng = np.random.default_rng(1)
    counters = rng.integers(-(2**40), 2**40, (N, 4))
    counters[:100] = rng.integers(0, 2, (100, 4)) * (2**32 - 1)
    key = derive_key(3, "words")
    z, y, x, draw = counters.astype(np.uint64).T
    out = gpu.put(np.zeros((N, 4), np.uint32))
    gpu.launch("philox_words", N, gpu.put(counters), np.array(key, np.int64), N, out)
    np.testing.assert_array_equal(gpu.to_host(out), philox_array(z, y, x, draw, key).T)


def test_functions_of_a_number_have_the_same_bits(gpu: ArrayDevice) -> None:
    rng = np.random.default_rng(2)
    u = uniforms(rng, N)
    wide = np.concatenate([rng.uniform(-720, 720, N), 10 ** rng.uniform(-320, 308, N), [0.0, -0.0, -1.0, 5e-324]])
    for numbers, columns in ((u, range(4)), (np.concatenate([wide, [np.inf, -np.inf, np.nan]]), range(2))):
        found = run(gpu, "functions", (numbers,), np.zeros((numbers.size, 4)))
        functions = (detmath.exp, detmath.log, detmath.normal_quantile, detmath.normal_quantile_cut)
        for column in columns:
            np.testing.assert_array_equal(
                found[:, column].view(np.int64),
                apply(functions[column], numbers).view(np.int64),
                functions[column].__name__,
            )


def test_poisson_counts_are_the_same_over_all_means(gpu: ArrayDevice) -> None:
    rng = np.random.default_rng(3)
    u = uniforms(rng, N)
    mean = np.concatenate([means(rng, N // 2), 10 ** rng.uniform(-18, 9, N // 2)])
    mean[:6] = 0.0, -1.0, 2.0**-53, 10.0, np.nextafter(10.0, 0.0), 2.0**31
    np.testing.assert_array_equal(
        run(gpu, "poisson_quantiles", (u, mean), np.zeros(N, np.int64)), poisson_quantiles(u, mean)
    )


def test_binomial_counts_are_the_same(gpu: ArrayDevice) -> None:
    rng = np.random.default_rng(4)
    u = np.floor(uniforms(rng, N) * 2.0**52) * 2.0**-52 + 2.0**-53  # as `unit_double` makes them
    trials = rng.integers(-1, 5000, N)
    trials[::2] = rng.integers(0, 20, trials[::2].size)
    share = rng.uniform(0, 1, N)
    share[::7] = 10 ** rng.uniform(-9, 0, share[::7].size)
    share[:4] = 0.0, 1.0, 0.5, -0.1
    np.testing.assert_array_equal(
        run(gpu, "binomial_quantiles", (u, trials, share), np.zeros(N, np.int64)), binomial_quantiles(u, trials, share)
    )


# ------------------------------------------------------------------ labels


def blobs(shape: Triple, seed: int = 0) -> NDArray[np.int32]:
    """Cells of several voxels with empty space between them."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 9, [n // 5 + 2 for n in shape])
    coarse[coarse > 6] = 0
    index = coarse.repeat(5, 0).repeat(5, 1).repeat(5, 2)[: shape[0], : shape[1], : shape[2]].astype(np.int32)
    index[rng.uniform(size=shape) < 0.02] = 3
    return np.ascontiguousarray(index)


@pytest.mark.parametrize("neighbourhood", [26, 8])
@pytest.mark.parametrize("shape", [(14, 17, 19), (1, 9, 9), (3, 1, 8)])
@pytest.mark.parametrize("bit", [8, 1 << 8, 1 << 16, 1 << 62])
def test_regions_are_the_same(gpu: ArrayDevice, neighbourhood: int, shape: Triple, bit: int) -> None:
    index = blobs(shape)
    mask = np.random.default_rng(5).uniform(size=shape) < 0.3
    found = gpu.to_host(gpu.regions(gpu.put(index), neighbourhood, [(4, mask), (bit, ~mask)]))
    expected = CPU.regions(index, neighbourhood, [(4, mask), (bit, ~mask)])
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
    assert len(np.unique(found)) > 2
    np.testing.assert_array_equal((found & bit) != 0, ~mask & (index != 0))


USUAL = EmissionLaw(0.3, False, 1, POISSON, 3.0, 0.8, (0.0, 0.0, 0.0), (1, 1, 1), False)
LINKED = (6.0, 6.0, 6.0)
LAWS: Mapping[str, EmissionLaw] = {
    "poisson": USUAL,
    "by surface": USUAL._replace(mean=400.0, by_surface=True),
    "every voxel": USUAL._replace(region_bits=0),
    "linked": USUAL._replace(sigma=LINKED),
    "linked along one axis": USUAL._replace(sigma=(0.0, 4.0, 0.0)),
    "binomial": USUAL._replace(kind=BINOMIAL, dyes=7.0, kept=0.35, sigma=LINKED),
    "fixed": USUAL._replace(kind=BINOMIAL, dyes=4.0, kept=1.0),
    "rare": USUAL._replace(mean=0.03, region_bits=0),
    "subcells": USUAL._replace(mean=9.0, subcells=(2, 1, 3), region_bits=3, sigma=LINKED),
    "clumped": USUAL._replace(mean=200.0, clumped=True, subcells=(1, 2, 2)),
    "clumped, linked": USUAL._replace(mean=30.0, clumped=True, sigma=LINKED, kind=BINOMIAL, dyes=3.0, kept=0.4),
    "clumped, thousands": USUAL._replace(mean=5000.0, clumped=True, kind=BINOMIAL, dyes=6.0, kept=0.7),
    "clumped, by surface": USUAL._replace(mean=2e5, by_surface=True, clumped=True),
}


def keys(seed: int = 1) -> LayerKeys:
    return LayerKeys(*(derive_key(seed, "layer", part) for part in ("number", "place", "linker")))


def emitted(
    device: Device,
    law: EmissionLaw,
    where: Where,
    array: Box,
    masks: Sequence[Any] = (),
    *,
    by_cell: bool = False,
    by_depth: bool = False,
    by_grey: bool = False,
) -> tuple[list[Emitters], NDArray[np.int64]]:
    """Chunks of all emitters, on the host, and the tally."""
    index = blobs((22, 24, 26))[tuple(slice(a, b) for a, b in zip(array.start, array.stop, strict=True))]
    index = np.ascontiguousarray(index)
    cell = np.array([0, 1, 1, 1, 0, 1, 1]) * (np.array([1, 0.3, 1, 2.5, 1, 1, 0.7]) if by_cell else 1.0)
    depth = np.random.default_rng(2).uniform(size=sum(array.shape)) if by_depth else NO_DEPTH
    grey = np.random.default_rng(3).integers(0, 256, array.shape).astype(np.float32) if by_grey else NO_GREY
    factors = Factors(*(device.put(values) for values in (cell, depth, grey)))
    cells = Cells(device.put(index), device.regions(device.put(index), 26, masks), array)
    tally = device.zeros((7,), np.int64)
    weights = device.put(crofton_weights(VOXEL_NM, False))
    chunks = [
        Emitters(*(np.array(device.to_host(column)) for column in chunk))
        for chunk in device.emit(cells, where, factors, weights, law, keys(), device.room(device.capacity, True), tally)
    ]
    return chunks, device.to_host(tally)


def joined(parts: list[Emitters]) -> Emitters:
    columns: Any = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return Emitters(*columns)


@pytest.mark.parametrize("name", LAWS)
def test_emitters_are_the_same_in_the_same_order(gpu: ArrayDevice, name: str) -> None:
    array = Box((1, 2, 0), (20, 22, 25))
    where = Where(Box((2, 0, 1), (21, 20, 26)), Box((3, 3, 2), (17, 30, 23)), Box((5, 6, 7), (12, 15, 20)), VOXEL_NM)
    (ours, tally), (theirs, expected) = (emitted(device, LAWS[name], where, array) for device in (gpu, CPU))
    found, wanted = joined(ours), joined(theirs)
    assert wanted.z.size > 20
    assert 0 < expected.sum() < wanted.weight.sum()
    for column in Emitters._fields:
        a, b = getattr(found, column), getattr(wanted, column)
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a.view(np.uint8), b.view(np.uint8), column)
    np.testing.assert_array_equal(tally, expected)


@pytest.mark.parametrize("name", ["by surface", "every voxel", "clumped, linked"])
@pytest.mark.parametrize(("by_cell", "by_depth", "by_grey"), [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1)])
def test_factors_of_the_mean_are_the_same(
    gpu: ArrayDevice, name: str, by_cell: bool, by_depth: bool, by_grey: bool
) -> None:
    array = Box((1, 2, 0), (20, 22, 25))
    where = Where(Box((2, 0, 1), (21, 20, 26)), Box((3, 3, 2), (17, 30, 23)), Box((5, 6, 7), (12, 15, 20)), VOXEL_NM)
    law = LAWS[name]._replace(grey=(1.3, -0.006, 0.05))
    chosen: dict[str, Any] = {"by_cell": by_cell, "by_depth": by_depth, "by_grey": by_grey}
    (ours, tally), (theirs, expected) = (emitted(device, law, where, array, **chosen) for device in (gpu, CPU))
    for column in Emitters._fields:
        np.testing.assert_array_equal(getattr(joined(ours), column), getattr(joined(theirs), column), column)
    np.testing.assert_array_equal(tally, expected)
    plain = joined(emitted(CPU, law, where, array)[0])
    assert (joined(theirs).weight.sum() != plain.weight.sum()) == (by_depth or by_grey or law.region_bits != 0)


@pytest.mark.parametrize(
    "bit", [1 << 7, *(pytest.param(1 << n, marks=pytest.mark.slow) for n in (15, 31)), 1 << 62]
)  # each compiles what emits for bits of another type
def test_a_mask_of_any_bit_emits_the_same(gpu: ArrayDevice, bit: int) -> None:
    array = Box.of_shape((22, 24, 26))
    where = Where(array, array, array, VOXEL_NM)
    mask = np.random.default_rng(5).uniform(size=array.shape) < 0.3
    narrow = emitted(CPU, USUAL._replace(region_bits=4), where, array, [(4, mask)])
    for device in (gpu, CPU):
        wide = emitted(device, USUAL._replace(region_bits=bit), where, array, [(4, ~mask), (bit, mask)])
        for a, b in zip(joined(wide[0]), joined(narrow[0]), strict=True):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(wide[1], narrow[1])


def test_little_room_only_makes_more_chunks(backend: Backend, gpu: ArrayDevice) -> None:
    box = Box.of_shape((22, 24, 26))
    where = Where(box, Box((4, 0, 0), (8, 24, 26)), box, VOXEL_NM)
    small = ArrayDevice(backend, capacity=64)
    (many, tally), (one, expected) = (emitted(d, LAWS["linked"], where, box) for d in (small, gpu))
    assert len(one) == 1
    assert len(many) > one[0].z.size / 64
    np.testing.assert_array_equal(joined(many).z, one[0].z)
    np.testing.assert_array_equal(tally, expected)
    with pytest.raises(ValueError, match="more than 2 dyes"):
        emitted(ArrayDevice(backend, capacity=2), LAWS["clumped"], where, box)


def test_amplicons_scatter_alike(gpu: ArrayDevice) -> None:
    rng = np.random.default_rng(6)
    n = 300
    some = Amplicons(
        rng.uniform(0, 9e3, (n, 3)), rng.integers(0, 2**31 - 1, (n, 3), np.int32), rng.integers(0, 4, n, np.int32),
        rng.integers(1, 9, n, np.int32), rng.poisson(20, n).astype(np.int32), rng.integers(0, 2, n, np.uint8),
        rng.integers(0, 2, n, np.uint8),
    )  # fmt: skip
    dye_keys = np.array([derive_key(1, "a"), derive_key(1, "b")], np.int64)
    rooms = amplicons.MOST_DYES
    ours, theirs = (
        joined(
            [
                Emitters(*(np.array(d.to_host(c)) for c in chunk))
                for chunk in d.scatter(some, dye_keys, 70.0, d.room(rooms, True))
            ]
        )
        for d in (gpu, CPU)
    )
    for column in Emitters._fields:
        np.testing.assert_array_equal(getattr(ours, column), getattr(theirs, column), column)


# ------------------------------------------------------------------ grids


def dots(n: int, extent_nm: tuple[float, float, float], seed: int = 7) -> Emitters:
    """Emitters all over a box and around it, some exactly on nodes and halfway between them."""
    rng = np.random.default_rng(seed)
    place = rng.uniform(-0.2, 1.2, (n, 3)) * extent_nm
    place[: n // 10] = np.round(place[: n // 10] / 25.0) * 25.0
    z, y, x = (np.ascontiguousarray(place[:, a]) for a in range(3))
    return Emitters(z, y, x, rng.integers(1, 5000, n, np.int32), np.ones(n, np.int32), np.ones(n, np.uint8))


def put(device: Device, emitters: Emitters) -> Emitters:
    return Emitters(*(device.put(column) for column in emitters))


def test_deposits_are_the_same_integers(gpu: ArrayDevice) -> None:
    grid = NodeGrid(
        LateralGrid((8, 9), 2, (6, 7)),
        (-3, 4, -5),
        (40, 16, 18),
        60,
        (0.02, 0.02, 0.02),
        (0.5, 0.25, 1.5),
        range(37),
        1,
        3,
    )
    some = dots(5000, (2000.0, 900.0, 900.0))
    ours, theirs = gpu.node_planes(grid), CPU.node_planes(grid)
    ours.add(put(gpu, some))
    theirs.add(some)
    held = theirs._ring.planes
    np.testing.assert_array_equal(gpu.to_host(ours._ring), held)
    assert held.any()


def test_an_emitter_beyond_the_ring_is_told(gpu: ArrayDevice) -> None:
    grid = NodeGrid(
        LateralGrid((8, 9), 2, (6, 7)), (0, 0, 0), (80, 16, 18), 6, (0.02, 0.02, 0.02), (0.5, 0.5, 0.5), range(80), 1, 0
    )
    planes = gpu.node_planes(grid)
    planes.add(put(gpu, dots(500, (2000.0, 900.0, 900.0))))
    with pytest.raises(ValueError, match="would be lost"):
        list(planes.advance(80))


def test_dyes_per_pixel_are_the_same(gpu: ArrayDevice) -> None:
    some = dots(20_000, (900.0, 900.0, 900.0))
    counted = []
    for device in (gpu, CPU):
        out = device.zeros((10, 12, 11), np.int64)
        device.deposit_counts(put(device, some), (1 / 80, 1 / 75, 1 / 75), (1, -1, 2), out)
        counted.append(device.to_host(out))
    np.testing.assert_array_equal(counted[0], counted[1])
    assert counted[1].any()


def test_dyes_at_coarse_nodes_are_the_same_integers(gpu: ArrayDevice) -> None:
    some = dots(5000, (900.0, 900.0, 900.0))
    counted = []
    for device in (gpu, CPU):
        out = device.zeros((10, 12, 11), np.int64)
        device.deposit_nodes(put(device, some), (1 / 80, 1 / 75, 1 / 75), (1, -1, 2), out)
        counted.append(device.to_host(out))
    np.testing.assert_array_equal(counted[0], counted[1])
    assert counted[1].any()
