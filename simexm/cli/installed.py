"""Commands of installed analyses: made when a verb is typed that the command line does not know."""

from pathlib import Path
from typing import Annotated, Any

import typer

from simexm.analysis import installed
from simexm.analysis.contract import Analysis
from simexm.analysis.settings import load_settings, settings_of, summary, tag_of
from simexm.cli import completion
from simexm.cli.analyse import analyse
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


def command_of(name: str) -> Any:
    """The command of an installed analysis; None where none is called so.

    Raises
    ------
    SpecError
        If its package cannot be loaded.
    """
    if name not in installed.names():
        return None
    kind = installed.load(name)
    made = typer.Typer(add_completion=False, context_settings={"help_option_names": ["-h", "--help"]})
    made.command(name=name, help=_help(kind))(_function(kind))
    return typer.main.get_command(made)


def _function(kind: type[Analysis]) -> Any:
    def run(
        paths: Annotated[
            list[str],
            typer.Argument(
                help="Results to read, NAME.zarr, or their URLs.", metavar="INPUT...", autocompletion=completion.results
            ),
        ],
        output: Annotated[
            str | None,
            output_option("NAME.zarr; its tables go to NAME.run beside it.", f"INPUT-{tag_of(kind)}.zarr"),
        ] = None,
        settings: Annotated[
            Path | None,
            typer.Option(
                help=f"Settings, YAML or JSON; `simexm new {tag_of(kind)}` prints some to edit.", metavar="FILE"
            ),
        ] = None,
        overwrite: OverwriteOption = False,
        workers: WorkersOption = None,
        cluster: ClusterOption = None,
        jobs: JobsOption = None,
        dry_run: DryRunOption = False,
        quiet: QuietOption = False,
        as_json: JsonOption = False,
    ) -> None:
        analyse(
            load_settings(kind, settings), tuple(paths), output, workers, cluster, jobs,
            overwrite=overwrite, dry_run=dry_run, quiet=quiet, as_json=as_json,
        )  # fmt: skip

    return run


def _help(kind: type[Analysis]) -> str:
    """What the analysis does, and its settings."""
    from rich.markup import escape

    rows = [
        f"{name}{f', by default{default}' if default else ', which must be given'}: {meaning}"
        for name, default, meaning in settings_of(kind)
    ]
    return "\n\n".join(escape(text) for text in [summary(kind), *(["Settings:"] if rows else []), *rows])
