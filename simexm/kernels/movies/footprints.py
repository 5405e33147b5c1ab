"""Similarity of footprints, and their one-to-one matching. Footprints are rows of sparse matrices, (unit, pixel)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import linear_sum_assignment
from scipy.sparse.csgraph import connected_components

Sparse = Any
"""A sparse array of SciPy, in rows (CSR)."""


def masks(weights: Sparse, share: float) -> Sparse:
    """Return the fewest pixels of each row that hold this share of its energy, the sum of squares; pixels that tie all count.

    This is the convention of CNMF. A row of zeros has no pixel.
    """
    rows: Sparse = sparse.csr_array(weights, dtype=np.float64)
    keep = np.zeros(rows.nnz, np.bool_)
    for a, b in zip(rows.indptr[:-1], rows.indptr[1:], strict=True):
        energy = rows.data[a:b] ** 2
        largest = np.sort(energy)[::-1]
        held = np.cumsum(largest)
        if b > a and held[-1] > 0:
            least = largest[min(int(np.searchsorted(held, share * held[-1])), b - a - 1)]
            keep[a:b] = (energy >= least) & (energy > 0)
    # new arrays: SciPy would share those of `weights`
    row = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))[keep]
    return sparse.csr_array((np.ones(row.size), (row, rows.indices[keep])), shape=(rows.shape[0], rows.shape[1]))


def iou(found: Sparse, true: Sparse) -> Sparse:
    """Return intersection over union of masks, (found, true)."""
    both = sparse.coo_array(found @ true.T)
    one, other = (np.asarray(m.sum(axis=1)).ravel() for m in (found, true))
    either = one[both.row] + other[both.col] - both.data
    return sparse.csr_array((both.data / either, (both.row, both.col)), shape=both.shape)


def cosine(found: Sparse, true: Sparse) -> Sparse:
    """Return the cosine between weights, (found, true)."""
    return sparse.csr_array(_scaled(found, 2) @ _scaled(true, 2).T)


def weighted_jaccard(found: Sparse, true: Sparse) -> Sparse:
    """Return the sum of the smaller by the sum of the larger weights of pixels, (found, true); each footprint sums to 1."""
    one, other = _scaled(found, 1), _scaled(true, 1)
    near = sparse.coo_array(one @ other.T)
    dense = np.zeros(one.shape[1])
    values = np.zeros(near.nnz)
    for row in np.unique(near.row):
        a, b = one.indptr[row], one.indptr[row + 1]
        dense[one.indices[a:b]] = one.data[a:b]
        for n in np.flatnonzero(near.row == row):
            c, d = other.indptr[near.col[n]], other.indptr[near.col[n] + 1]
            smaller = np.minimum(dense[other.indices[c:d]], other.data[c:d]).sum()
            values[n] = smaller / (2 - smaller)
        dense[one.indices[a:b]] = 0
    return sparse.csr_array((values, (near.row, near.col)), shape=near.shape)


def _scaled(weights: Sparse, power: int) -> Sparse:
    """Divide each row by its norm; negative weights count as zero."""
    rows = sparse.csr_array(weights, dtype=np.float64, copy=True)
    rows.data = np.maximum(rows.data, 0)
    norm = np.asarray((rows**power).sum(axis=1)).ravel() ** (1 / power)
    rows.data /= np.repeat(np.where(norm > 0, norm, 1), np.diff(rows.indptr))
    return rows


def match(similarity: Sparse, least: float) -> NDArray[np.int64]:
    """Match rows to columns one to one, with the largest sum of similarities, each at least `least`; (n, 2), by rows.

    The Hungarian algorithm runs on each group of units that overlap.
    """
    pairs = sparse.coo_array(similarity)
    good = pairs.data >= max(least, 1e-12)
    row, column, value = pairs.row[good], pairs.col[good], pairs.data[good]
    count = sum(pairs.shape)
    graph = sparse.coo_array((value, (row, column + pairs.shape[0])), shape=(count, count))
    group = connected_components(graph, directed=False)[1][row]
    found = [np.empty((0, 2), np.int64)]
    order = np.argsort(group, kind="stable")
    for part in np.split(order, np.flatnonzero(np.diff(group[order])) + 1):
        rows, r = np.unique(row[part], return_inverse=True)
        columns, c = np.unique(column[part], return_inverse=True)
        gain = np.zeros((rows.size, columns.size))
        gain[r, c] = value[part]
        i, j = linear_sum_assignment(gain, maximize=True)
        real = gain[i, j] > 0
        found.append(np.stack([rows[i[real]], columns[j[real]]], axis=1).astype(np.int64))
    joined = np.concatenate(found)
    return joined[np.argsort(joined[:, 0], kind="stable")]


def moved(weights: Sparse, shape: tuple[int, int], by: tuple[int, int]) -> Sparse:
    """Move footprints by whole pixels (y, x); what leaves the image is lost."""
    rows = sparse.coo_array(weights)
    y, x = rows.col // shape[1] + by[0], rows.col % shape[1] + by[1]
    inside = (y >= 0) & (y < shape[0]) & (x >= 0) & (x < shape[1])
    place = (rows.row[inside], y[inside] * shape[1] + x[inside])
    return sparse.csr_array((rows.data[inside], place), shape=rows.shape)


def best_offset(found: Sparse, true: Sparse, shape: tuple[int, int], largest: int) -> tuple[int, int]:
    """Return the move (y, x) of the found footprints, in whole pixels, at which their sum correlates best with the true one's."""
    one, other = (np.asarray(_scaled(w, 2).sum(axis=0)).reshape(shape) for w in (found, true))
    padded = tuple(n + largest for n in shape)
    spectrum = np.conj(np.fft.rfft2(one, padded)) * np.fft.rfft2(other, padded)
    correlation = np.fft.irfft2(spectrum, padded)
    places = range(-largest, largest + 1)
    near = np.array([[correlation[y, x] for x in places] for y in places])
    y, x = np.unravel_index(int(np.argmax(near)), near.shape)
    return int(y) - largest, int(x) - largest
