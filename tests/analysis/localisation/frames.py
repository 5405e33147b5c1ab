"""Movies of blinking points with their truth, made apart from the package's own imaging: closed forms and direct sums."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import zarr
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.special import erf

from simexm.analysis.localisation.camera import FrameCamera
from simexm.analysis.localisation.optics import Lens
from simexm.kernels.diffraction import pupil
from simexm.kernels.localisation.response import Images

PIXEL_NM = 100.0
Columns = dict[str, NDArray[Any]]


def scattered(
    rng: np.random.Generator, frames: int, each: int, size: int, photons: float, z_nm: float = 0.0, margin: float = 6.0
) -> Columns:
    """`each` points in each frame at random places, at least 1.2 um apart, photons from half to one and a half the mean."""
    rows: list[list[float]] = []
    for t in range(frames):
        own: list[NDArray[np.float64]] = []
        while len(own) < each:
            place = rng.uniform(margin, size - margin, 2)
            if all(np.hypot(*(place - o)) > 12 for o in own):
                own.append(place)
        rows += [[t, rng.uniform(-z_nm, z_nm), *o, photons * rng.uniform(0.5, 1.5)] for o in own]
    found = np.array(rows)
    return {
        "time": found[:, 0].astype(np.int64),
        "emitter": np.arange(len(found)),
        "z_nm": found[:, 1],
        "y_nm": found[:, 2] * PIXEL_NM,
        "x_nm": found[:, 3] * PIXEL_NM,
        "photons": found[:, 4].astype(np.float32),
        "on_s": np.full(len(found), 0.02, np.float32),
    }


def gaussian_images(truth: Columns, shape: tuple[int, int, int], sigma_px: float) -> NDArray[np.float64]:
    """Expected photo-electrons of Gaussians integrated over pixels, (t, y, x)."""
    expected = np.zeros(shape)
    edges = [np.arange(n + 1) for n in shape[1:]]
    lines = []
    for edge, name in zip(edges, ("y_nm", "x_nm"), strict=True):
        v = erf((edge - truth[name][:, None] / PIXEL_NM) / (sigma_px * np.sqrt(2))) / 2
        lines.append(np.diff(v, axis=1))
    for k, t in enumerate(truth["time"]):
        expected[t] += truth["photons"][k] * np.outer(lines[0][k], lines[1][k])
    return expected


def lens_images(truth: Columns, shape: tuple[int, int, int], lens: Lens, reach: int = 12) -> NDArray[np.float64]:
    """The same of an objective: the diffraction integrals at 4 x 4 points of each pixel, at the very place of each emitter."""
    expected = np.zeros((shape[0], shape[1] + 2 * reach, shape[2] + 2 * reach))
    images = lens.images() if truth["z_nm"].any() or not lens.objective.round else _in_focus(lens)
    points, weights = np.polynomial.legendre.leggauss(4)
    for k, t in enumerate(truth["time"]):
        place = np.array([truth["y_nm"][k], truth["x_nm"][k]]) / PIXEL_NM
        corner = np.floor(place).astype(int) - reach
        lines = [((c + np.arange(2 * reach + 1))[:, None] + 0.5 + points / 2).ravel() for c in corner]
        y, x = ((line - p) * PIXEL_NM for line, p in zip(lines, place, strict=True))
        light = images(truth["z_nm"][k : k + 1], y, x)[0].reshape(2 * reach + 1, 4, 2 * reach + 1, 4)
        square = np.einsum("iajb,a,b->ij", light, weights, weights) * PIXEL_NM**2 / 4
        a, b = corner + reach
        expected[t, a : a + 2 * reach + 1, b : b + 2 * reach + 1] += truth["photons"][k] * square
    return expected[:, reach:-reach, reach:-reach]


def _in_focus(lens: Lens) -> Images:
    """The image in the focal plane alone, from one fine table of radii."""
    r = np.arange(0.0, 4000.0, 2.0)
    line = CubicSpline(r, pupil.emission(np.zeros(1), r, lens.emission_nm, lens.objective)[0])
    return lambda z, y, x: line(np.hypot(y[:, None], x))[None]


def counts(
    rng: np.random.Generator,
    expected: NDArray[np.float64],
    gain: float = 2.0,
    offset: float = 100.0,
    read_e: float = 1.0,
) -> NDArray[np.uint16]:
    """What a camera counts of expected photo-electrons."""
    electrons = rng.poisson(expected) + rng.normal(0, read_e, expected.shape)
    return np.rint(np.clip(gain * electrons + offset, 0, 65535)).astype(np.uint16)


CAMERA = FrameCamera(gain_counts_per_e=2.0, offset_counts=100.0, read_noise_e=1.0)


def write_frames(path: Path, data: NDArray[np.uint16]) -> Path:
    """Store frames as OME-Zarr, (t, c, y, x)."""
    group = zarr.create_group(path, zarr_format=3)
    group.create_array("0", data=data[:, None], chunks=(20, 1, *data.shape[1:]))
    axes: list[dict[str, str]] = [{"name": "t", "type": "time", "unit": "second"}, {"name": "c", "type": "channel"}]
    axes += [{"name": a, "type": "space", "unit": "micrometer"} for a in "yx"]
    um = PIXEL_NM / 1000
    steps = [
        {"type": "scale", "scale": [0.02, 1, um, um]},
        {"type": "translation", "translation": [0, 0, um / 2, um / 2]},
    ]
    ome: Any = {
        "version": "0.5",
        "multiscales": [{"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": steps}]}],
    }
    group.attrs["ome"] = ome
    return path


def write_truth(path: Path, truth: Columns) -> Path:
    """Store the truth as Parquet."""
    pq.write_table(pa.table(truth), path)
    return path
