"""Laws of the counter-based random numbers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simexm.random import (
    derive_key,
    id_uniform,
    philox,
    philox_array,
    unit_double,
    unit_double_array,
    unit_float32word,
    unit_float32word_array,
)

WORD = st.integers(0, 2**32 - 1)
EDGES = [0, 1, 2**12, 2**31, 2**32 - 1]


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
    ids=["zeros", "ones", "pi"],
)
def test_philox_gives_the_published_answers(
    counter: tuple[int, int, int, int], key: tuple[int, int], expected: tuple[int, ...]
) -> None:
    """The known-answer vectors of Random123 (philox4x32, 10 rounds)."""
    assert tuple(int(w) for w in philox(*counter, *key)) == expected
    assert tuple(int(w) for w in philox_array(*counter, key)) == expected


@given(st.tuples(WORD, WORD, WORD, WORD), st.tuples(WORD, WORD))
def test_compiled_and_array_philox_agree(counter: tuple[int, int, int, int], key: tuple[int, int]) -> None:
    assert [int(w) for w in philox(*counter, *key)] == [int(w) for w in philox_array(*counter, key)]


def test_philox_array_broadcasts_and_each_counter_word_matters() -> None:
    z, y, x = np.arange(3)[:, None, None], np.arange(4)[:, None], np.arange(5)
    words = philox_array(z, y, x, 7, (1, 2))
    assert words.shape == (4, 3, 4, 5)
    assert words.dtype == np.uint32
    assert [int(w) for w in words[:, 2, 3, 4]] == [int(w) for w in philox(2, 3, 4, 7, 1, 2)]
    every = [tuple(int(w) for w in philox(*c, 1, 2)) for c in itertools.product((0, 1), repeat=4)]
    assert len(set(every)) == 16


def test_units_lie_inside_the_open_interval_and_are_symmetric() -> None:
    for hi, lo in itertools.product(EDGES, EDGES):
        u = unit_double(np.uint32(hi), np.uint32(lo))
        assert 0.0 < u < 1.0
        assert u == unit_double_array(np.array([hi], np.uint32), np.array([lo], np.uint32))[0]
        assert 1.0 - u == unit_double(np.uint32(2**32 - 1 - hi), np.uint32(2**32 - 1 - lo))
    for w in EDGES:
        v = unit_float32word(np.uint32(w))
        assert 0.0 < v < 1.0
        assert v == unit_float32word_array(np.array([w], np.uint32))[0]


PARTS: list[tuple[str | int, ...]] = [
    (),
    ("ab", "c"),
    ("a", "bc"),
    ("abc",),
    (1,),
    ("1",),
    (1, 1),
    (11,),
    ('a", "bc',),
    ("labelling", "neurons", 0, "proteins"),
    ("labelling", "neurons", 1, "proteins"),
]


def test_keys_differ_wherever_seed_or_parts_differ() -> None:
    keys = [derive_key(seed, *parts) for seed in (-1, 0, 1, 2**70) for parts in PARTS]
    assert len(set(keys)) == len(keys)
    assert all(0 <= word < 2**32 for key in keys for word in key)
    assert derive_key(5, "camera", np.int64(3)) == derive_key(5, "camera", 3)  # type: ignore[arg-type]


def test_a_cell_has_one_number_in_any_array() -> None:
    key = derive_key(1, "labelling", "neurons", "cells")
    ids = np.array([1, 2, 2**32, 2**32 + 1, 2**63, 2**64 - 1], dtype=np.uint64)
    u = id_uniform(ids, key)
    assert len(set(u)) == ids.size
    assert np.array_equal(id_uniform(ids[::-1].reshape(2, 3), key).ravel()[::-1], u)
    assert np.array_equal(id_uniform(np.array([1, 2], np.uint8), key), u[:2])
    assert not np.array_equal(id_uniform(ids, derive_key(1, "labelling", "glia", "cells")), u)


def test_the_share_of_cells_below_a_threshold_is_the_threshold() -> None:
    n = 200_000
    u = id_uniform(np.arange(n, dtype=np.uint64) << np.uint64(20), derive_key(3, "cells"))
    for share in (0.01, 0.5, 0.9):
        assert abs(np.mean(u < share) - share) < 4.5 * np.sqrt(share * (1 - share) / n)
