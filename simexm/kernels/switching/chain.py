"""Dyes that switch: a Markov chain in continuous time for each emitter, and its time on in each frame.

A dwell is -log(u) / rate, with u a function of (key, emitter, number of the dwell). So the whole history of an emitter is a
function of the seed and its identity, and following it in several pieces gives the same bits as following it at once.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simexm.compiled import njit
from simexm.kernels.numbers.detmath import log
from simexm.random import Key, philox, unit_double

Array = NDArray[np.float64]

FULL = 1 << 24
"""Weight of an emitter that is on for all of an exposure."""
_ROOM = 1 << 20
_SIGN = np.uint64(0x7FFFFFFFFFFFFFFF)
_LOW, _SHIFT = np.uint64(0xFFFFFFFF), np.uint64(32)


class Law(NamedTuple):
    """Chain of a dye; states are numbered, and state 0 is on."""

    leaves: Array  # (states,): rate of leaving each state, per second; 0: it is never left
    share: Array  # (states, states): cumulated probabilities of the next state
    start: Array  # (states,): cumulated probabilities of the first state


class Clock(NamedTuple):
    """Frame f is exposed from before_s + f * frame_s on, for exposure_s."""

    before_s: float
    frame_s: float
    exposure_s: float


class States(NamedTuple):
    """Dwell of each emitter: its number, its state, the next state, and when it ends."""

    number: NDArray[np.uint32]
    state: NDArray[np.uint8]
    following: NDArray[np.uint8]
    ends_s: Array

    def copy(self) -> States:
        """Copy the arrays."""
        return States(self.number.copy(), self.state.copy(), self.following.copy(), self.ends_s.copy())

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return sum(column.nbytes for column in self)


class Flashes(NamedTuple):
    """Emitters that are on, in order of frame, then of emitter."""

    emitter: NDArray[np.int32]
    frame: NDArray[np.int32]
    weight: NDArray[np.int32]  # time on in the exposure, in units of exposure / FULL


@njit(cache=True, nogil=True)
def _ids(identity, key, out):  # type: ignore[no-untyped-def]
    for i in range(identity.shape[0]):
        row = identity[i]
        a, b, _, _ = philox(row[0], row[1], row[2], row[3], key[0], key[1])
        c, d, _, _ = philox(np.int64(a), np.int64(b), row[4], row[5], key[0], key[1])
        out[i] = np.int64(((np.uint64(c) << _SHIFT) | np.uint64(d)) & _SIGN)


def emitter_ids(identity: NDArray[np.int32], key: Key) -> NDArray[np.int64]:
    """Return a number of 63 bits for each identity (n, 6); of a million emitters two are alike in one run of 20 million."""
    out = np.empty(identity.shape[0], np.int64)
    _ids(identity, key, out)
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def _dwell(emitter, number, state, begins, law, key):  # type: ignore[no-untyped-def]
    """End of a dwell that begins in `state`, and the state after it."""
    rate = law.leaves[state]
    if rate <= 0.0:
        return math.inf, state
    low, high = np.int64(emitter & np.int64(0xFFFFFFFF)), np.int64(emitter >> np.int64(32))
    a, b, c, d = philox(number, low, high, 1, key[0], key[1])
    u = unit_double(c, d)
    following = 0
    while following < law.leaves.size - 1 and u >= law.share[state, following]:
        following += 1
    return begins - log(unit_double(a, b)) / rate, following


@njit(cache=True, nogil=True)
def _begin(emitters, law, key, number, state, following, ends):  # type: ignore[no-untyped-def]
    for i in range(emitters.size):
        low, high = np.int64(emitters[i] & np.int64(0xFFFFFFFF)), np.int64(emitters[i] >> np.int64(32))
        a, b, _, _ = philox(0, low, high, 0, key[0], key[1])
        u, first = unit_double(a, b), 0
        while first < law.start.size - 1 and u >= law.start[first]:
            first += 1
        number[i], state[i] = 0, first
        ends[i], following[i] = _dwell(emitters[i], 0, first, 0.0, law, key)


@njit(cache=True, nogil=True, error_model="numpy")
def _follow(emitters, start, first, frames, law, clock, key, states, out, n):  # type: ignore[no-untyped-def]
    """Follow emitters from number `start` on while there is room; return (next emitter, flashes written)."""
    stop = clock.before_s + (first + frames) * clock.frame_s
    whole = 1.0 / clock.exposure_s
    for i in range(start, emitters.size):
        if n + frames > out.emitter.size:
            return i, n
        number, state, following = np.int64(states.number[i]), states.state[i], states.following[i]
        ends = states.ends_s[i]
        begins = clock.before_s + first * clock.frame_s
        frame, lit = first, 0.0
        while True:
            if state == 0:
                upto = min(ends, stop)
                at = max(frame, np.int64(math.floor((begins - clock.before_s) / clock.frame_s)) - 1)
                while at < first + frames:
                    opens = clock.before_s + at * clock.frame_s
                    if opens >= upto:
                        break
                    here = min(upto, opens + clock.exposure_s) - max(begins, opens)
                    if here > 0.0:
                        if at != frame:
                            n = _flash(i, frame, lit * whole, out, n)
                            frame, lit = at, 0.0
                        lit += here
                    at += 1
            if ends >= stop:
                break
            begins, state, number = ends, following, number + 1
            ends, following = _dwell(emitters[i], number, state, begins, law, key)
        n = _flash(i, frame, lit * whole, out, n)
        states.number[i], states.state[i], states.following[i], states.ends_s[i] = number, state, following, ends
    return emitters.size, n


@njit(cache=True, nogil=True)
def _flash(emitter, frame, share, out, n):  # type: ignore[no-untyped-def]
    weight = np.int64(share * 16777216.0 + 0.5)
    if weight <= 0:
        return n
    out.emitter[n], out.frame[n], out.weight[n] = emitter, frame, weight
    return n + 1


def begin(emitters: NDArray[np.int64], law: Law, key: Key) -> States:
    """Return the states at time 0."""
    n = emitters.size
    states = States(np.zeros(n, np.uint32), np.zeros(n, np.uint8), np.zeros(n, np.uint8), np.zeros(n))
    _begin(emitters, law, key, *states)
    return states


def follow(
    emitters: NDArray[np.int64], first: int, frames: int, law: Law, clock: Clock, key: Key, states: States
) -> Flashes:
    """Return the flashes in the frames from `first` on, and move the states to their end.

    `states` are those of any time up to the beginning of frame `first`. Time on is rounded to 1 / FULL of the exposure.
    """
    found: list[Flashes] = []
    out = Flashes(*(np.empty(max(_ROOM, frames), np.int32) for _ in range(3)))
    at = 0
    while at < emitters.size:
        at, n = _follow(emitters, at, first, frames, law, clock, key, states, out, 0)
        found.append(Flashes(*(column[:n].copy() for column in out)))
    joined = [np.concatenate([np.zeros(0, np.int32), *columns]) for columns in zip(*found, strict=True)] or [
        np.zeros(0, np.int32) for _ in range(3)
    ]
    order = np.argsort(joined[1], kind="stable")
    return Flashes(*(column[order] for column in joined))
