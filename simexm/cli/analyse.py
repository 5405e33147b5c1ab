"""The command of an analysis: the same for those of simexm and for those that other packages bring."""

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
    """Make the function of a command that runs an analysis.

    Parameters
    ----------
    name
        Of the analysis.
    load
        Returns its class; called when the command runs, since importing it takes time.
    """

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
        """Run the analysis and print its scores; without a name the output is called after the first input."""
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
            found = analysis.run(
                *paths, output=where, cluster=chosen, workers=workers, overwrite=overwrite, quiet=quiet
            )  # fmt: skip
        if as_json:
            typer.echo(json.dumps({s["score"]: s["value"] for s in found.scores().to_pylist()}, indent=2))
        else:
            print_rows(str(short(found.path)), analysis_rows(found))

    return run
