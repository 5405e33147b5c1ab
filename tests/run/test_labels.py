"""Laws of labels that come part by part: all of them once, with neighbours, and the same image however they are cut."""

from __future__ import annotations

import gc
import itertools
import sys
import weakref
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from simexm.api import Simulation
from simexm.geometry.grid import Box, Triple
from simexm.kernels.labels.cells import count_voxels
from simexm.kernels.labels.regions import MEMBRANE, regions_of
from simexm.planning import memory
from simexm.run.block import compute_frames
from simexm.run.labels import TileLabels, _Parts, part_bounds
from simexm.sources.arrays import ArrayVolume
from simexm.stages.contract import Counted, LabelPart
from tests import rounds_build
from tests.build import VOXEL_NM, confocal, layer, spec

IDS = rounds_build.cells((40, 50, 60))
MASK = np.random.default_rng(1).random(IDS.shape) < 0.2


def _source(ids: NDArray[np.uint64] = IDS, mask: NDArray[np.bool_] = MASK) -> ArrayVolume:
    return ArrayVolume(ids, VOXEL_NM, regions={"psd": mask})


@given(st.integers(0, 300), st.integers(1, 300), st.integers(3, 130))
def test_parts_share_out_an_axis_and_end_a_voxel_before_multiples(start: int, length: int, size: int) -> None:
    bounds = part_bounds(start, start + length, size)
    assert bounds[0] == start
    assert bounds[-1] == start + length
    assert all(0 < b - a <= size + 1 for a, b in itertools.pairwise(bounds))
    assert all((b + 1) % size == 0 for b in bounds[1:-1])


@settings(max_examples=40, deadline=None)
@given(st.tuples(*[st.integers(0, 20)] * 3), st.tuples(*[st.integers(1, 20)] * 3), st.tuples(*[st.integers(3, 24)] * 3))
def test_parts_hold_the_source_and_know_all_their_neighbours(corner: Triple, shape: Triple, part: Triple) -> None:
    box = Box.at(corner, shape)
    seen = np.zeros(shape, int)
    stream = TileLabels(_source(), box, ["psd"], part, lambda _: None)
    for passes in (1, 2):
        opened: list[int] = []
        for one in stream.parts():
            assert one.again == (passes == 2)
            seen[one.core.relative_to(box.start).slices] += 1
            assert (stream.cells.ids[one.index] == IDS[one.box.slices]).all()
            assert (one.masks["psd"] == MASK[one.box.slices]).all()
            # of its core each part knows all neighbours that the whole box knows
            whole = regions_of(one.cells.add(IDS[box.slices]), 26)
            inner = one.core.relative_to(one.box.start).slices
            assert (regions_of(one.index, 26)[inner] == whole[one.core.relative_to(box.start).slices]).all()
            if one.opens:
                opened.append(one.core.start[0])
            assert one.core.start[0] == opened[-1]
            assert one.core.stop[0] - one.core.start[0] <= stream.depth or stream.depth == 1
        assert opened == sorted(set(opened))
    assert (seen == 2).all()


def test_a_source_is_read_once_along_the_axis() -> None:
    read = np.zeros(IDS.shape[0], int)

    class Counting(ArrayVolume):
        def read(self, box: Box, time: int = 0) -> NDArray[Any]:
            read[box.start[0] : box.stop[0]] += 1
            return super().read(box, time)

    stream = TileLabels(Counting(IDS, VOXEL_NM), Box.of_shape(IDS.shape), [], (8, 64, 64), lambda _: None)
    assert stream.depth == 1
    stream.survey()
    stream.survey()
    assert (read == 1).all()


def test_voxels_are_counted_by_cell() -> None:
    index = np.random.default_rng(0).integers(0, 5, (6, 7, 8)).astype(np.int32)
    out = np.zeros(5, np.int64)
    count_voxels(index, (1, 0, 2), (5, 7, 8), out)
    assert (out == np.bincount(index[1:5, :, 2:].ravel(), minlength=5)).all()


def _layers() -> list[dict[str, Any]]:
    return [
        layer(linker_nm=20, unspecific_per_um3=40, cell_fraction=0.6),
        layer(name="spots", dye="ATTO647N", region="psd", density_per_um3=900.0),
    ]


def _two_dyes() -> dict[str, Any]:
    red = {"name": "red", "laser_wavelength_nm": 640, "band_nm": [655, 720], "laser_power_uW": 20}
    optics = confocal()
    optics["channels"] = [*optics["channels"], red]
    given_spec = spec(*_layers(), optics=optics, keep=["labelled", "emitters"])
    given_spec["source"]["regions"] = {"psd": "psd"}
    given_spec["stages"][-1]["regions"] = ["membrane"]
    return given_spec


def _images(simulation: Simulation, source: ArrayVolume, part: Triple | None) -> list[Any]:
    plan = simulation.plan(source=source)
    plan = replace(plan, part=part or plan.part)
    box = Box.of_shape(plan.shape)
    emitters: list[tuple[Any, ...]] = []

    def sink(name: str, e: Any, ids: Any) -> None:
        emitters.extend(zip([name] * e.z.size, e.z, e.y, e.x, e.weight, ids[e.cell], strict=True))

    results = []
    for result in compute_frames(plan, source, Counted(), box, sink):
        results.append((result.arrays, result.sums["cells"], result.statistics, result.rows))
    return [results, sorted(emitters)]


def _same(a: list[Any], b: list[Any]) -> None:
    assert a[1] == b[1]
    assert a[1]
    for (arrays, cells, statistics, rows), (others, more, stats, other) in zip(a[0], b[0], strict=True):
        assert all((arrays[path] == others[path]).all() for path in arrays)
        assert (cells.ids == more.ids).all()
        assert all((cells.columns[name] == more.columns[name]).all() for name in cells.columns)
        assert cells.columns["voxels"].sum() > 0
        assert all((rows[name][c] == other[name][c]).all() for name in rows for c in rows[name])
        assert str(statistics) == str(stats)


@pytest.mark.parametrize("part", [(16, 64, 64), (7, 64, 64), (11, 17, 13), (40, 20, 64)])
def test_parts_change_no_byte(part: Triple) -> None:
    simulation = Simulation.from_mapping(_two_dyes())
    whole = _images(simulation, _source(), (64, 64, 64))
    _same(whole, _images(simulation, _source(), part))


@pytest.mark.parametrize("part", [(9, 80, 80), (16, 33, 80)])
def test_parts_change_no_byte_of_rounds(part: Triple) -> None:
    ids = rounds_build.cells()
    source = ArrayVolume(ids, rounds_build.VOXEL_NM)
    simulation = Simulation.from_mapping(rounds_build.spec())
    whole = _images(simulation, source, (64, 128, 128))
    _same(whole, _images(simulation, source, part))
    assert len(whole[0]) == 3
    assert any(row[0].startswith("amplicons") for row in whole[1])


def test_regions_are_found_in_each_pass() -> None:
    marked: list[int] = []

    def see(part: LabelPart) -> None:
        part.regions = regions_of(part.index, 26)

    stream = TileLabels(_source(), Box.of_shape(IDS.shape), [], (8, 64, 64), see)
    for _ in range(2):
        marked.append(
            sum(int((p.marked()[p.core.relative_to(p.box.start).slices] == MEMBRANE).sum()) for p in stream.parts())
        )
    assert marked[0] == marked[1] == int((regions_of(stream.cells.add(IDS), 26) == MEMBRANE).sum())


@given(st.tuples(*[st.integers(1, 5000)] * 3), st.booleans())
def test_parts_to_choose_from_begin_with_all_and_shrink(shape: Triple, once: bool) -> None:
    """With thin layers instead of all where labels are gone through once."""
    found = list(memory.parts(shape, once))
    assert all(p >= n for p, n in zip(found[0], (64 if once else shape[0], *shape[1:]), strict=True))
    assert not once or found[0][0] == 64
    sizes = [np.prod([min(p, n) for p, n in zip(part, shape, strict=True)]) for part in found]
    assert sizes == sorted(sizes, reverse=True)
    assert max(found[-1]) <= 128 or len(found) == 1
    assert all(n % 64 == 0 for part in found for n in part)


def test_nothing_of_a_tile_outlives_it() -> None:
    """Rings of references would keep a tile's arrays until Python looks for rings, beside those of the next."""
    simulation = Simulation.from_mapping(_two_dyes())
    source = _source()
    plan = simulation.plan(source=source)
    held: list[weakref.ref[Any]] = []

    class Watched(ArrayVolume):
        def read(self, box: Box, time: int = 0) -> NDArray[Any]:
            stream = next(f.f_locals["self"].stream for f in _frames() if isinstance(f.f_locals.get("self"), _Parts))
            held.append(weakref.ref(stream))
            return super().read(box, time)

    gc.collect()
    gc.disable()
    try:
        for part in ((64, 64, 64), (11, 17, 13)):
            for result in compute_frames(
                replace(plan, part=part),
                Watched(IDS, VOXEL_NM, regions={"psd": MASK}),
                Counted(),
                Box.of_shape(plan.shape),
            ):
                del result
        assert held
        assert all(ref() is None for ref in held)
    finally:
        gc.enable()


def _frames() -> list[Any]:
    frame: Any = sys._getframe(1)
    found = []
    while frame:
        found.append(frame)
        frame = frame.f_back
    return found
