"""Write the table of localisations of a result for other programs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from simexm.errors import OutputError
from simexm.export.formats import Format
from simexm.export.tables import pieces
from simexm.result.result import Result
from simexm.sources.localisations import Columns, Picture, picasso_yaml, write_csv, write_picasso
from simexm.store.atomic_file import atomic_file, refuse

TABLE = "localisations"
_KEPT = ("time", "z_nm", "y_nm", "x_nm", "photons", "background", "sigma_nm", "precision_nm", "emitter")


def export_localisations(result: Result, folder: Path, form: Format, *, overwrite: bool, dry_run: bool) -> list[Path]:
    """Write the table `localisations` of a result in a dialect; return the files.

    Raises OutputError if the result is not finished, has no such table, or a file exists.
    """
    result.require_complete()
    if TABLE not in result.tables:
        raise OutputError(
            f"{result.path} holds no table {TABLE}; name the movie of a spec with the stage blinking, or the result of localise"
        )
    picture = _picture(result)
    if form is Format.PICASSO:
        jobs: dict[str, Callable[[Path], Any]] = {
            f"{TABLE}.hdf5": lambda path: write_picasso(path, _columns(result), picture),
            f"{TABLE}.yaml": lambda path: path.write_text(picasso_yaml(picture), encoding="utf-8"),
        }
    else:
        jobs = {f"{TABLE}.csv": lambda path: write_csv(path, _columns(result), picture, str(form))}
    paths = [folder / name for name in jobs]
    refuse(paths, overwrite=overwrite)
    if not dry_run:
        for path, write in zip(paths, jobs.values(), strict=True):
            with atomic_file(path) as partial:
                write(partial)
    return paths


def _columns(result: Result) -> Iterator[Columns]:
    for piece in pieces(result, TABLE):
        found = {name: piece[name].to_numpy() for name in _KEPT if name in piece.column_names}
        order = np.argsort(found["time"], kind="stable")
        yield {name: column[order] for name, column in found.items()}


def _picture(result: Result) -> Picture:
    """The movie: its pixels in nm of the image, and the width of a dye in focus."""
    about = result.provenance
    size = about.get("pixel_size_expanded_um")
    if not size:
        raise OutputError(f"{result.path} states no pixel size of its image, so nothing can be said in pixels or nm")
    shape = result.series().shape if result.acquisition.time else result.array().shape
    frames = shape[0] if result.acquisition.time else 1
    widths = [p["fwhm_nm"][1] for p in about.get("pairs", []) if p.get("fwhm_nm")]
    pixel = float(size[2]) * 1000
    sigma = (min(widths) if widths else 2.5 * pixel) / 2.3548
    return Picture(pixel, shape[-1], shape[-2], frames, sigma)
