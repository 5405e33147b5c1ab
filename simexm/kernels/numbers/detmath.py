"""exp, log and the normal quantile from +, -, *, /, sqrt and the bits of a double: bit-identical on every machine.

Mathematical libraries (and NumPy's vector code for a CPU type) can differ in the last bit of a transcendental function,
and a draw that compares it with another number would depend on the machine. IEEE 754 defines the five operations used
here exactly, as long as the compiler does not contract them (numba without fastmath does not).

Functions without suffix are compiled and take scalars; those ending in ``_array`` take NumPy (or, by ``xp``, CuPy)
arrays and return the same bits, because they share the formulas and differ only in branching.
"""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import numpy as np

from simexm.compiled import njit

_LN2_HI, _LN2_LO = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_INV_LN2 = 1.44269504088896338700
_SQRT_2 = 1.4142135623730951
_TINY = 2.0**-1022  # smallest normal double; below it results depend on the flush-to-zero flag of the CPU
EXP_LOWEST, EXP_HIGHEST = -708.0, 709.0
"""`exp` is 0 below and infinite above this range, in which no result is subnormal."""

CUT_SIGMA = 4.0
"""Bound of `normal_quantile_cut`."""
CENTRAL = 0.425
"""Range of `quantile_centre`."""
_CUT_TAIL = 3.167124183311992e-05  # share of a normal distribution below -4 sigma


def _exp_near_zero(x: Any, k: Any) -> Any:
    """exp(x - k ln 2) for |x - k ln 2| <= ln(2) / 2; FDLIBM e_exp.c (Sun Microsystems 1993), error below 1 ulp."""
    hi = x - k * _LN2_HI
    lo = k * _LN2_LO
    r = hi - lo
    t = r * r
    p = 6.61375632143793436117e-05 + t * (-1.65339022054652515390e-06 + t * 4.13813679705723846039e-08)
    c = r - t * (1.66666666666666019037e-01 + t * (-2.77777777770155933842e-03 + t * p))
    return 1.0 - ((lo - (r * c) / (2.0 - c)) - hi)


def _log_of_parts(f: Any, k: Any) -> Any:
    """log(2**k (1 + f)) for sqrt(1/2) <= 1 + f <= sqrt(2); FDLIBM e_log.c (Sun Microsystems 1993), below 1 ulp."""
    s = f / (2.0 + f)
    z = s * s
    w = z * z
    odd = 2.222219843214978396e-01 + w * 1.531383769920937332e-01
    odd = w * (3.999999999940941908e-01 + w * odd)
    even = 1.818357216161805012e-01 + w * 1.479819860511658591e-01
    even = z * (6.666666666666735130e-01 + w * (2.857142874366239149e-01 + w * even))
    half_square = 0.5 * f * f
    return k * _LN2_HI - ((half_square - (s * (half_square + (odd + even)) + k * _LN2_LO)) - f)


def _quantile_centre(q: Any) -> Any:
    """Normal quantile of q + 1/2 for |q| <= 0.425 (Wichura 1988, AS 241, PPND16)."""
    r = 0.180625 - q * q
    a = ((r * 2.5090809287301226727e3 + 3.3430575583588128105e4) * r + 6.7265770927008700853e4) * r
    a = (((a + 4.5921953931549871457e4) * r + 1.3731693765509461125e4) * r + 1.9715909503065514427e3) * r
    a = (a + 1.3314166789178437745e2) * r + 3.3871328727963666080e0
    b = ((r * 5.2264952788528545610e3 + 2.8729085735721942674e4) * r + 3.9307895800092710610e4) * r
    b = (((b + 2.1213794301586595867e4) * r + 5.3941960214247511077e3) * r + 6.8718700749205790830e2) * r
    b = (b + 4.2313330701600911252e1) * r + 1.0
    return q * a / b


def _quantile_tail(root: Any) -> Any:
    """Magnitude of the normal quantile at a tail t, root = sqrt(-log(t)) in [1.6, 5] (PPND16)."""
    r = root - 1.6
    a = ((r * 7.74545014278341407640e-4 + 2.27238449892691845833e-2) * r + 2.41780725177450611770e-1) * r
    a = (((a + 1.27045825245236838258e0) * r + 3.64784832476320460504e0) * r + 5.76949722146069140550e0) * r
    a = (a + 4.63033784615654529590e0) * r + 1.42343711074968357734e0
    b = ((r * 1.05075007164441684324e-9 + 5.47593808499534494600e-4) * r + 1.51986665636164571966e-2) * r
    b = (((b + 1.48103976427480074590e-1) * r + 6.89767334985100004550e-1) * r + 1.67638483018380384940e0) * r
    b = (b + 2.05319162663775882187e0) * r + 1.0
    return a / b


def _quantile_far_tail(root: Any) -> Any:
    """Magnitude of the normal quantile at a tail t, root = sqrt(-log(t)) in [5, 27] (PPND16)."""
    r = root - 5.0
    a = ((r * 2.01033439929228813265e-7 + 2.71155556874348757815e-5) * r + 1.24266094738807843860e-3) * r
    a = (((a + 2.65321895265761230930e-2) * r + 2.96560571828504891230e-1) * r + 1.78482653991729133580e0) * r
    a = (a + 5.46378491116411436990e0) * r + 6.65790464350110377720e0
    b = ((r * 2.04426310338993978564e-15 + 1.42151175831644588870e-7) * r + 1.84631831751005468180e-5) * r
    b = (((b + 7.86869131145613259100e-4) * r + 1.48753612908506148525e-2) * r + 1.36929880922735805310e-1) * r
    b = (b + 5.99832206555887937690e-1) * r + 1.0
    return a / b


# The same formulas, compiled for scalars.
_exp_near_zero_1 = njit(cache=True, nogil=True, error_model="numpy")(_exp_near_zero)
_log_of_parts_1 = njit(cache=True, nogil=True, error_model="numpy")(_log_of_parts)
quantile_centre = njit(cache=True, nogil=True, error_model="numpy")(_quantile_centre)
_quantile_tail_1 = njit(cache=True, nogil=True, error_model="numpy")(_quantile_tail)
_quantile_far_tail_1 = njit(cache=True, nogil=True, error_model="numpy")(_quantile_far_tail)


@njit(cache=True, nogil=True)
def exp(x: float) -> float:
    """Return e**x within 1 ulp; 0 below -708 and infinity above 709."""
    if x < EXP_LOWEST:
        return 0.0
    if x > EXP_HIGHEST:
        return math.inf
    if x != x:
        return math.nan
    k = math.floor(x * _INV_LN2 + 0.5)
    scale = np.int64((np.int64(k) + 1023) << 52).view(np.float64)
    return float(_exp_near_zero_1(x, float(k)) * scale)


@njit(cache=True, nogil=True)
def log(x: float) -> float:
    """Return the natural logarithm within 1 ulp; -inf below 2**-1022, NaN for negative numbers."""
    if not x >= _TINY:
        return -math.inf if x >= 0.0 else math.nan
    if x == math.inf:
        return x
    bits = np.float64(x).view(np.int64)
    k = (bits >> 52) - 1023
    m = np.int64((bits & 0xFFFFFFFFFFFFF) | 0x3FF0000000000000).view(np.float64)
    if m > _SQRT_2:
        m *= 0.5
        k += 1
    return float(_log_of_parts_1(m - 1.0, float(k)))


@njit(cache=True, nogil=True)
def normal_quantile_tail(u: float) -> float:
    """Return `normal_quantile` of u further than `CENTRAL` from 1/2."""
    q = u - 0.5
    tail = u if q < 0.0 else 1.0 - u
    root = math.sqrt(-log(tail))
    magnitude = _quantile_tail_1(root) if root <= 5.0 else _quantile_far_tail_1(root)
    return float(-magnitude if q < 0.0 else magnitude)


@njit(cache=True, nogil=True, error_model="numpy")
def normal_quantile_tails(u, out):  # type: ignore[no-untyped-def]
    """Set out[i] to `normal_quantile_tail(u[i])`, float64, (n,), in a fraction of the time of separate calls."""
    for i in range(u.size):  # `log` without branches, which numba vectorises
        tail = min(u[i], 1.0 - u[i])
        bits = np.float64(tail).view(np.int64)
        m = np.int64((bits & 0xFFFFFFFFFFFFF) | 0x3FF0000000000000).view(np.float64)
        high = m > _SQRT_2
        m = m * 0.5 if high else m
        out[i] = math.sqrt(-_log_of_parts_1(m - 1.0, float((bits >> 52) - 1023 + np.int64(high))))
    far = 0
    for i in range(u.size):
        far += out[i] > 5.0
        magnitude = _quantile_tail_1(out[i])
        out[i] = -magnitude if u[i] < 0.5 else magnitude
    if far:
        for i in range(u.size):
            if min(u[i], 1.0 - u[i]) < 2e-11:  # where the root is above 4.96
                out[i] = normal_quantile_tail(u[i])


@njit(cache=True, nogil=True)
def normal_quantile(u: float) -> float:
    """Return the standard normal quantile of u in (0, 1) to 1e-15 relative (Wichura 1988, AS 241, PPND16)."""
    q = u - 0.5
    if abs(q) <= CENTRAL:
        return float(quantile_centre(q))
    return float(normal_quantile_tail(u))


@njit(cache=True, nogil=True)
def normal_quantile_cut(u: float) -> float:
    """Return the quantile of u in (0, 1) of the standard normal truncated at 4 sigma (renormalised)."""
    x = normal_quantile(_CUT_TAIL + u * (1.0 - 2.0 * _CUT_TAIL))
    return float(min(max(x, -CUT_SIGMA), CUT_SIGMA))


@njit(cache=True, nogil=True, error_model="numpy")
def normal_quantile_cut_many(u, out):  # type: ignore[no-untyped-def]
    """Set out[i] to `normal_quantile_cut(u[i])`, float64, (n,), in a third of the time of separate calls."""
    for i in range(u.size):  # treat all as central, which 85 % are: without a branch the loop is vectorised
        out[i] = quantile_centre(_CUT_TAIL + u[i] * (1.0 - 2.0 * _CUT_TAIL) - 0.5)
    for i in range(u.size):
        if not abs(_CUT_TAIL + u[i] * (1.0 - 2.0 * _CUT_TAIL) - 0.5) <= CENTRAL:
            out[i] = normal_quantile_cut(u[i])


def exp_array(x: Any, xp: ModuleType = np) -> Any:
    """Return `exp` of each element."""
    x = xp.asarray(x, dtype=xp.float64)
    inside = (x >= EXP_LOWEST) & (x <= EXP_HIGHEST)
    safe = xp.where(inside, x, 0.0)
    k = xp.floor(safe * _INV_LN2 + 0.5)
    scale = ((k.astype(xp.int64) + 1023) << 52).view(xp.float64)
    outside = xp.where(x < EXP_LOWEST, 0.0, xp.where(x > EXP_HIGHEST, math.inf, math.nan))
    return xp.where(inside, _exp_near_zero(safe, k) * scale, outside)


def log_array(x: Any, xp: ModuleType = np) -> Any:
    """Return `log` of each element."""
    x = xp.asarray(x, dtype=xp.float64)
    inside = (x >= _TINY) & (x < math.inf)
    bits = xp.where(inside, x, 1.0).view(xp.int64)
    k = (bits >> 52) - 1023
    m = ((bits & 0xFFFFFFFFFFFFF) | 0x3FF0000000000000).view(xp.float64)
    high = m > _SQRT_2
    m, k = xp.where(high, m * 0.5, m), xp.where(high, k + 1, k)
    outside = xp.where(x >= _TINY, math.inf, xp.where(x >= 0.0, -math.inf, math.nan))
    return xp.where(inside, _log_of_parts(m - 1.0, k.astype(xp.float64)), outside)


def expm1_array(x: Any) -> Any:
    """Return e**x - 1 of each element within a few ulp, also near 0: `np.expm1`, bit-identical on every machine.

    (u - 1) x / log(u) with u = exp(x), in which the rounding of u cancels (Higham, Accuracy and Stability of Numerical
    Algorithms, 2nd ed., section 1.14.1, after Kahan).
    """
    x = np.asarray(x, dtype=np.float64)
    u = exp_array(x)
    curved = (u != 1.0) & (u > 0.0) & (u < math.inf)
    v = np.where(curved, u, 2.0)
    return np.where(curved, (v - 1.0) * np.where(curved, x, 0.0) / log_array(v), np.where(u == 1.0, x, u - 1.0))


def normal_quantile_array(u: Any, xp: ModuleType = np) -> Any:
    """Return `normal_quantile` of each element."""
    u = xp.asarray(u, dtype=xp.float64)
    q = u - 0.5
    central = abs(q) <= CENTRAL
    root = xp.sqrt(-log_array(xp.where(central, 0.05, xp.where(q < 0.0, u, 1.0 - u)), xp))
    # Both formulas are evaluated for all elements: neither has a pole outside its range.
    magnitude = xp.where(root <= 5.0, _quantile_tail(root), _quantile_far_tail(root))
    return xp.where(central, _quantile_centre(xp.where(central, q, 0.0)), xp.where(q < 0.0, -magnitude, magnitude))


def normal_quantile_cut_array(u: Any, xp: ModuleType = np) -> Any:
    """Return `normal_quantile_cut` of each element."""
    x = normal_quantile_array(_CUT_TAIL + xp.asarray(u, dtype=xp.float64) * (1.0 - 2.0 * _CUT_TAIL), xp)
    return xp.minimum(xp.maximum(x, -CUT_SIGMA), CUT_SIGMA)
