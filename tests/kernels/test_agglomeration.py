"""Agglomeration of a graph against a plain transcription of its rule; edges against sums over all faces."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from simexm.geometry.grid import Box
from simexm.kernels.objects.agglomeration import merged_by_mean, merged_by_threshold, roots
from simexm.kernels.objects.edges import edges, means, reduced


def graph(seed: int, nodes: int, number: int) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Edges between random nodes, each pair once, with areas and means that are exact and often equal."""
    rng = np.random.default_rng(seed)
    pairs = np.unique(np.sort(rng.integers(0, nodes, (number, 2)), axis=1), axis=0)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    return pairs, rng.integers(1, 5, len(pairs)).astype(float), rng.integers(0, 16, len(pairs)) / 16


def plain(pairs: Any, area: Any, mean: Any, threshold: float, nodes: int) -> NDArray[np.int64]:
    """Merge by the mean, looking at all edges in each step."""
    rows = [[int(a), int(b), w, w * m] for (a, b), w, m in zip(pairs, area, mean, strict=True)]
    of = np.arange(nodes)
    while rows:
        best = min(range(len(rows)), key=lambda n: rows[n][3] / rows[n][2])  # the first of equal ones
        a, b, w, total = rows[best]
        if total / w >= threshold:
            break
        low, high = min(a, b), max(a, b)
        of[of == high] = low
        found: dict[tuple[int, int], Any] = {}
        for row in rows:
            ends = sorted({low if end == high else end for end in row[:2]})
            if len(ends) == 2:
                key = (ends[0], ends[1])
                if key in found:
                    found[key][2] += row[2]
                    found[key][3] += row[3]
                else:
                    found[key] = [*ends, *row[2:]]
        rows = list(found.values())
    return of


@pytest.mark.parametrize("seed", range(12))
def test_the_lowest_mean_is_merged_first(seed: int) -> None:
    """All means differ, so that the order of the list does not matter."""
    pairs, area, _ = graph(seed, 40, 150)
    mean = (
        np.random.default_rng(seed).permutation(len(pairs)) / len(pairs)
        + np.random.default_rng(9).random(len(pairs)) / 1e4
    )
    expected = plain(pairs, area, mean, 0.45, 40)
    found = merged_by_mean(pairs[:, 0], pairs[:, 1], area, mean, 0.45, 40)
    assert np.array_equal(found, expected)
    assert 1 < np.unique(found).size < 40


def test_merging_stops_at_the_threshold_and_at_once_for_a_low_one() -> None:
    pairs, area, mean = graph(3, 500, 3000)
    assert np.array_equal(merged_by_mean(pairs[:, 0], pairs[:, 1], area, mean, 0.0, 500), np.arange(500))
    counts = [np.unique(merged_by_mean(pairs[:, 0], pairs[:, 1], area, mean, t, 500)).size for t in (0.2, 0.4, 0.6)]
    assert counts == sorted(counts, reverse=True)
    every = merged_by_mean(pairs[:, 0], pairs[:, 1], area, mean, 1.1, 500)
    parent = np.arange(500)
    merged_by_threshold(pairs[:, 0], pairs[:, 1], np.ones(len(pairs), np.bool_), parent)
    assert np.array_equal(every, roots(parent))


def test_components_follow_from_pieces_of_the_list_in_any_order() -> None:
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    pairs, _, mean = graph(5, 300, 260)
    joined = mean < 0.6
    one, other = np.arange(300), np.arange(300)
    merged_by_threshold(pairs[:, 0], pairs[:, 1], joined, one)
    for part in (slice(100, None), slice(0, 100)):
        merged_by_threshold(pairs[part, 0], pairs[part, 1], joined[part], other)
    assert np.array_equal(roots(one), roots(other))
    some = pairs[joined]
    count, names = connected_components(coo_matrix((np.ones(len(some)), some.T), (300, 300)), directed=False)
    first = np.unique(names, return_index=True)[1]
    assert count == np.unique(roots(one)).size
    assert np.array_equal(roots(one), first[names])


def test_edges_add_up_over_blocks_and_their_mean_is_that_over_all_faces() -> None:
    rng = np.random.default_rng(1)
    ids = rng.integers(0, 6, (9, 8, 7)).astype(np.uint64)
    values = rng.integers(0, 1000, ids.shape)
    whole = edges(ids, values, Box.of_shape((9, 8, 7)))
    parts = []
    for z in (0, 4):
        for x in (0, 5):
            box = Box((z, 0, x), (min(z + 4, 9) if z == 0 else 9, 8, 5 if x == 0 else 7))
            wide = Box(box.start, (min(box.stop[0] + 1, 9), 8, min(box.stop[2] + 1, 7)))
            parts.append(edges(ids[wide.slices], values[wide.slices], box.relative_to(wide.start)))
    added = reduced(np.concatenate([p for p, _ in parts]), np.concatenate([c for _, c in parts]))
    assert np.array_equal(added[0], whole[0])
    assert np.array_equal(added[1], whole[1])
    voxel = (50.0, 20.0, 10.0)
    area, mean = means(whole[1], voxel)
    for (a, b), found_area, found in zip(whole[0].tolist(), area, mean, strict=True):
        total = weight = 0.0
        for axis, face in enumerate((20 * 10, 50 * 10, 50 * 20)):
            one, other = np.moveaxis(ids, axis, 0)[:-1], np.moveaxis(ids, axis, 0)[1:]
            both = np.moveaxis(values, axis, 0)[:-1] + np.moveaxis(values, axis, 0)[1:]
            at = ((one == a) & (other == b)) | ((one == b) & (other == a))
            weight += at.sum() * face * 1e-6
            total += both[at].sum() / 2 * face * 1e-6
        assert found_area == pytest.approx(weight, rel=1e-12)
        assert found == pytest.approx(total / weight, rel=1e-12)
