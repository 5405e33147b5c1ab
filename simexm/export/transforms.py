"""Write the transform of an alignment, or the true one of a simulation, in formats of other programs.

The affine map and the displacement become one, d(p) = A (p + u(p)) + t - p, at the centres of the fixed volume's voxels. Both
are linear between centres, so nothing is lost there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.csv  # type: ignore[import-untyped]
from numpy.typing import NDArray

from simexm.analysis.registration.foreign import itk_files, ome_zarr, text
from simexm.analysis.registration.scores.against_points import LANDMARKS
from simexm.analysis.registration.sides import absolute
from simexm.analysis.registration.transform import Frame, StoredTransform, affine_at
from simexm.analysis.registration.truth import transform_at
from simexm.errors import OutputError
from simexm.export import rnr_exm
from simexm.export.formats import Format
from simexm.export.write import Progress, check_folder
from simexm.geometry.grid import Box
from simexm.result.result import Result
from simexm.store.atomic_file import atomic_file, refuse
from simexm.store.atomic_group import atomic_group, refuse_group

WRITTEN_BY = "simexm export"
_POINTS_ALONG = 16
_SLAB_VOXELS = 1 << 20
_BEND_UM = 1e-6
_NAMES = {
    Format.NRRD: "transform.nrrd",
    Format.OME_ZARR: "transform.zarr",
    Format.TFM: "affine.tfm",
    Format.TXT: "affine.txt",
    Format.POINTS: "points.csv",
}


@dataclass(frozen=True)
class Total:
    """A transform of an alignment as one displacement, computed for the boxes asked for."""

    transform: StoredTransform
    frame: Frame
    moving: Frame

    @classmethod
    def of(cls, path: str) -> Total:
        """Open the transform of a result; raises OutputError for what holds none."""
        found = transform_at(absolute(path))
        if found.frame is None or found.moving is None:
            raise OutputError(
                f"{path} is a file of another program, which does not say what grid the moving volume has; name a result of "
                "`simexm align` or of a simulation"
            )
        return cls(found, found.frame, found.moving)

    def box(self, box: Box) -> NDArray[np.float32]:
        """Displacements (3, z, y, x), um, at the centres of a box of voxels."""
        points = self.frame.centres(box.start, box.shape)
        return np.asarray(self.transform.near(points)(points) - points, np.float32)

    def planes(self, start: int, stop: int) -> NDArray[np.float32]:
        """The same for whole planes."""
        _, y, x = self.frame.shape
        return self.box(Box((start, 0, 0), (stop, y, x)))

    @property
    def step(self) -> int:
        """Planes that are in memory at once."""
        return max(1, _SLAB_VOXELS // math.prod(self.frame.shape[1:]))

    def refuse_bent(self, form: Format) -> None:
        """Raise OutputError if an affine map does not say all."""
        for start in range(0, self.frame.shape[0], self.step):
            stop = min(start + self.step, self.frame.shape[0])
            points = self.frame.centres((start, 0, 0), (stop - start, *self.frame.shape[1:]))
            bent = self.transform.near(points)(points) - affine_at(self.transform.affine, points)
            largest = float(np.abs(bent).max())
            if largest > _BEND_UM:
                raise OutputError(
                    f"{self.transform.path} displaces points by up to {largest:.3g} um and more beside its affine map, which "
                    f"{form} would lose; type --format {Format.NRRD} or {Format.OME_ZARR}"
                )

    def landmarks(self) -> pa.Table:
        """Points on a lattice in the fixed volume that lie in the moving one, beside their places there."""
        ends = [np.linspace(0, n - 1, min(n, _POINTS_ALONG)) for n in self.frame.shape]
        at = np.stack(np.meshgrid(*ends, indexing="ij")).reshape(3, -1)
        fixed = self.frame.first_um[:, None] + at * np.asarray(self.frame.voxel_um)[:, None]
        moving = self.transform.near(fixed)(fixed)
        beyond = np.abs(moving - self.moving.centre_um[:, None]) > self.moving.extent_um[:, None] / 2
        kept = ~beyond.any(axis=0)
        return pa.table(dict(zip(LANDMARKS, np.concatenate([fixed, moving])[:, kept], strict=True)))


def path_of(result: Result | str | Path) -> str:
    """The path that stands for a transform: that of a result, or of a round in it."""
    if not isinstance(result, Result):
        return str(result)
    return f"{result.path}/{result.frame.group}" if result.frame.round else str(result.path)


def export_transform(
    path: str,
    folder: Path,
    form: Format,
    pair: str | None,
    *,
    overwrite: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> list[Path]:
    """Write the transform of an alignment, or the true one of a simulation; return the file or folder.

    Raises OutputError if the path stands for none, the format cannot hold it, or the output exists or cannot be written.
    """
    total = Total.of(path)
    check_folder(folder, total.transform.places)
    target = folder / (rnr_exm.name_of(pair) if form is Format.RNR_EXM else _NAMES[form])
    if pair is not None and form is not Format.RNR_EXM:
        raise OutputError(f"the pair {pair!r} is for --format {Format.RNR_EXM}, not {form}; leave it out")
    if form in (Format.TFM, Format.TXT):
        total.refuse_bent(form)
    if form is Format.OME_ZARR:
        if not dry_run:
            folder.mkdir(parents=True, exist_ok=True)
        if folder.is_dir():
            refuse_group(target, overwrite=overwrite, writer=WRITTEN_BY)
    elif form is Format.RNR_EXM:
        rnr_exm.refuse(target, str(pair), overwrite=overwrite)
    else:
        refuse([target], overwrite=overwrite)
    if not dry_run:
        _write(total, target, form, pair, overwrite)
        if progress is not None:
            progress(1, 1)
    return [target]


def _write(total: Total, path: Path, form: Format, pair: str | None, overwrite: bool) -> None:
    if form is Format.OME_ZARR:
        with atomic_group(path, overwrite=overwrite, writer=WRITTEN_BY) as files:
            ome_zarr.write(files, total.frame, total.box, WRITTEN_BY)
        return
    with atomic_file(path) as partial:
        if form is Format.NRRD:
            itk_files.write_field(partial, total.frame, total.planes, total.step)
        elif form is Format.TFM:
            itk_files.write_affine(partial, total.transform.affine)
        elif form is Format.TXT:
            text.write(partial, total.transform.affine)
        elif form is Format.POINTS:
            pyarrow.csv.write_csv(total.landmarks(), partial)
        else:
            rnr_exm.write(partial, path, str(pair), total)
