"""Write the table of localisations of a result for other programs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from simexm.errors import OutputError
from simexm.export.formats import Format
from simexm.export.tables import pieces
from simexm.result.place import SIMULATION
from simexm.result.result import Result
from simexm.sources.localisations import Columns, Picture, picasso_yaml, write_csv, write_picasso
from simexm.store.atomic_file import atomic_file, refuse
from simexm.store.metadata import read_group

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
        found = {name: piece[name].to_numpy() for name in piece.column_names}
        if "x_precision_nm" in found:  # of localise
            found |= {
                "precision_nm": (found["y_precision_nm"] + found["x_precision_nm"]) / 2,
                "emitter": found["event"],
            }
        order = np.argsort(found["time"], kind="stable")
        yield {name: found[name][order] for name in _KEPT if name in found}


def _picture(result: Result) -> Picture:
    """The movie: its pixels in nm of tissue, as its table and its metadata have them, and the width of a dye in focus."""
    if result.kind != SIMULATION:
        movie = read_group(result.path / TABLE)["movie"]
        return Picture(*(movie[name] for name in ("pixel_nm", "columns", "rows", "frames", "sigma_nm")))
    about = result.provenance
    shape = result.series().shape if result.acquisition.time else result.array().shape
    frames = shape[0] if result.acquisition.time else 1
    widths = [p["fwhm_nm"][1] for p in about.get("pairs", []) if p.get("fwhm_nm")]
    pixel, expanded = (float(size[2]) * 1000 for size in (result.pixel_um(), about["pixel_size_expanded_um"]))
    sigma = (min(widths) if widths else 2.5 * expanded) / 2.3548
    return Picture(pixel, shape[-1], shape[-2], frames, sigma * pixel / expanded)
