"""Matrix product with a fixed order of summation, unlike BLAS, whose order depends on the CPU type.

Two forms give the same bits, one compiled and one of NumPy's elementwise operations; see `simexm.compiled`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simexm import compiled
from simexm.compiled import njit

Array = NDArray[np.float64]


def add_product(total: Array, a: Array, b: Array) -> None:
    """Add the matrix product of a (m, k) and b (k, n) to `total` (m, n).

    Groups of four terms are summed as (0 + 1) + (2 + 3) and added in order; up to three remaining terms are added one
    by one. So the product can be added in pieces if all but the last have a multiple of four terms.
    """
    if compiled.pays(a.size * b.shape[1]):
        _loops(total, a, b)
    else:
        _elementwise(total, a, b)


@njit(cache=True, nogil=True)
def _loops(total: Array, a: Array, b: Array) -> None:
    whole = a.shape[1] - a.shape[1] % 4
    for row in range(a.shape[0]):
        for k in range(0, whole, 4):  # four terms at a time save three of four loads and stores of the sums
            a0, a1, a2, a3 = a[row, k], a[row, k + 1], a[row, k + 2], a[row, k + 3]
            for j in range(b.shape[1]):
                total[row, j] += (a0 * b[k, j] + a1 * b[k + 1, j]) + (a2 * b[k + 2, j] + a3 * b[k + 3, j])
        for k in range(whole, a.shape[1]):
            for j in range(b.shape[1]):
                total[row, j] += a[row, k] * b[k, j]


def _elementwise(total: Array, a: Array, b: Array) -> None:
    if a.shape[0] > b.shape[1]:  # longer axis last, for NumPy's inner loop
        total, a, b = total.T, b.T, a.T
    a, b, result = a[:, :, None], np.ascontiguousarray(b), np.ascontiguousarray(total)
    first, second, third = (np.empty_like(result) for _ in range(3))
    whole = len(b) - len(b) % 4
    for k in range(0, whole, 4):
        np.multiply(a[:, k], b[k], out=first)
        np.multiply(a[:, k + 1], b[k + 1], out=second)
        first += second
        np.multiply(a[:, k + 2], b[k + 2], out=second)
        np.multiply(a[:, k + 3], b[k + 3], out=third)
        second += third
        first += second
        result += first
    for k in range(whole, len(b)):
        result += np.multiply(a[:, k], b[k], out=first)
    total[...] = result
