"""Alignment beside other ways: synthetic nuclei with exact truth, and a real pair of rounds.

    python -m benchmarks.registration synthetic
    python -m benchmarks.registration real FOLDER

FOLDER holds easifish_fix_bin2.tif, easifish_mov_bin2.tif and easifish_pair.json. CPU seconds are those of one process on one
thread; `demons` is SimpleITK alone: an affine map by gradient descent, histogram matching, and demons on three levels. With
`--elastix PYTHON`, an interpreter that has itk-elastix, that is run on the same pairs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from simexm.analysis.registration import itk
from simexm.analysis.registration.align import Align
from simexm.analysis.registration.fit import fit
from simexm.analysis.registration.images import Picture, pulled
from simexm.analysis.registration.steps import Features, Level, Linear
from simexm.analysis.registration.transform import Frame, Transform
from simexm.geometry.grid import three
from simexm.kernels.registration import fields, similarity

Floats = NDArray[np.float64]
Volume = NDArray[np.float32]


@dataclass(frozen=True)
class Pair:
    """Two images of one specimen on cubic voxels of 1 um, and where each voxel centre of the fixed one lies in the moving one."""

    fixed: Volume
    moving: Volume
    truth: Floats  # (3, z, y, x), um

    @property
    def frame(self) -> Frame:
        return Frame(three(self.fixed.shape), (1.0, 1.0, 1.0))

    def errors(self, found: Callable[[Floats], Floats]) -> Floats:
        """Distances from the truth, um, at the voxels that lie in the moving image, (n,)."""
        side = np.asarray(self.moving.shape).reshape(3, 1, 1, 1)
        covered = np.all((self.truth >= 0) & (self.truth <= side), axis=0)
        distance: Floats = np.linalg.norm(found(self.frame.centres()) - self.truth, axis=0)
        return distance[covered]


def nuclei_pair(seed: int, side: int = 128, rms: float = 2.0, length: float = 20.0, gain: float = 0.6) -> Pair:
    """Make nuclei seen twice: affine map, smooth displacement, noise, and another gain in the moving image.

    The displacement is Gaussian of `rms` voxels along each axis with covariance exp(-d^2 / (2 `length`^2)).
    """
    random = np.random.default_rng(seed)
    margin = 24
    tissue = nuclei(random, side + 2 * margin)
    pad = int(2 * length)
    bend = np.stack(
        [
            ndimage.gaussian_filter(
                random.standard_normal((side + 2 * pad,) * 3).astype(np.float32), length / np.sqrt(2), mode="wrap"
            )[pad:-pad, pad:-pad, pad:-pad]
            for _ in range(3)
        ]
    )
    bend *= rms / np.sqrt((bend**2).mean(axis=(1, 2, 3), keepdims=True))
    linear = np.eye(3) + random.normal(0, 0.03, (3, 3))
    shift = random.normal(0, 3.5, 3) * side / 128
    frame = Frame((side, side, side), (1.0, 1.0, 1.0))
    middle = np.full((3, 1, 1, 1), side / 2)
    truth = np.tensordot(linear, frame.centres() + bend - middle, 1) + middle + shift.reshape(3, 1, 1, 1)
    fixed = ndimage.map_coordinates(tissue, truth - 0.5 + margin, order=3, mode="nearest", output=np.float32)
    moving = gain * tissue[margin:-margin, margin:-margin, margin:-margin]

    def seen(light: Volume) -> Volume:
        return np.asarray(1000 * light + 100 + random.normal(0, 40, light.shape), np.float32)

    return Pair(seen(fixed), seen(moving), truth)


def nuclei(random: np.random.Generator, side: int) -> Volume:
    """Ellipsoids of random size and brightness with a texture inside."""
    image = np.zeros((side, side, side), np.float32)
    for _ in range(int(900 * (side / 128) ** 3)):
        centre, radii, bright = random.uniform(0, side, 3), random.uniform(3, 6, 3), random.uniform(0.5, 1.5)
        low, high = np.maximum(np.floor(centre - 7), 0).astype(int), np.minimum(np.ceil(centre + 8), side).astype(int)
        at = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        square = sum(((g - c) / r) ** 2 for g, c, r in zip(np.ogrid[at], centre, radii, strict=True))
        np.maximum(image[at], np.where(square < 1, bright, 0), out=image[at])
    texture = ndimage.gaussian_filter(random.standard_normal(image.shape).astype(np.float32), 1.5)
    return np.asarray(ndimage.gaussian_filter(image * (1 + 0.3 * texture / texture.std()), 1.0), np.float32)


def ours(fixed: Picture, moving: Picture) -> Transform:
    """The default steps of `simexm align`."""
    return fit(fixed, moving, Align().steps, Transform())[0]


def features(fixed: Picture, moving: Picture) -> Transform:
    """Features and an affine map."""
    return fit(fixed, moving, (Features(model="affine"),), Transform())[0]


def demons(fixed: Picture, moving: Picture) -> Transform:
    """SimpleITK alone, with its usual settings; nothing is said about folds."""
    levels = (Level(shrink=4, smooth=1.0, iterations=100), Level(shrink=2, smooth=0.5, iterations=100))
    affine = itk.linear(Linear(step="affine", levels=levels), fixed, moving, np.eye(3, 4))
    sitk = itk.simpleitk()
    image, _ = pulled(moving, Transform(affine), fixed.frame)
    one, other = itk.to_itk(fixed.values, fixed.frame), itk.to_itk(image, fixed.frame)
    other = sitk.HistogramMatching(other, one, 256, 15, True)
    field: Any = None
    for shrink, iterations in ((4, 60), (2, 40), (1, 15)):
        small = [sitk.Shrink(sitk.SmoothingRecursiveGaussian(i, 0.5 * shrink), [shrink] * 3) for i in (one, other)]
        method = sitk.FastSymmetricForcesDemonsRegistrationFilter()
        method.SetNumberOfIterations(iterations)
        method.SetStandardDeviations(1.5)
        if field is not None:
            field = sitk.Resample(field, small[0], sitk.Transform(), sitk.sitkLinear, 0.0, field.GetPixelID())
        field = method.Execute(*small, *(() if field is None else (field,)))
    found = np.moveaxis(sitk.GetArrayFromImage(field)[..., ::-1], -1, 0)
    return Transform(affine, np.ascontiguousarray(found, np.float32), fixed.frame)


WAYS = {"features, affine": features, "simexm align": ours, "demons": demons}


def _warm() -> None:
    """Compile and load what the first call would pay for."""
    itk.simpleitk()
    fields.smallest_jacobian(np.zeros((3, 2, 2, 2), np.float32), np.ones(3))


def elastix(pair: Pair, python: str) -> tuple[Transform, float]:
    """The transform that elastix finds, and its CPU seconds."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "pair.npz", Path(folder) / "found.npz"
        np.savez(source, fixed=pair.fixed, moving=pair.moving)
        subprocess.run([python, str(Path(__file__).with_name("elastix_rival.py")), source, target], check=True)
        with np.load(target) as found:
            return Transform(displacement=found["displacement"], frame=pair.frame), float(found["seconds"])


def synthetic(seeds: Sequence[int], side: int, python: str | None) -> None:
    """Print rms and 95th percentile of the residual, folds and CPU seconds of each way."""
    print("seed  way                 rms voxels   p95   folds  CPU s")
    for seed in seeds:
        pair = nuclei_pair(seed, side)
        _print(seed, "identity", pair.errors(lambda p: p), 0, 0.0)
        for name, way in WAYS.items():
            begin = time.process_time()
            found = way(Picture(pair.fixed, pair.frame), Picture(pair.moving, pair.frame))
            _print(seed, name, pair.errors(found), found.folds(), time.process_time() - begin)
        if python:
            found, seconds = elastix(pair, python)
            _print(seed, "elastix", pair.errors(found), found.folds(), seconds)


def _print(seed: int, name: str, errors: Floats, folds: int, seconds: float) -> None:
    rms, p95 = np.sqrt((errors**2).mean()), np.percentile(errors, 95)
    print(f"{seed:4d}  {name:18s} {rms:10.3f} {p95:7.3f} {folds:7d} {seconds:6.1f}", flush=True)


def real(folder: Path) -> None:
    """Print correlations, residual of blocks, folds and CPU seconds of each way on the pair of rounds."""
    import tifffile

    voxel = three(json.loads((folder / "easifish_pair.json").read_text())["spacing_um_zyx"])
    fixed, moving = (
        Picture(image.astype(np.float32), Frame(three(image.shape), voxel))
        for image in (tifffile.imread(folder / f"easifish_{name}_bin2.tif") for name in ("fix", "mov"))
    )
    print("way                 NCC    local  residual um, median  p90  blocks  folds  CPU s")
    for name, way in {"identity": lambda *_: Transform(), **WAYS}.items():
        begin = time.process_time()
        found = way(fixed, moving)
        seconds = time.process_time() - begin
        image, where = pulled(moving, found, fixed.frame)
        _, shifts = similarity.block_shifts(fixed.values, image, where, 24)
        left = np.linalg.norm(shifts * np.asarray(voxel), axis=1)
        numbers = [
            correlate(fixed.values, image, where)
            for correlate in (similarity.correlation, similarity.local_correlation)
        ]
        print(
            f"{name:18s} {numbers[0]:6.3f} {numbers[1]:6.3f} {np.median(left):18.2f} {np.percentile(left, 90):7.2f} "
            f"{len(left):5d} {found.folds():7d} {seconds:6.1f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("synthetic", "real"))
    parser.add_argument("folder", nargs="?", type=Path, default=Path())
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--elastix", metavar="PYTHON")
    parser.add_argument("--side", type=int, default=128)
    given = parser.parse_args()
    _warm()
    if given.what == "synthetic":
        synthetic(given.seeds, given.side, given.elastix)
    else:
        real(given.folder)


if __name__ == "__main__":
    main()
