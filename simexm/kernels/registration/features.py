"""Bright spots of two volumes, matched by the image around them, and the affine map on which most matches agree."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.float64]


def blobs(image: NDArray[np.float32], radii: tuple[float, ...], most: int, mask: NDArray[np.bool_] | None) -> Floats:
    """Find the brightest blobs of these radii: maxima, over place and radius, of the scale-normalised Laplacian of Gaussians.

    Parameters
    ----------
    image
        (z, y, x), of about isotropic voxels.
    radii
        Standard deviations of the Gaussians, voxels.
    most
        Most blobs to return.
    mask
        Voxels in which blobs may lie; None for all.

    Returns
    -------
    ndarray
        Voxel indices, (n, 3), the strongest response first.
    """
    response = np.full(image.shape, -np.inf, np.float32)
    for radius in radii:
        np.maximum(response, -(radius**2) * ndimage.gaussian_laplace(image, radius, mode="nearest"), out=response)
    near = ndimage.maximum_filter(response, size=2 * int(np.ceil(min(radii))) + 1, mode="nearest")
    found = (response == near) & (response > 0)
    if mask is not None:
        found &= mask
    places = np.argwhere(found)
    order = np.argsort(-response[found], kind="stable")[:most]
    return places[order].astype(np.float64)


def patches(image: NDArray[np.float32], places: Floats, half: int) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Cut the cubes of 2 `half` + 1 voxels around places, each of mean 0 and norm 1.

    Beyond the border they hold the image's mean.

    Returns
    -------
    tuple of ndarray
        Cubes, (m, voxels), and the rows of `places` that they belong to; cubes without contrast are left out.
    """
    side = 2 * half + 1
    padded = np.pad(image, half, constant_values=float(image.mean(dtype=np.float64)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (side, side, side))
    cubes = windows[tuple(places.astype(np.intp).T)].reshape(len(places), -1).astype(np.float32)
    cubes -= cubes.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(cubes, axis=1)
    some = np.flatnonzero(norm > 0)
    return cubes[some] / norm[some, None], some


def matches(
    one: NDArray[np.float32], other: NDArray[np.float32], least: float, slab: int = 1024
) -> tuple[NDArray[np.intp], NDArray[np.intp], Floats]:
    """Match cubes that are each other's most similar one.

    Parameters
    ----------
    one, other
        Normalised cubes of two images; see `patches`.
    least
        Lowest correlation of a match.
    slab
        Cubes compared at once, which bounds the memory.

    Returns
    -------
    tuple of ndarray
        Rows of `one`, rows of `other`, and correlations.
    """
    best, of_other, found = np.zeros(len(one), np.intp), np.zeros(len(other), np.intp), np.zeros(len(one))
    highest = np.full(len(other), -np.inf)
    if not len(one) or not len(other):
        return best[:0], of_other[:0], found[:0]
    for start in range(0, len(one), slab):
        alike = one[start : start + slab] @ other.T
        best[start : start + slab] = alike.argmax(axis=1)
        found[start : start + slab] = alike.max(axis=1)
        top, row = alike.max(axis=0), alike.argmax(axis=0) + start
        better = top > highest
        highest[better], of_other[better] = top[better], row[better]
    mutual = np.flatnonzero((of_other[best] == np.arange(len(one))) & (found >= least))
    return mutual, best[mutual], found[mutual]


def fit_affine(points: Floats, images: Floats) -> Floats:
    """Fit the affine map of `points` to `images`, both (n, 3), by least squares; (3, 4), the shift in the last column."""
    design = np.column_stack([points, np.ones(len(points))])
    return np.asarray(np.linalg.lstsq(design, images, rcond=None)[0].T, np.float64)


def fit_similarity(points: Floats, images: Floats, *, scaled: bool) -> Floats:
    """Fit rotation, shift and, if `scaled`, one scale by least squares, (3, 4).

    Umeyama, IEEE Trans. PAMI 13, 376 (1991).
    """
    centre, centre_image = points.mean(axis=0), images.mean(axis=0)
    p, q = points - centre, images - centre_image
    u, s, vt = np.linalg.svd(q.T @ p)
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = (u * sign) @ vt
    scale = (s * sign).sum() / (p**2).sum() if scaled else 1.0
    return np.column_stack([scale * rotation, centre_image - scale * rotation @ centre])


def ransac(
    points: Floats,
    images: Floats,
    tolerance: float,
    trials: int,
    strain: float,
    seed: int,
    slab: int = 512,
) -> tuple[Floats, NDArray[np.bool_]] | None:
    """Find the affine map on which most matches agree, from random quartets of matches (Fischler and Bolles 1981).

    Parameters
    ----------
    points, images
        Places of matches in both volumes, (n, 3).
    tolerance
        Largest distance of an agreeing match, in their unit.
    trials
        Number of quartets.
    strain
        Largest difference from 1 of a singular value of the map's linear part; it is never a reflection.
    seed
        Seed of the quartets.
    slab
        Quartets tried at once, which bounds the memory.

    Returns
    -------
    tuple of ndarray, or None
        The map, (3, 4), fitted to all that agree, and which do; None if no quartet gives a permitted map.
    """
    number = len(points)
    if number < _QUARTET:
        return None
    random = np.random.Generator(np.random.Philox(seed))
    design = np.column_stack([points, np.ones(number)])
    best: tuple[int, Floats] | None = None
    for start in range(0, trials, slab):
        some = random.integers(0, number, (min(slab, trials - start), _QUARTET))
        corners = design[some]
        regular = np.abs(np.linalg.det(corners)) > _FLAT
        if not regular.any():
            continue
        maps = np.linalg.solve(corners[regular], images[some[regular]]).transpose(0, 2, 1)
        stretch = np.linalg.svd(maps[:, :, :3], compute_uv=False)
        allowed = (np.abs(stretch - 1).max(axis=1) <= strain) & (np.linalg.det(maps[:, :, :3]) > 0)
        if not allowed.any():
            continue
        maps = maps[allowed]
        error = np.linalg.norm(np.einsum("nk,mik->mni", design, maps) - images, axis=2)
        agree = (error <= tolerance).sum(axis=1)
        top = int(agree.argmax())
        if best is None or agree[top] > best[0]:
            best = int(agree[top]), maps[top]
    if best is None:
        return None
    found = best[1]
    inliers = np.linalg.norm(design @ found.T - images, axis=1) <= tolerance
    for _ in range(_REFITS):
        if inliers.sum() < _QUARTET:
            return None
        found = fit_affine(points[inliers], images[inliers])
        now = np.linalg.norm(design @ found.T - images, axis=1) <= tolerance
        if np.array_equal(now, inliers):
            break
        inliers = now
    return found, inliers


_QUARTET = 4
_FLAT = 1e-6
"""Determinant below which four points lie in a plane."""
_REFITS = 20
