"""Commands that read molecules from images: decode, localise, render."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simexm.cli import completion, options
from simexm.cli.analyse import analyse, command_function
from simexm.cli.app import Heading, command
from simexm.cli.shared import cluster_of

if TYPE_CHECKING:
    from simexm.analysis.contract import Analysis


def _decode() -> "type[Analysis]":
    from simexm.analysis.barcodes.decode import Decode  # late: it loads large libraries

    return Decode


command(
    Heading.MOLECULES,
    name="decode",
    help="""Read the barcodes of cells from the images of all rounds, and compare them with the truth.

    Example: simexm decode rolonies.zarr --output decoded.zarr
    """,
)(command_function("decode", _decode))


@command(Heading.MOLECULES)
def localise(
    path: Annotated[
        str,
        typer.Argument(
            help="Movie of one plane: a result, NAME.zarr, or frames of any format that `simexm ingest` reads.",
            metavar="MOVIE",
            show_default=False,
            autocompletion=completion.results,
        ),
    ],
    output: Annotated[
        str | None, options.output("NAME.zarr; its tables go to NAME.run beside it.", "MOVIE-localise.zarr")
    ] = None,
    settings: options.Settings = None,
    channel: Annotated[
        str | None,
        options.option("--channel", "Channel of simulated results, by name or number.", "NAME", "the only one"),
    ] = None,
    dataset: options.Dataset = None,
    overwrite: options.Overwrite = False,
    workers: options.Workers = None,
    cluster: options.Cluster = None,
    jobs: options.Jobs = None,
    dry_run: options.DryRun = False,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Find single molecules in the frames of a movie, and fit the place and photons of each.

    Example: simexm localise movie.zarr --output found.zarr

    Example: simexm localise frames.tif --settings localise.yaml
    """
    from simexm.analysis.localisation.localise import Localise  # late: it loads large libraries

    part = {"channel": channel, "dataset": dataset}
    how = {"workers": workers, "overwrite": overwrite, "quiet": quiet}
    chosen = cluster_of(cluster, jobs, workers)
    analyse("localise", Localise, [path], output, settings, part, chosen, how, dry_run, as_json)


@command(Heading.MOLECULES)
def render(
    table: Annotated[
        str,
        typer.Argument(
            help="Localisations: a result, NAME.zarr, or a table, .parquet or .csv.",
            metavar="TABLE",
            show_default=False,
            autocompletion=completion.results,
        ),
    ],
    output: Annotated[
        str | None, options.output("NAME.png, a picture with z in colour, or NAME.zarr, an image.", "TABLE-render.zarr")
    ] = None,
    settings: options.Settings = None,
    overwrite: options.Overwrite = False,
    workers: options.Workers = None,
    cluster: options.Cluster = None,
    jobs: options.Jobs = None,
    dry_run: options.DryRun = False,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Render localisations as a picture of their density: Gaussians as wide as their precision, or a histogram.

    Example: simexm render found.zarr --output found.png

    Example: simexm render truth.parquet --output truth.zarr --settings render.yaml
    """
    from simexm.analysis.localisation.render import Render  # late: it loads large libraries

    if output is None or not output.lower().endswith(".png"):
        how = {"workers": workers, "overwrite": overwrite, "quiet": quiet}
        chosen = cluster_of(cluster, jobs, workers)
        analyse("render", Render, [table], output, settings, {}, chosen, how, dry_run, as_json)
        return
    from simexm.analysis.settings import load_settings
    from simexm.store.atomic_file import refuse, refuse_missing_folder

    path = Path(output)
    refuse_missing_folder(path)
    refuse([path], overwrite=overwrite)
    chosen_settings = load_settings(Render, settings)
    assert isinstance(chosen_settings, Render)
    if not dry_run:
        chosen_settings.png(path, table)
    typer.echo(f"render: {path}")
