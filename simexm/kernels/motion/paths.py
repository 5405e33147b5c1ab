"""Random paths in time, frame after frame: walk, Ornstein-Uhlenbeck process, jumps, damped oscillator.

Each is an exact sample of its continuous process at the times of the frames. The draw of a frame is a function of the key and
the frame, so that a longer path begins with the shorter one.
"""

from __future__ import annotations

import math
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from simexm.kernels.numbers.detmath import normal_quantile_array
from simexm.random import Key, id_uniform

Array = NDArray[np.float64]
_DIGITS = 12
"""Digits of coefficients: no last bit of a mathematical library decides a path."""


def _uniform(frames: int, key: Key) -> Array:
    return np.asarray(id_uniform(np.arange(frames, dtype=np.uint64), key), np.float64)


def _normal(frames: int, key: Key) -> Array:
    return np.asarray(normal_quantile_array(_uniform(frames, key)), np.float64)


def walk(frames: int, step: float, key: Key) -> Array:
    """Return a random walk from 0, whose steps have the standard deviation `step`."""
    steps = step * _normal(frames, key)
    steps[:1] = 0.0
    return np.cumsum(steps)


def relaxing(frames: int, sd: float, steps: float, key: Key) -> Array:
    """Return an Ornstein-Uhlenbeck process of this standard deviation, correlated over so many frames, from its steady state."""
    keep = round(math.exp(-1 / steps), _DIGITS)
    kicks = sd * math.sqrt(1 - keep * keep) * _normal(frames, key)
    if frames:
        kicks[0] = sd * _normal(1, key)[0]
    return np.fromiter(accumulate(kicks.tolist(), lambda x, kick: keep * x + kick), np.float64, frames)


def jumping(frames: int, rate: float, sd: float, steps: float, keys: tuple[Key, Key]) -> Array:
    """Return jumps of this standard deviation, `rate` in a frame, from which the tissue returns over so many frames."""
    keep = round(math.exp(-1 / steps), _DIGITS)
    happens = _uniform(frames, keys[0]) < round(-math.expm1(-rate), _DIGITS)
    kicks = np.where(happens, sd * _normal(frames, keys[1]), 0.0)
    return np.fromiter(accumulate(kicks.tolist(), lambda x, kick: keep * x + kick), np.float64, frames)


def ringing(frames: int, sd: float, turn: float, damping: float, keys: tuple[Key, Key]) -> Array:
    """Return a damped harmonic oscillator that noise drives, from its steady state.

    x'' + 2 d w x' + w^2 x = noise, with `turn` = w times the time of a frame and `damping` = d < 1. In the steady state x and
    x' / w are independent and have one variance, which with the propagator of a frame gives the covariance of its kicks.
    """
    down = math.sqrt(1 - damping * damping)
    decay, c, s = math.exp(-damping * turn), math.cos(down * turn), math.sin(down * turn)
    a, b = decay * (c + damping / down * s), decay * s / down
    d = decay * (c - damping / down * s)
    a, b, d = (round(v, _DIGITS) for v in (a, b, d))  # propagator of (x, x' / w): [[a, b], [-b, d]]
    xx, xv, vv = 1 - a * a - b * b, a * b - b * d, 1 - b * b - d * d
    first = math.sqrt(max(xx, 0.0))
    mixed = xv / first if first else 0.0
    last = math.sqrt(max(vv - mixed * mixed, 0.0))
    u, v = _normal(frames, keys[0]), _normal(frames, keys[1])
    out = np.empty(frames)
    x = y = 0.0
    for n, (p, q) in enumerate(zip(u.tolist(), v.tolist(), strict=True)):
        if n:
            x, y = a * x + b * y + first * p, d * y - b * x + mixed * p + last * q
        else:
            x, y = p, q
        out[n] = x
    return sd * out


def stride(frames: int, amplitude: float, turns: float, key: Key) -> Array:
    """Return a sine of random phase, `turns` periods in a frame."""
    phase = float(_uniform(1, key)[0])
    return np.asarray(amplitude * np.round(np.sin(2 * math.pi * ((np.arange(frames) * turns + phase) % 1.0)), _DIGITS))
