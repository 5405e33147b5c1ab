"""Write the files of the 2017 program, with its names and formats."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from simexm.errors import SimexmWarning
from simexm.export.formats import Format
from simexm.export.images import Image, one_by_one, open_image, three_by_three
from simexm.export.labels import Labels, all_cells, cell_by_cell, fits, warn_of_fiji
from simexm.export.stack import Job
from simexm.export.write import Progress, check, check_folder, write
from simexm.result.result import Result

Arranged = Literal["merged", "splitted"]

_FORMATS = {"tiff": Format.TIFF, "gif": Format.GIF, "image sequence": Format.PNG}


@dataclass(frozen=True)
class Files2017:
    """The section `output` of a configuration file, and for each fluorophore the names of its label images below labels/."""

    format: Literal["tiff", "gif", "image sequence"]
    sim_channels: Arranged
    gt_cells: Arranged
    labels: Mapping[str, Sequence[str]]


def write_2017_files(
    result: Result, folder: Path, options: Files2017, *, overwrite: bool = False, progress: Progress | None = None
) -> list[Path]:
    """Write simulation/channel_0.tiff, ... and groundtruth/FLUOROPHORE/all_cells.tiff, ...; return the paths.

    They are below `folder`. Level 0 is written, each channel scaled to 8 bits by its own maximum; ids are exact. Merged
    channels are channels_012.tiff and so on in red, green and blue, missing ones zero; split cells are CELLID.tiff.
    GIFs end in .gif; image sequences are folders of image_NN.png. If ids do not fit into GIF (255) or PNG (65535), the
    ground truth is written as TIFF, with a warning.

    Raises OutputError if the result is unfinished, a label image is missing, or a file exists or cannot be written.
    """
    check_folder(folder, result.places)
    form = _FORMATS[options.format]
    image = open_image(result, 0, by_maximum=True)
    jobs = [(job, form) for job in _simulation(image, folder / "simulation", options)]
    check(jobs, folder, overwrite=overwrite)  # before the slow search for ids
    truth = {dye: Labels(image, tuple(names)) for dye, names in options.labels.items()}
    for dye, cells in truth.items():
        jobs += _ground_truth(cells, folder / "groundtruth" / dye, form, options)
    warn_of_fiji(list(truth.values()), form)
    return write(jobs, folder, overwrite=overwrite, progress=progress)


def _simulation(image: Image, folder: Path, options: Files2017) -> list[Job]:
    count = len(image.channels)
    if options.sim_channels == "splitted":
        return one_by_one(image, [folder / f"channel_{c}" for c in range(count)], eight_bit=True)
    return three_by_three(image, [folder / f"channels_{c}{c + 1}{c + 2}" for c in range(0, count, 3)])


def _ground_truth(cells: Labels, folder: Path, form: Format, options: Files2017) -> list[tuple[Job, Format]]:
    if not fits(cells, form):
        warnings.warn(
            f"the largest id below {folder.name} is {cells.largest}, which {options.format} cannot store, so cells would be "
            "confused; their ground truth is written as TIFF. Set format = tiff to write all files so.",
            SimexmWarning,
            stacklevel=3,
        )
        form = Format.TIFF
    if options.gt_cells == "splitted":
        return [(job, form) for job in cell_by_cell(cells, folder, form)]
    return [(all_cells(cells, folder / "all_cells", form), form)]
