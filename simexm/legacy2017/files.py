"""The files that the 2017 program wrote, where and as it wrote them."""

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
    """What section `output` of a configuration file says.

    Attributes
    ----------
    format
        Of all files.
    sim_channels
        Three channels in each red, green and blue stack, or a stack for each channel.
    gt_cells
        All cells of a fluorophore in one stack, or a stack for each cell.
    labels
        For each fluorophore, names of the label images below labels/ that hold the cells that it labelled, of one layer or
        several: all of them, or only those voxels that lie in `gt_region`.
    """

    format: Literal["tiff", "gif", "image sequence"]
    sim_channels: Arranged
    gt_cells: Arranged
    labels: Mapping[str, Sequence[str]]


def write_2017_files(
    result: Result, folder: Path, options: Files2017, *, overwrite: bool = False, progress: Progress | None = None
) -> list[Path]:
    """Write simulation/channel_0.tiff, ... and groundtruth/FLUOROPHORE/all_cells.tiff, ... below `folder`; return the paths.

    Each channel is scaled to 8 bits by its own maximum; ids are exact. Merged channels are channels_012.tiff and so on, red,
    green and blue, zero where there are no more; split cells are CELLID.tiff. GIFs end in .gif; image sequences are folders
    of image_NN.png. Where ids do not fit into GIF (255) or PNG (65535), the ground truth is written as TIFF, with a warning.

    Parameters
    ----------
    result
        A finished result; only its finest level is written.
    folder
        The configuration's path / name.
    options
        See `Files2017`.
    overwrite
        Replace files that are there.
    progress
        Called with the numbers of planes that are written and to be written.

    Raises
    ------
    OutputError
        If the result is not finished, a label image is missing, or a file is in the way or cannot be written.
    """
    check_folder(folder, result)
    form = _FORMATS[options.format]
    image = open_image(result, 0, by_maximum=True)
    jobs = [(job, form) for job in _simulation(image, folder / "simulation", options)]
    check(jobs, folder, overwrite=overwrite)  # before the ids are looked for, which takes long
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
            f"the largest id below {folder.name} is {cells.largest}, which {options.format} cannot hold, so cells would be taken "
            "for others; their ground truth is written as TIFF instead. Set format = tiff to have it so for all.",
            SimexmWarning,
            stacklevel=3,
        )
        form = Format.TIFF
    if options.gt_cells == "splitted":
        return [(job, form) for job in cell_by_cell(cells, folder, form)]
    return [(all_cells(cells, folder / "all_cells", form), form)]
