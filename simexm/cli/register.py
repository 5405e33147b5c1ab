"""Commands that register volumes: align, apply."""

from typing import TYPE_CHECKING, Annotated

import typer

from simexm.cli import completion, options
from simexm.cli.analyse import analyse, command_function
from simexm.cli.app import Heading, command
from simexm.cli.shared import cluster_of

if TYPE_CHECKING:
    from simexm.analysis.contract import Analysis


def _apply() -> "type[Analysis]":
    from simexm.analysis.registration.apply import Apply  # late: it loads large libraries

    return Apply


@command(Heading.REGISTER)
def align(
    paths: Annotated[
        list[str],
        typer.Argument(
            help="Two volumes of any format that `simexm ingest` reads, or results; or one result with rounds of imaging.",
            metavar="FIXED MOVING | RESULT",
            show_default=False,
            autocompletion=completion.results,
        ),
    ],
    output: Annotated[
        str | None, options.output("NAME.zarr; its tables go to NAME.run beside it.", "FIXED-align.zarr")
    ] = None,
    settings: options.Settings = None,
    start: Annotated[
        str | None,
        options.option(
            "--start",
            "Transform to begin from: a result of align, or a file of ITK, NRRD, OME-Zarr or text.",
            "FILE",
            False,
        ),
    ] = None,
    channel: Annotated[
        str | None,
        options.option("--channel", "Channel of simulated results, by name or number.", "NAME", "the only one"),
    ] = None,
    voxel_size_nm: options.VoxelSize = None,
    overwrite: options.Overwrite = False,
    workers: options.Workers = None,
    cluster: options.Cluster = None,
    jobs: options.Jobs = None,
    dry_run: options.DryRun = False,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Find the transform between two volumes, or those of all rounds of a result, and store it with the aligned image.

    Example: simexm align round1.zarr round2.zarr --output aligned.zarr
    """
    from simexm.analysis.registration.align import Align  # late: it loads large libraries

    part = {"start": start, "channel": channel, "voxel_size_nm": voxel_size_nm}
    how = {"workers": workers, "overwrite": overwrite, "quiet": quiet}
    chosen = cluster_of(cluster, jobs, workers)
    analyse("align", Align, paths, output, settings, part, chosen, how, dry_run, as_json)


command(
    Heading.REGISTER,
    name="apply",
    help="""Bring a volume or a table of points to the fixed side of transforms: TRANSFORM... VOLUME.

    Example: simexm apply aligned.zarr cells.zarr --output cells-aligned.zarr
    """,
)(command_function("apply", _apply))
