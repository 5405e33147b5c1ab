"""Commands that show results: show, view, report, info, export."""

from __future__ import annotations

import json
import threading
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from simexm.cli import completion, options
from simexm.cli.app import Heading, command
from simexm.cli.shared import at_round, bar, print_rows, stoppable
from simexm.errors import NoResultError, OutputError, SimexmWarning, SourceError, SourceNotFoundError
from simexm.export.formats import TRANSFORMS, Arrangement, Format


@command(Heading.LOOK)
def show(path: options.ResultPath, round_: options.Round = None) -> None:
    """Open a result in a window; sliders or the arrow keys choose the plane (up, down) and the channel (left, right).

    Example: simexm show out.zarr
    """
    from simexm.result.result import Result
    from simexm.view.window import show as open_window

    open_window(at_round(Result.open(path), round_))


@command(Heading.LOOK)
def view(
    paths: Annotated[
        list[str],
        typer.Argument(
            help="Results, NAME.zarr; several are shown side by side.",
            metavar="RESULT...",
            autocompletion=completion.results,
        ),
    ],
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port on this machine's loopback.", show_default="a free one")
    ] = 0,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Print the address without opening a browser.")
    ] = False,
) -> None:
    """Show results of any size in Neuroglancer, in the browser: channels, label images and ground truth. Ctrl-C ends it.

    Example: simexm view out.zarr

    Example: simexm view confocal.zarr widefield.zarr --no-browser

    Example: simexm view objects.zarr skeletons.zarr
    """
    from simexm.result.result import Result
    from simexm.view.viewer import Viewer, open_browser

    viewer = Viewer([Result.open(path) for path in paths], port)
    try:
        with stoppable():
            for scene in viewer.scenes:
                for sentence in scene.lacking:
                    warnings.warn(sentence, SimexmWarning, stacklevel=1)
            typer.echo(f"view: {viewer.url}")
            typer.echo(f"on another computer, type: {viewer.tunnel}    (and open the same address there)")
            typer.echo("Ctrl-C ends it")
            if not no_browser:
                open_browser(viewer.url)
            threading.Event().wait()
    except KeyboardInterrupt:
        typer.echo("ended", err=True)
    finally:
        viewer.close()


@command(Heading.LOOK)
def report(
    path: options.ResultPath,
    output: Annotated[
        Path | None, options.output("HTML file to write.", "the result's name, -report.html, which is replaced")
    ] = None,
    fixed: Annotated[
        str | None, options.option("--fixed", "Fixed volume of an alignment, to be shown below it.", "VOLUME", False)
    ] = None,
    moving: Annotated[
        str | None, options.option("--moving", "Its moving volume, to show how it lay before.", "VOLUME", False)
    ] = None,
    truth: Annotated[
        str | None, options.option("--truth", "Its true transform, for maps of the error.", "TRANSFORM", False)
    ] = None,
    round_: options.Round = None,
    overwrite: options.Overwrite = False,
) -> None:
    """Write a report on a result as one HTML page: pictures, light, noise, cells, and how to reproduce it.

    Of an alignment: overlays and errors; of a sweep: the scores over its axes.

    Example: simexm report out.zarr --output report.html

    Example: simexm report aligned.zarr --fixed round1.tif --moving round2.tif

    Example: simexm report aligned-rounds.zarr --round 3
    """
    from simexm.result.result import Result
    from simexm.store.atomic_file import refuse
    from simexm.store.location import with_ending
    from simexm.view.report.alignment import Comparison
    from simexm.view.report.page import default_path, write_report

    if output and output.suffix.lower() not in (".html", ".htm"):
        raise OutputError(f"the report {output} is HTML; type --output {with_ending(output, '.html')}")
    refuse([output] if output else [], overwrite=overwrite)
    result = Result.open(path)
    page = output or default_path(result)
    write_report(result, page, Comparison(fixed, moving, truth, round_))
    typer.echo(f"report: {page}")


@command(Heading.LOOK)
def info(
    path: Annotated[
        str,
        typer.Argument(
            help="Result, NAME.zarr, or a label volume of any format that `simexm ingest` reads; or a URL.",
            metavar="RESULT|VOLUME",
            show_default=False,
            autocompletion=completion.results,
        ),
    ],
    dataset: options.Dataset = None,
    as_json: options.Json = False,
) -> None:
    """Print what a result holds and how it was computed, or describe a label volume.

    Example: simexm info out.zarr

    Example: simexm info segmentation.tif --json
    """
    from simexm.result.place import SIMULATION
    from simexm.result.result import Result
    from simexm.view.rows import analysis_rows, result_rows, sweep_rows, volume_rows

    try:
        result = Result.open(path)
    except NoResultError as none:
        volume = _volume(path, dataset, none)
        if as_json:
            typer.echo(json.dumps(volume, indent=2))
        else:
            print_rows(path, volume_rows(volume))
        return
    if as_json:
        typer.echo(json.dumps(result.attributes, indent=2))
    elif result.complete:
        rows = {SIMULATION: result_rows, "sweep": sweep_rows}.get(result.kind, analysis_rows)
        print_rows(path, rows(result))
    else:
        typer.echo(f"{path}: incomplete; type the same command again to resume")


def _volume(path: str, dataset: str | None, none: NoResultError) -> dict[str, Any]:
    """Describe a label volume; raises `none` if there is nothing at `path`."""
    from simexm.sources.describe import describe
    from simexm.sources.words import COMMAND, speaking

    try:
        with speaking(COMMAND):
            return describe(path, dataset)
    except SourceNotFoundError:
        raise none from None
    except SourceError as error:
        raise OutputError(f"{none}. It cannot be read as a label volume either: {error}") from error


@command(Heading.LOOK)
def export(
    path: options.ResultPath,
    output: Annotated[Path, options.output("Folder to write files to.", False)],
    form: Annotated[
        Format,
        typer.Option(
            "--format",
            help="PNG: a folder of images, one for each plane. avi, miniscope: a movie without loss, as a file, or as the "
            "acquisition software of a Miniscope stores it. csv: all tables. graphml, npz: a matrix of synapses. "
            "swc, precomputed: skeletons. From nrrd to rnr-exm: the transform of an alignment. thunderstorm, picasso, "
            "smlm-challenge, smap: localisations.",
            show_default=False,
        ),
    ],
    channels: Annotated[
        Arrangement,
        typer.Option(
            help="split: a grey stack each, with the stored values (GIF: 8 bits). merged: in ome-tiff all in one file; in tiff "
            "8-bit RGB stacks of three channels; in gif and png 8 bits in their display colours."
        ),
    ] = Arrangement.SPLIT,
    labels: Annotated[
        Arrangement | None,
        typer.Option(
            help="merged: a stack of ids for each label image. split: one for each cell.", show_default="no labels"
        ),
    ] = None,
    level: options.Level = 0,
    round_: options.Round = None,
    eight_bit: Annotated[
        bool,
        typer.Option(
            "--8bit",
            help="Scale each channel by its own maximum, value * 255 / maximum; by default, where 8 bits are needed, by its "
            "display window.",
        ),
    ] = False,
    pair: Annotated[
        str | None, options.option("--pair", "Pair of the RnR-ExM challenge, for rnr-exm.", "SPECIES/N", False)
    ] = None,
    overwrite: options.Overwrite = False,
    dry_run: options.DryRun = False,
    quiet: options.Quiet = False,
) -> None:
    """Write a result of any size as TIFF, OME-TIFF, GIF, PNG or AVI, or its tables. Sizes are of the tissue before expansion.

    The transform of an alignment, or the true one of a simulation: a displacement field for ITK (nrrd) or as OME-Zarr 0.6
    (ome-zarr), an affine map (tfm, txt), places in both volumes (points), or the file of the RnR-ExM challenge (rnr-exm). With
    --round, from the first round to that one.

    Example: simexm export out.zarr --output files --format ome-tiff --channels merged --labels merged

    Example: simexm export movie.zarr --output recording --format miniscope

    Example: simexm export skeletons.zarr --output swc --format swc

    Example: simexm export aligned.zarr --output files --format nrrd
    """
    from simexm.export.export import export as export_result
    from simexm.result.result import Result

    of_round = path if round_ is None else f"{path}/round_{round_:02d}"
    result = of_round if form in TRANSFORMS else at_round(Result.open(path), round_)
    with bar("export", quiet) as progress:
        content: dict[str, Any] = {
            "channels": channels,
            "labels": labels,
            "level": level,
            "eight_bit": eight_bit,
            "pair": pair,
        }
        written = export_result(
            result, output, form, **content, overwrite=overwrite, dry_run=dry_run, progress=progress
        )
    if dry_run or not quiet:
        for each in written[:_MOST_LISTED]:
            typer.echo(str(each))
        if len(written) > _MOST_LISTED:
            typer.echo(f"and {len(written) - _MOST_LISTED} more below {output}")


_MOST_LISTED = 20
