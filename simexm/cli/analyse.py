"""The command line of an analysis, of simexm or of another package."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simexm.cli import completion
from simexm.cli.options import (
    ClusterOption,
    DryRunOption,
    JobsOption,
    JsonOption,
    OverwriteOption,
    QuietOption,
    WorkersOption,
    output_option,
)
from simexm.cli.shared import cluster_of, print_rows, short, stoppable

if TYPE_CHECKING:
    from simexm.analysis.contract import Analysis


def command_function(name: str, load: "Callable[[], type[Analysis]]") -> Callable[..., None]:
    """Make the command that runs the analysis `name`; `load` imports its class when the command runs, since that takes time."""

    def run(
        paths: Annotated[
            list[str],
            typer.Argument(
                help="Results to read, NAME.zarr, or their URLs.", metavar="INPUT...", autocompletion=completion.results
            ),
        ],
        output: Annotated[
            str | None, output_option("NAME.zarr; its tables go to NAME.run beside it.", f"INPUT-{name}.zarr")
        ] = None,
        settings: Annotated[
            Path | None,
            typer.Option(help=f"Settings, YAML or JSON; `simexm new {name}` prints some to edit.", metavar="FILE"),
        ] = None,
        overwrite: OverwriteOption = False,
        workers: WorkersOption = None,
        cluster: ClusterOption = None,
        jobs: JobsOption = None,
        dry_run: DryRunOption = False,
        quiet: QuietOption = False,
        as_json: JsonOption = False,
    ) -> None:
        """Run the analysis and print its scores; the output is by default named after the first input."""
        from simexm.analysis.settings import load_settings
        from simexm.store.location import location
        from simexm.view.rows import analysis_rows

        analysis = load_settings(load(), settings)
        where = output or f"{location(paths[0]).stem}-{name}.zarr"
        chosen = cluster_of(cluster, jobs, workers)
        if dry_run:
            plan = analysis.plan(*paths, output=where, overwrite=overwrite)
            typer.echo(json.dumps(plan.to_mapping(), indent=2))
            return
        with stoppable():
            result = analysis.run(
                *paths, output=where, cluster=chosen, workers=workers, overwrite=overwrite, quiet=quiet
            )
        if as_json:
            typer.echo(json.dumps({s["score"]: s["value"] for s in result.scores().to_pylist()}, indent=2))
        else:
            print_rows(str(short(result.path)), analysis_rows(result))

    return run
