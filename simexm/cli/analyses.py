"""Commands that analyse stored results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simexm.cli import completion
from simexm.cli.app import app
from simexm.cli.shared import (
    JobsOption,
    OutputOption,
    OverwriteOption,
    ResultPath,
    cluster_of,
    print_rows,
    short,
    stoppable,
)  # fmt: skip

if TYPE_CHECKING:
    from simexm.analysis.contract import Analysis


@app.command()
def decode(
    path: ResultPath,
    output: OutputOption = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Worker processes on this machine.", show_default="one for each core")
    ] = None,
    cluster: Annotated[
        Path | None,
        typer.Option(help="Cluster file.", show_default="this machine", autocompletion=completion.cluster_files),
    ] = None,
    jobs: JobsOption = None,
    overwrite: OverwriteOption = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Read the barcodes of cells from the images of all rounds, and compare them with the truth.

    Example: simexm decode rolonies.zarr --output decoded.zarr
    """
    from simexm.analysis.barcodes.decode import Decode

    analyse(Decode(), (path,), output, workers, cluster, jobs, overwrite=overwrite, quiet=quiet, as_json=as_json)


def analyse(
    analysis: Analysis,
    inputs: tuple[str, ...],
    output: str | None,
    workers: int | None,
    cluster: Path | None,
    jobs: str | None,
    *,
    overwrite: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Run an analysis and print its scores; the output is called after the first input where none is named."""
    from simexm.store.location import location
    from simexm.view.rows import analysis_rows

    where = output or f"{location(inputs[0]).stem}-{analysis.tag}.zarr"
    with stoppable():
        found = analysis.run(
            *inputs, output=where, cluster=cluster_of(cluster, jobs, workers), workers=workers,
            overwrite=overwrite, quiet=quiet,
        )  # fmt: skip
    if as_json:
        typer.echo(json.dumps({s["score"]: s["value"] for s in found.scores().to_pylist()}, indent=2))
        return
    print_rows(str(short(found.path)), analysis_rows(found))
