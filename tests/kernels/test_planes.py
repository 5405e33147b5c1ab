"""The array side of imaging against the compiled kernels: on arrays that have nothing but the standard, and on a GPU."""

from __future__ import annotations

import ast
import inspect
import operator
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import array_api_strict
import numpy as np
import pytest
from numpy.typing import NDArray

from simexm.geometry.grid import Box
from simexm.kernels.devices import array_device, array_planes
from simexm.kernels.devices.array_device import ArrayDevice, DeviceMemoryError
from simexm.kernels.devices.array_planes import Backend
from simexm.kernels.devices.cpu_device import CPU
from simexm.kernels.devices.device import Cells, Device, NodeGrid
from simexm.kernels.emission.points import Emitters
from simexm.kernels.imaging import image as imaging
from simexm.kernels.imaging import planes
from simexm.kernels.imaging.image import Blended, LateralGrid, Planar, Transfer
from tests.cuda_host import Host

LIMIT = 2e-6
"""Of the maximum: how far images of two devices may lie apart."""

GRIDS = {
    "one node a pixel": LateralGrid((12, 15), 1, (4, 5)),
    "odd": LateralGrid((15, 9), 3, (20, 12)),
    "even": LateralGrid((10, 12), 2, (8, 11)),
    "the whole band": LateralGrid((10, 12), 2, (9, 12)),
    "a narrow band": LateralGrid((20, 18), 4, (3, 2)),
    "no frequency but one": LateralGrid((6, 6), 2, (1, 0)),
}


@pytest.fixture
def gpu(backend: Backend) -> ArrayDevice:
    """The device under test."""
    return ArrayDevice(backend)


def close(ours: NDArray[Any], theirs: NDArray[Any]) -> None:
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype
    assert np.abs(theirs).max() > 0
    assert np.abs(ours - theirs).max() <= LIMIT * np.abs(theirs).max()


@pytest.mark.parametrize("name", GRIDS)
def test_spectra_of_planes(gpu: ArrayDevice, name: str) -> None:
    grid = GRIDS[name]
    dyes = np.random.default_rng(1).poisson(0.7, (3, grid.nodes[0] - 2, grid.nodes[1] - 1)).astype(np.float32)
    found = gpu.to_host(planes.plane_spectra(gpu.put(dyes), grid, gpu.xp))
    theirs = np.empty_like(found)
    for d, out in zip(dyes, theirs, strict=True):
        imaging.plane_spectrum(lambda first, stop, d=d: d[first:stop], range(len(d)), grid, out)  # type: ignore[misc]
    close(found, theirs)


@pytest.mark.parametrize("name", GRIDS)
def test_planes_of_spectra(gpu: ArrayDevice, name: str) -> None:
    grid = GRIDS[name]
    rng = np.random.default_rng(2)
    shape = (3, grid.pixels[0], grid.pixels[1] // 2 + 1)
    spectra = (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)
    found = gpu.to_host(planes.inverse_planes(gpu.put(spectra), grid, gpu.xp))
    close(found, np.stack([imaging.inverse_plane(s, grid) for s in spectra]))


def emitters(n: int, extent: tuple[float, float, float]) -> Emitters:
    rng = np.random.default_rng(3)
    z, y, x = (rng.uniform(0, e, n) for e in extent)
    return Emitters(z, y, x, rng.integers(1, 9, n, np.int32), np.ones(n, np.int32), np.ones(n, np.uint8))


def transfer(lateral: LateralGrid, reach: int, rng: np.random.Generator) -> Transfer:
    """A transfer function at random; some frequencies at the corners of the band lie beyond its table."""
    y, x = (np.arange(q + 1) / n for q, n in zip(lateral.band, lateral.nodes, strict=True))
    table = rng.normal(size=(30, reach + 1))
    table[-2:] = 0
    per_cycle = 25 / max(0.9 * np.hypot(y[-1], x[-1]), 1e-9)
    return Transfer(table, per_cycle, y, rng.uniform(0.5, 1, y.size), x, rng.uniform(0.5, 1, x.size))


def even(one: Transfer, rng: np.random.Generator) -> Transfer:
    """Itself."""
    return one


def blended(one: Transfer, rng: np.random.Generator) -> Blended:
    """The transfer function at the first of three depths, others at random below it, blended from plane 2 on."""
    signed = np.concatenate([one.table[:, :0:-1], one.table], axis=1)
    others = rng.normal(size=(len(signed), 2 * signed.shape[1]))
    others[-2:] = 0
    low, high = rng.uniform(0, 1, (2, 20, signed.shape[1])).astype(np.float32)
    first = np.sort(rng.integers(0, 3, 20))
    return Blended(
        one._replace(table=np.concatenate([signed, others], axis=1)),
        2,
        first,
        low,
        np.where(first[:, None] < 2, high, 0),
    )


def blended_of_one_depth(one: Transfer, rng: np.random.Generator) -> Blended:
    """The transfer function at all depths."""
    signed = np.concatenate([one.table[:, :0:-1], one.table], axis=1)
    share = rng.uniform(0, 1, (20, signed.shape[1])).astype(np.float32)
    first = np.sort(rng.integers(0, 2, 20))
    return Blended(one._replace(table=np.concatenate([signed] * 3, axis=1)), 2, first, share, 1 - share)


def planar(one: Transfer, rng: np.random.Generator) -> Planar:
    """Three depths at random, blended from plane 2 on; the column of frequency 0 is that of a real response."""
    rows, columns, offsets = 2 * one.frequency_y.size - 1, one.frequency_x.size, 2 * one.table.shape[1] - 1
    response = (rng.normal(size=(3 * offsets, rows, columns, 2)).astype(np.float32)).view(np.complex64)[..., 0]
    response[:, 1:, 0] = (response[:, 1:, 0] + response[:, :0:-1, 0].conj()) / 2
    response[:, 0, 0] = response[:, 0, 0].real
    low, high = rng.uniform(0, 1, (2, 20, offsets)).astype(np.float32)
    first = np.sort(rng.integers(0, 3, 20))
    return Planar(response, 2, first, low, np.where(first[:, None] < 2, high, np.float32(0)))


def planar_of_a_symmetric_one(one: Transfer, rng: np.random.Generator) -> Planar:
    """The transfer function at each frequency, with its signed offsets at one depth."""
    y, x = one.frequency_y[:, None], one.frequency_x
    place = np.hypot(y, x) * one.per_cycle
    here, table = place.astype(int), np.concatenate([one.table[:, :0:-1], one.table], axis=1)
    inside = here + 2 < len(table)
    here = np.where(inside, here, 0)
    values = np.zeros((*here.shape, table.shape[1]))
    for a in range(-1, 3):
        weight = np.where(inside, one.factor_y[:, None] * one.factor_x, 0.0)
        for b in range(-1, 3):
            if a != b:
                weight = weight * (place - here - b) / (a - b)
        values += weight[..., None] * table[np.abs(here + a)]
    half = np.moveaxis(values, -1, 0)
    response = np.ascontiguousarray(np.concatenate([half, half[:, :0:-1]], axis=1).astype(np.complex64))
    ones = np.ones((20, len(response)), np.float32)
    return Planar(response, 2, np.zeros(20, np.int64), ones, 0 * ones)


Kind = Callable[[Transfer, np.random.Generator], Transfer | Blended | Planar]


def image(device: Device, lateral: LateralGrid, step: int, reach: int, kind: Kind = even) -> NDArray[np.float32]:
    """Dyes by way of the ring, the spectra and two responses at random, to planes of pixels."""
    wanted = range(3, 16)
    low, nodes = 3 * step - reach, 12 * step + 2 * reach + 1
    rng = np.random.default_rng(4)
    one, two = (transfer(lateral, reach, rng) for _ in range(2))
    responses = [device.response(kind(t, np.random.default_rng(5))) for t in (one, two)]
    ny, nx = lateral.nodes
    shape = (nodes, ny - 1, nx - 3)
    per_nm, shift = (0.1, 0.1, 0.1), (0.5, 0.5, 0.5)
    dyes = device.node_planes(NodeGrid(lateral, (low, -2, 1), shape, 9, per_nm, shift, wanted, step, reach))
    spectra = device.zeros((len(wanted), lateral.pixels[0], lateral.pixels[1] // 2 + 1), np.complex64)
    made: list[int] = []

    def advance(plane: int) -> None:
        for ready in dyes.advance(plane):
            made.extend(ready)
            for response in responses:
                dyes.project(response, ready, spectra[ready.start - 3 : ready.stop - 3, :, :])

    all_of_them = emitters(3000, (10.0 * (low + nodes), 10.0 * ny, 10.0 * nx))
    # dyes come in slabs of 5 node planes, and no dye lies in two of them; some slabs, and the last third, have none
    for slab in range(-10, (low + 2 * nodes // 3) // 5 + 1):
        if slab % 7 == 2:
            continue
        advance(slab * 5 - 2)
        some = all_of_them.select((all_of_them.z * 0.1 // 5).astype(int) == slab)
        dyes.add(Emitters(*(device.put(np.ascontiguousarray(c)) for c in some)))
    advance(low + nodes)
    assert made == list(wanted)
    out = device.zeros((len(wanted), lateral.pixels[0] - 3, lateral.pixels[1] - 2), np.float32)
    device.image(spectra, lateral, (slice(2, lateral.pixels[0] - 1), slice(0, lateral.pixels[1] - 2)), out)
    return device.to_host(out)


@pytest.mark.parametrize(
    ("at_once", "batch"), [(3, 1), (3, 1 << 30), (64, 1 << 30)], ids=["plane by plane", "a few at once", "all at once"]
)
@pytest.mark.parametrize(("step", "reach"), [(1, 0), (1, 6), (3, 4), (4, 1)])
@pytest.mark.parametrize("name", GRIDS)
def test_images_agree(
    gpu: ArrayDevice, name: str, step: int, reach: int, at_once: int, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(array_planes, "BATCH_BYTES", batch)
    monkeypatch.setattr(array_planes, "AT_ONCE", at_once)
    for kind in (even, blended, planar):
        close(image(gpu, GRIDS[name], step, reach, kind), of_cpu(name, step, reach, kind))


@cache
def of_cpu(name: str, step: int, reach: int, kind: Kind) -> NDArray[np.float32]:
    """The image that the CPU makes, which knows no batches."""
    return image(CPU, GRIDS[name], step, reach, kind)


@pytest.mark.parametrize(("step", "reach"), [(1, 0), (1, 6), (3, 4)])
@pytest.mark.parametrize("name", GRIDS)
def test_other_forms_of_an_even_response_give_its_image(name: str, step: int, reach: int) -> None:
    for kind in (blended_of_one_depth, planar_of_a_symmetric_one):
        close(image(CPU, GRIDS[name], step, reach, kind), image(CPU, GRIDS[name], step, reach))


def test_planes_without_dyes_are_dark(gpu: ArrayDevice) -> None:
    lateral = GRIDS["odd"]
    grid = NodeGrid(lateral, (0, 0, 0), (9, 20, 20), 5, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), range(9), 1, 0)
    dyes = gpu.node_planes(grid)
    spectra = gpu.zeros((9, lateral.pixels[0], lateral.pixels[1] // 2 + 1), np.complex64)
    response = gpu.response(transfer(lateral, 0, np.random.default_rng(1)))
    for ready in dyes.advance(9):
        dyes.project(response, ready, spectra[ready.start : ready.stop, :, :])
    assert not gpu.to_host(spectra).any()


def test_truth_is_gathered_alike(gpu: ArrayDevice) -> None:
    rng = np.random.default_rng(5)
    volume, bits = rng.integers(0, 99, (6, 7, 8), np.int32), rng.integers(0, 8, (6, 7, 8), np.uint8)
    z, y, x = (np.sort(rng.integers(0, n, 11)) for n in volume.shape)
    ours, theirs = (Cells(d.put(volume), d.put(bits), Box.of_shape((6, 7, 8))) for d in (gpu, CPU))
    found, expected = (np.full((11, 11, 11), -1, np.int32) for _ in range(2))
    gpu.gather_where(ours, 2, z, y, x, found)
    CPU.gather_where(theirs, 2, z, y, x, expected)
    np.testing.assert_array_equal(found, expected)
    assert (found == 0).any()


def test_cupy_has_all_functions_that_are_used() -> None:
    """Where it is installed; it need not find a device for that."""
    cupy = pytest.importorskip("cupy")
    names = set()
    for module in (planes, array_device, array_planes):
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value).split(".")[-1] in ("xp", "fft"):
                names.add(ast.unparse(node).rpartition("xp.")[2])
    assert {"fft.rfft", "cumulative_sum", "concat", "complex64"} <= names
    for name in names - {"fft"}:
        for library in (cupy, array_api_strict):
            assert operator.attrgetter(name)(library) is not None


def test_full_memory_is_emptied_and_tried_once_more(host_library: Path) -> None:
    backend = Host(host_library)
    device = ArrayDevice(backend)
    calls = []

    def full(times: int) -> int:
        calls.append(times)
        if len(calls) <= times:
            raise MemoryError("4 GiB were asked for")
        return len(calls)

    assert device.attempt(lambda: full(1)) == 2
    assert backend.freed == 1
    calls.clear()
    with pytest.raises(DeviceMemoryError, match="4 GiB were asked for"):
        device.attempt(lambda: full(2))
    assert len(calls) == 2
