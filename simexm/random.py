"""Counter-based random numbers: a draw is a function of a key and a position, never of earlier draws.

The generator is Philox4x32-10 (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011,
section 3.3 and table 2). Its counter is (z, y, x, draw), its key the hash of seed, stage, layer, channel and purpose.
So a block, a tile and a crop of the same volume draw the same numbers, in any order and on any machine.

Functions without suffix are compiled for scalars; those ending in ``_array`` use NumPy (or, by ``xp``, CuPy) arrays and return
the same bits.
"""

from __future__ import annotations

import hashlib
import json
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.compiled import njit

Key = tuple[int, int]
"""Two 32-bit words from `derive_key`."""

ROUNDS = 10
_WORD = 0xFFFFFFFF
_MULTIPLIER_0, _MULTIPLIER_1 = 0xD2511F53, 0xCD9E8D57
_WEYL_0, _WEYL_1 = 0x9E3779B9, 0xBB67AE85

# As uint64: numba turns uint64 mixed with int64 into float.
_MASK, _SHIFT = np.uint64(_WORD), np.uint64(32)
_M0, _M1 = np.uint64(_MULTIPLIER_0), np.uint64(_MULTIPLIER_1)
_W0, _W1 = np.uint64(_WEYL_0), np.uint64(_WEYL_1)


def derive_key(seed: int, *parts: str | int) -> Key:
    """Return the key of one stream of random numbers: the BLAKE2b hash of the JSON list of the seed and the parts.

    The parts name the stream: stage, layer, channel, purpose. ``"1"`` and ``1`` differ, as do ("ab", "c") and ("a", "bc").
    """
    text = json.dumps([int(seed), *(part if isinstance(part, str) else int(part) for part in parts)])
    digest = hashlib.blake2b(text.encode("ascii"), digest_size=8, person=b"simexm key").digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")


@njit(cache=True, nogil=True, forceinline=True)
def _round(x0, x1, x2, x3, k0, k1):  # type: ignore[no-untyped-def]
    """One round, and the key of the next, in uint64."""
    product0, product1 = _M0 * x0, _M1 * x2
    x0, x2 = (product1 >> _SHIFT) ^ x1 ^ k0, (product0 >> _SHIFT) ^ x3 ^ k1
    return x0, product1 & _MASK, x2, product0 & _MASK, (k0 + _W0) & _MASK, (k1 + _W1) & _MASK


@njit(cache=True, nogil=True, forceinline=True)
def philox(c0: int, c1: int, c2: int, c3: int, k0: int, k1: int) -> tuple[np.uint32, np.uint32, np.uint32, np.uint32]:
    """Return the four uint32 words of Philox4x32-10 at one counter; only the low 32 bits of each argument count."""
    x0, x1 = np.uint64(c0) & _MASK, np.uint64(c1) & _MASK
    x2, x3 = np.uint64(c2) & _MASK, np.uint64(c3) & _MASK
    a, b = np.uint64(k0) & _MASK, np.uint64(k1) & _MASK
    # Unrolled, since a loop over pixels is vectorised only without an inner loop (14 ns a call become 2).
    x0, x1, x2, x3, a, b = _round(x0, x1, x2, x3, a, b)
    x0, x1, x2, x3, a, b = _round(x0, x1, x2, x3, a, b)
    x0, x1, x2, x3, a, b = _round(x0, x1, x2, x3, a, b)
    x0, x1, x2, x3, a, b = _round(x0, x1, x2, x3, a, b)
    x0, x1, x2, x3, a, b = _round(x0, x1, x2, x3, a, b)
    x0, x1, x2, x3, a, b = _round(x0, x1, x2, x3, a, b)
    x0, x1, x2, x3, a, b = _round(x0, x1, x2, x3, a, b)
    x0, x1, x2, x3, a, b = _round(x0, x1, x2, x3, a, b)
    x0, x1, x2, x3, a, b = _round(x0, x1, x2, x3, a, b)
    x0, x1, x2, x3, a, b = _round(x0, x1, x2, x3, a, b)
    return np.uint32(x0), np.uint32(x1), np.uint32(x2), np.uint32(x3)


def philox_array(c0: Any, c1: Any, c2: Any, c3: Any, key: Key, xp: ModuleType = np) -> NDArray[np.uint32]:
    """Return Philox4x32-10 at counters that broadcast together, uint32, shape (4, *broadcast shape)."""
    counters = (xp.asarray(c).astype(xp.uint64) & xp.uint64(_WORD) for c in (c0, c1, c2, c3))
    x0, x1, x2, x3 = xp.broadcast_arrays(*counters)
    key0, key1 = (int(k) & _WORD for k in key)
    shift, mask = xp.uint64(32), xp.uint64(_WORD)
    for _ in range(ROUNDS):
        product0, product1 = xp.uint64(_MULTIPLIER_0) * x0, xp.uint64(_MULTIPLIER_1) * x2
        x0, x2 = (product1 >> shift) ^ x1 ^ xp.uint64(key0), (product0 >> shift) ^ x3 ^ xp.uint64(key1)
        x1, x3 = product1 & mask, product0 & mask
        key0, key1 = (key0 + _WEYL_0) & _WORD, (key1 + _WEYL_1) & _WORD
    words: NDArray[np.uint32] = xp.stack([x0, x1, x2, x3]).astype(xp.uint32)
    return words


def unit_double_array(w_hi: Any, w_lo: Any) -> Any:
    """Return a double in the open interval (0, 1) from two 32-bit words.

    It is an odd multiple of 2**-53 (52 random bits and a half): neither 0 nor 1 occurs, 1 - u is exact, and u and 1 - u are
    equally probable.
    """
    return (w_hi * 1048576.0 + (w_lo >> 12) + 0.5) * 2.0**-52


def unit_float32word_array(w: Any) -> Any:
    """Return the double (w + 1/2) / 2**32, in the open interval (0, 1), from one 32-bit word."""
    return (w + 0.5) * 2.0**-32


# Every step is exact, so one definition serves scalars and arrays.
unit_double = njit(cache=True, nogil=True)(unit_double_array)
unit_float32word = njit(cache=True, nogil=True)(unit_float32word_array)


def id_uniform(ids: Any, key: Key, xp: ModuleType = np) -> NDArray[np.float64]:
    """Return a number in (0, 1) for each cell id of up to 64 bits, the same wherever the cell occurs."""
    wide = xp.asarray(ids).astype(xp.uint64)
    words = philox_array(wide, wide >> xp.uint64(32), 0, 0, key, xp)
    uniform: NDArray[np.float64] = unit_double_array(words[0], words[1])
    return uniform
