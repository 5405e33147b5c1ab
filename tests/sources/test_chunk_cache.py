"""Kept chunks: what is read is what is stored, and no chunk is read twice while it is kept."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from simexm.geometry.grid import Box
from simexm.sources.chunk_cache import ChunkCache

SHAPE, CHUNK = (11, 17, 9), (4, 8, 5)
VOLUME = np.arange(np.prod(SHAPE), dtype=np.uint16).reshape(SHAPE)

axis = [st.tuples(st.integers(0, n), st.integers(0, n)).map(sorted) for n in SHAPE]
boxes = st.tuples(*axis).map(lambda t: Box((t[0][0], t[1][0], t[2][0]), (t[0][1], t[1][1], t[2][1])))


@given(st.lists(boxes, min_size=1, max_size=6), st.sampled_from([0, 700, 10**6]))
def test_reads_what_is_stored(wanted: list[Box], limit: int) -> None:
    cache = ChunkCache(limit)
    for box in wanted:
        got = cache.read("a", box, CHUNK, SHAPE, 2, lambda b: VOLUME[b.slices])
        np.testing.assert_array_equal(got, VOLUME[box.slices])


@given(st.lists(boxes.filter(lambda b: not b.is_empty), min_size=1, max_size=6))
def test_no_chunk_is_read_again_while_all_fit(wanted: list[Box]) -> None:
    cache, read = ChunkCache(10**6), np.zeros(SHAPE, np.int64)

    def reader(box: Box) -> np.ndarray[tuple[int, ...], np.dtype[np.uint16]]:
        read[box.slices] += 1
        return VOLUME[box.slices]

    whole = Box.of_shape(SHAPE)
    cache.read("a", whole, CHUNK, SHAPE, 2, reader)
    for box in wanted:
        cache.read("a", box, CHUNK, SHAPE, 2, reader)
    assert (read == 1).all()


def test_arrays_are_told_apart_and_the_oldest_go_first() -> None:
    cache = ChunkCache(2 * VOLUME.nbytes + 100)
    whole, calls = Box.of_shape(SHAPE), []
    for name in "abab" + "c" + "b" + "a":

        def reader(box: Box, name: str = name) -> np.ndarray[tuple[int, ...], np.dtype[np.uint16]]:
            calls.append(name)
            return VOLUME[box.slices] + np.uint16(ord(name))

        got = cache.read(name, whole, CHUNK, SHAPE, 2, reader)
        np.testing.assert_array_equal(got, VOLUME + np.uint16(ord(name)))
    assert calls == ["a", "b", "c", "a"]
