"""Commands that turn volumes into others: ingest, export."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from simexm.cli.app import app
from simexm.cli.shared import ResultPath, RoundOption, at_round, bar
from simexm.errors import SpecError
from simexm.export.formats import Arrangement, Format
from simexm.view.rows import times


class ColorOrder(StrEnum):
    """Which colour holds an id's largest byte: the first one."""

    RGB = "rgb"
    BGR = "bgr"


@app.command()
def ingest(
    source: Annotated[
        str,
        typer.Argument(
            help="TIFF stack, folder (or quoted glob) of slices, Zarr, N5, Neuroglancer precomputed, HDF5, .npy, NRRD, NIfTI "
            "or MRC.",
            show_default=False,
        ),
    ],
    output: Annotated[
        str, typer.Argument(help="Folder to write, NAME.zarr, or its URL, s3://BUCKET/NAME.zarr.", show_default=False)
    ],
    voxel_size: Annotated[
        tuple[float, float, float] | None,
        typer.Option(help="Voxel size, nm; by default what the metadata tell.", metavar="Z Y X", show_default=False),
    ] = None,
    region: Annotated[
        list[str] | None,
        typer.Option(
            help="Mask of a further region, of any of these kinds, not 0 inside; may be repeated.",
            metavar="NAME=PATH",
            show_default=False,
        ),
    ] = None,
    offset: Annotated[
        tuple[int, int, int] | None,
        typer.Option(help="First voxel to take.", metavar="Z Y X", show_default="0 0 0"),
    ] = None,
    shape: Annotated[
        tuple[int, int, int] | None,
        typer.Option(help="Number of voxels to take.", metavar="Z Y X", show_default="up to the end"),
    ] = None,
    cells: Annotated[
        str, typer.Option(help="merged, or splitted: SOURCE holds one stack or folder for each cell.")
    ] = "merged",
    dataset: Annotated[
        str | None,
        typer.Option(help="Volume inside an HDF5, N5 or Zarr, or scale of a precomputed one.", show_default=False),
    ] = None,
    color_ids: Annotated[
        ColorOrder | None,
        typer.Option(
            help="Colours of a TIFF or image sequence are ids. rgb: 65536 red + 256 green + blue, as VAST and QuPath pack them. "
            "bgr: red + 256 green + 65536 blue.",
            show_default="colours are refused",
        ),
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Threads; 0 for one on each core.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what an earlier ingest wrote.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Turn a segmentation of any kind and size, and masks of regions, into sharded multiscale OME-Zarr labels.

    Example: simexm ingest segmentation.tif cortex.zarr --voxel-size 40 32 32 --region synapse=synapses.tif
    """
    from simexm.ingestion.ingest import ingest as ingest_volume

    masks = dict(_named(pair) for pair in region or ())
    if len(masks) < len(region or ()):
        raise SpecError(f"two regions have the same name ({', '.join(region or ())}); give each a name of its own")
    if cells not in ("merged", "splitted"):
        raise SpecError(f"--cells {cells} is unknown; type merged (one volume of all cells) or splitted (one a cell)")
    with bar("ingest", quiet) as progress:
        made = ingest_volume(
            source, output, voxel_size, regions=masks, offset=offset, shape=shape,
            cells="merged" if cells == "merged" else "splitted", dataset=dataset,
            color_ids=None if color_ids is None else color_ids.value, workers=workers, overwrite=overwrite, progress=progress,
        )  # fmt: skip
    if not quiet:
        voxels = made.shape[0] * made.shape[1] * made.shape[2]
        typer.echo(
            f"{output}: {times(made.shape)} voxels of {times(map(float, made.voxel_size_nm))} nm, {made.dtype}, "
            + (f"regions {', '.join(made.regions)}, " if made.regions else "")
            + f"{made.levels} levels, largest id {made.largest_id}, {made.nbytes / 1e6:.1f} MB, "
            f"{voxels / 1e6 / max(made.seconds, 1e-9):.0f} Mvoxel/s"
        )


def _named(pair: str) -> tuple[str, str]:
    name, equals, path = pair.partition("=")
    if not (name and equals and path):
        raise SpecError(
            f"--region {pair}: it is not known which is the name and which the mask; type --region NAME=PATH"
        )
    return name, path


@app.command()
def export(
    path: ResultPath,
    folder: Annotated[Path, typer.Argument(help="Folder to write files to.", metavar="DIR", show_default=False)],
    form: Annotated[Format, typer.Option("--format", help="PNG: a folder of images, one a plane.", show_default=False)],
    channels: Annotated[
        Arrangement,
        typer.Option(
            help="split: a gray stack each, with the stored values (GIF: 8 bits). merged: in ome-tiff all in one file; in tiff "
            "8-bit RGB stacks of three channels; in gif and png 8 bits in their display colours."
        ),
    ] = Arrangement.SPLIT,
    labels: Annotated[
        Arrangement | None,
        typer.Option(
            help="merged: a stack of ids for each label image. split: one for each cell.", show_default="no labels"
        ),
    ] = None,
    level: Annotated[int, typer.Option(help="Level of the pyramid, 0 the finest.")] = 0,
    round_: RoundOption = None,
    eight_bit: Annotated[
        bool,
        typer.Option(
            "--8bit",
            help="Scale each channel by its own maximum, value * 255 / maximum. Without, where 8 bits are needed, by its display "
            "window.",
        ),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Write a result as TIFF, OME-TIFF, GIF or PNG, whatever its size. Voxel sizes are of the tissue before expansion.

    Example: simexm export out.zarr files --format ome-tiff --channels merged --labels merged
    """
    from simexm.export.export import export as export_result
    from simexm.result.result import Result

    result = at_round(Result.open(path), round_)
    with bar("export", quiet) as progress:
        written = export_result(
            result, folder, form, channels=channels, labels=labels, level=level, eight_bit=eight_bit, overwrite=overwrite,
            progress=progress,
        )  # fmt: skip
    if not quiet:
        for each in written[:_LISTED]:
            typer.echo(str(each))
        if len(written) > _LISTED:
            typer.echo(f"and {len(written) - _LISTED} more below {folder}")


_LISTED = 20
"""Files that are named at most."""
