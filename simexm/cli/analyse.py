"""Commands of analyses, of simexm or of other packages."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simexm.cli import completion, options
from simexm.cli.shared import cluster_of, print_rows, short, stoppable

if TYPE_CHECKING:
    from simexm.analysis.contract import Analysis
    from simexm.jobs.clusters import Cluster


def command_function(name: str, load: "Callable[[], type[Analysis]]") -> Callable[..., None]:
    """Build the command that runs the analysis `name`; `load` imports its class when the command runs, since that takes time."""

    def run(
        paths: Annotated[
            list[str],
            typer.Argument(
                help="What to read: results, NAME.zarr, or volumes of any format that `simexm ingest` reads; or URLs.",
                metavar="INPUT...",
                autocompletion=completion.results,
            ),
        ],
        output: Annotated[
            str | None, options.output("NAME.zarr; its tables go to NAME.run beside it.", f"INPUT-{name}.zarr")
        ] = None,
        settings: options.Settings = None,
        roi: options.Roi = None,
        level: options.AnyLevel = None,
        dataset: options.Dataset = None,
        voxel_size_nm: options.VoxelSize = None,
        overwrite: options.Overwrite = False,
        workers: options.Workers = None,
        cluster: options.Cluster = None,
        jobs: options.Jobs = None,
        dry_run: options.DryRun = False,
        quiet: options.Quiet = False,
        as_json: options.Json = False,
    ) -> None:
        """Run the analysis and print its scores; the output is by default named after the first input."""
        part = {"roi": roi, "level": level, "dataset": dataset, "voxel_size_nm": voxel_size_nm}
        how = {"workers": workers, "overwrite": overwrite, "quiet": quiet}
        analyse(name, load(), paths, output, settings, part, cluster_of(cluster, jobs, workers), how, dry_run, as_json)

    return run


def analyse(
    name: str,
    kind: "type[Analysis]",
    paths: list[str],
    output: str | None,
    settings: Path | None,
    part: dict[str, Any],
    cluster: "Cluster | None",
    how: dict[str, Any],
    dry_run: bool,
    as_json: bool,
) -> None:
    """Run an analysis and print its scores.

    `part` are settings that options replace, None for those that were not given; `how` are `workers`, `overwrite`, `quiet`.
    """
    from simexm.analysis.settings import load_settings
    from simexm.sources.words import COMMAND, speaking
    from simexm.store.location import location
    from simexm.view.rows import analysis_rows

    analysis = load_settings(kind, settings, **part)
    where = output or f"{location(paths[0]).stem}-{name}.zarr"
    with speaking(COMMAND):
        if dry_run:
            plan = analysis.plan(*paths, output=where, overwrite=how["overwrite"])
            typer.echo(json.dumps(plan.to_mapping(), indent=2))
            return
        with stoppable():
            result = analysis.run(*paths, output=where, cluster=cluster, **how)
    if as_json:
        typer.echo(
            json.dumps(
                {f"{s['score']} {s['subset']}".strip(): s["value"] for s in result.scores().to_pylist()}, indent=2
            )
        )
    else:
        print_rows(str(short(result.path)), analysis_rows(result))


def installed_command(name: str) -> Any:
    """Build the command of an installed analysis; None if none has this name. Raises SpecError if it cannot be loaded."""
    from rich.markup import escape

    from simexm.analysis import installed
    from simexm.analysis.settings import settings_of, summary

    if name not in installed.names():
        return None
    kind = installed.load(name)
    rows = [
        f"{setting}{f', by default{default}' if default else ', required'}: {meaning}"
        for setting, default, meaning in settings_of(kind)
    ]
    help = "\n\n".join(escape(text) for text in [summary(kind), *(["Settings:"] if rows else []), *rows])
    application = typer.Typer(add_completion=False, context_settings={"help_option_names": ["-h", "--help"]})
    application.command(name=name, help=help)(command_function(name, lambda: kind))
    return typer.main.get_command(application)
