"""Fit emitters one by one by maximum likelihood, under the noise of the camera.

With d the electrons of a pixel by gain and offset, v the variance of its read noise, and f the excess of a multiplying
register (1, or 2 with one), the variance of d about its mean mu is f mu + v, and (d + v / f) / f is nearly Poisson
distributed with mean (mu + v / f) / f (Huang et al., Nat. Methods 10, 653, 2013). The likelihood of these is maximised by
damped scoring (Levenberg, Marquardt), and the inverse of Fisher's information bounds the variance of any unbiased estimate:
I_jk = sum over pixels of dmu/dj dmu/dk / (f mu + v).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simexm.compiled import njit
from simexm.kernels.localisation.models import (
    BACKGROUND,
    GAUSSIAN,
    LAST,
    PARAMETERS,
    PHOTONS,
    X,
    Y,
    gaussian,
    solve,
    tabulated,
)

Array = NDArray[np.float64]
REACH_PX = 2.0
"""Largest distance of an estimate from the pixel where the emitter was detected."""
_SETTLED = 1e-7
"""Of the gain in likelihood of a step: parameters then move by a few ten-thousandths of their standard deviation."""
_LEAST_PHOTONS, _LEAST_BACKGROUND = 1.0, 1e-3
ITERATIONS = 60

jit = njit(cache=True, nogil=True)


class Model(NamedTuple):
    """The image of an emitter.

    Attributes
    ----------
    kind
        GAUSSIAN or TABLE.
    side
        Pixels of the square that is fitted, odd.
    free
        Parameters that are fitted: 4, or 5 with the last one.
    low, high
        Limits of the last parameter.
    starts
        Values of the last parameter from which the best is chosen to begin with.
    table, per_pixel
        See `models.tabulated`; the table has two further planes on each side of the limits.
    """

    kind: int
    side: int
    free: int
    low: float
    high: float
    starts: Array
    table: Array
    per_pixel: int


class Fitted(NamedTuple):
    """Estimates (n, 5), their bounds as variances (n, 5), 0 of those held, and the likelihood.

    Attributes
    ----------
    log_likelihood
        Relative to that of a model with the data as its mean, so at most 0; of n pixels that fit, -n / 2 on average.
    settled
        Whether it converged inside all limits.
    """

    theta: Array
    variance: Array
    log_likelihood: Array
    settled: NDArray[np.bool_]


def fit(
    frames: NDArray[np.float32],
    read_variance: NDArray[np.float32],
    excess: float,
    corners: NDArray[np.int64],
    start: Array,
    model: Model,
    iterations: int = ITERATIONS,
) -> Fitted:
    """Fit emitters in squares of pixels.

    Parameters
    ----------
    frames
        Electrons (t, y, x).
    read_variance
        Of each pixel (y, x), electrons squared.
    excess
        1, or 2 behind a multiplying register.
    corners
        Frame, row and column of the first pixel of each square, (n, 3).
    start
        Parameters to begin with, (n, 5), places from that pixel. With no photons, photons and background are estimated, and
        the last parameter is chosen among the model's `starts`.
    model
        The image of an emitter.
    iterations
        0 finds the bound at `start`.
    """
    n = len(corners)
    theta, variance = np.array(start, np.float64), np.zeros((n, PARAMETERS))
    likelihood, settled = np.zeros(n), np.zeros(n, np.bool_)
    _fit_all(frames, read_variance, excess, corners, *model, iterations, theta, variance, likelihood, settled)
    return Fitted(theta, variance, likelihood, settled)


@jit
def _image(kind, theta, table, per_pixel, lines, scratch, image):  # type: ignore[no-untyped-def]
    if kind == GAUSSIAN:
        gaussian(theta, lines, image)
    else:
        tabulated(theta, table, per_pixel, scratch, image)


@jit
def _likelihood(theta, image, data, read, excess):  # type: ignore[no-untyped-def]
    """Negative logarithm, relative to that of a perfect model; of scaled Poisson counts."""
    total, side = 0.0, data.shape[0]
    for i in range(side):
        for j in range(side):
            shift = read[i, j] / excess
            mean = (theta[PHOTONS] * max(image[0, i, j], 0.0) + theta[BACKGROUND] + shift) / excess
            count = (data[i, j] + shift) / excess
            total += mean - count
            if count > 0.0:
                total += count * math.log(count / mean)
            else:
                total -= count * math.log(mean)
    return total


@jit
def _information(theta, image, data, read, excess, free, matrix, gradient):  # type: ignore[no-untyped-def]
    """Fisher's information, and the gradient of the likelihood."""
    side = data.shape[0]
    matrix[:], gradient[:] = 0.0, 0.0
    by = np.empty(PARAMETERS)
    n, background = theta[PHOTONS], theta[BACKGROUND]
    for i in range(side):
        for j in range(side):
            mean = n * max(image[0, i, j], 0.0) + background
            weight = 1.0 / (excess * mean + read[i, j])
            by[Y], by[X], by[PHOTONS] = n * image[1, i, j], n * image[2, i, j], image[0, i, j]
            by[BACKGROUND], by[LAST] = 1.0, n * image[3, i, j]
            miss = (data[i, j] - mean) * weight
            for a in range(free):
                gradient[a] += by[a] * miss
                for b in range(a + 1):
                    matrix[a, b] += by[a] * by[b] * weight


@jit
def _begin(theta, image, data):  # type: ignore[no-untyped-def]
    """Photons and background by least squares."""
    side = data.shape[0]
    count = side * side
    light = level = square = product = 0.0
    for i in range(side):
        for j in range(side):
            light += image[0, i, j]
            level += data[i, j]
            square += image[0, i, j] ** 2
            product += image[0, i, j] * data[i, j]
    theta[PHOTONS] = max((product - light * level / count) / max(square - light * light / count, 1e-12), 10.0)
    theta[BACKGROUND] = max((level - theta[PHOTONS] * light) / count, 0.1)


@jit
def _limit(theta, first, low, high):  # type: ignore[no-untyped-def]
    """Keep parameters inside their limits; return whether one was outside."""
    outside = False
    for a in range(PARAMETERS):
        least, most = first[a] - REACH_PX, first[a] + REACH_PX
        if a == PHOTONS:
            least, most = _LEAST_PHOTONS, 1e12
        elif a == BACKGROUND:
            least, most = _LEAST_BACKGROUND, 1e12
        elif a == LAST:
            least, most = low, high
        if theta[a] < least or theta[a] > most:
            theta[a] = min(max(theta[a], least), most)
            outside = outside or a != BACKGROUND
    return outside


@jit
def _climb(  # type: ignore[no-untyped-def]
    kind, free, low, high, table, per_pixel, data, read, excess, iterations, theta, lines, scratch, image, matrix
):
    """Maximise the likelihood; return its negative logarithm, and whether it settled inside all limits."""
    first, gradient, step = theta.copy(), np.empty(PARAMETERS), np.zeros(PARAMETERS)
    better = theta.copy()
    _image(kind, theta, table, per_pixel, lines, scratch, image)
    loss = _likelihood(theta, image, data, read, excess)
    damping, settled, found, outside = 1e-3, False, loss, False
    for _ in range(iterations):
        _information(theta, image, data, read, excess, free, matrix, gradient)
        while damping < 1e8:
            step[:] = 0.0
            outside = True
            if solve(matrix, free, damping, gradient, step):
                for a in range(PARAMETERS):
                    better[a] = theta[a] + step[a]
                outside = _limit(better, first, low, high)
                _image(kind, better, table, per_pixel, lines, scratch, image)
                found = _likelihood(better, image, data, read, excess)
                if found <= loss + 1e-9:
                    break
            damping *= 8.0
        if damping >= 1e8:
            break
        promised = 0.0
        for a in range(free):
            promised += step[a] * gradient[a]
        for a in range(PARAMETERS):
            theta[a] = better[a]
        loss, damping = found, damping / 8.0
        if promised < _SETTLED:
            settled = not outside
            break
    _image(kind, theta, table, per_pixel, lines, scratch, image)
    _information(theta, image, data, read, excess, free, matrix, gradient)
    return loss, settled


@jit
def _choose(kind, starts, table, per_pixel, data, read, excess, theta, lines, scratch, image):  # type: ignore[no-untyped-def]
    """Set photons, background and the last parameter to the most likely of the starts."""
    chosen, least = theta.copy(), np.inf
    for last in starts:
        theta[LAST] = last
        _image(kind, theta, table, per_pixel, lines, scratch, image)
        _begin(theta, image, data)
        loss = _likelihood(theta, image, data, read, excess)
        if loss < least:
            least = loss
            chosen[:] = theta
    theta[:] = chosen


@jit
def _fit_all(  # type: ignore[no-untyped-def]
    frames, read_variance, excess, corners, kind, side, free, low, high, starts, table, per_pixel, iterations,
    theta, variance, likelihood, settled,
):  # fmt: skip
    nodes = table.shape[1]
    lines, scratch = np.empty((2, 3, side)), np.empty((5, nodes, nodes))
    image, matrix = np.empty((4, side, side)), np.empty((PARAMETERS, PARAMETERS))
    unit, column = np.zeros(PARAMETERS), np.zeros(PARAMETERS)
    for s in range(corners.shape[0]):
        t, i, j = corners[s]
        data, read = frames[t, i : i + side, j : j + side], read_variance[i : i + side, j : j + side]
        if theta[s, PHOTONS] <= 0.0:
            _choose(kind, starts, table, per_pixel, data, read, excess, theta[s], lines, scratch, image)
        loss, done = _climb(
            kind,
            free,
            low,
            high,
            table,
            per_pixel,
            data,
            read,
            excess,
            iterations,
            theta[s],
            lines,
            scratch,
            image,
            matrix,
        )
        likelihood[s], settled[s] = -loss, done
        for a in range(free):
            unit[:], unit[a] = 0.0, 1.0
            if solve(matrix, free, 0.0, unit, column):
                variance[s, a] = column[a]
            else:
                variance[s, a], settled[s] = np.inf, False
