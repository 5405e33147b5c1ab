"""Commands of installed analyses, built when a verb is typed that simexm itself does not have."""

from typing import Any

import typer

from simexm.analysis import installed
from simexm.analysis.contract import Analysis
from simexm.analysis.settings import settings_of, summary
from simexm.cli.analyse import command_function


def command_of(name: str) -> Any:
    """Build the command of an installed analysis; None if none has this name. Raises SpecError if it cannot be loaded."""
    if name not in installed.names():
        return None
    kind = installed.load(name)
    application = typer.Typer(add_completion=False, context_settings={"help_option_names": ["-h", "--help"]})
    application.command(name=name, help=_help(kind))(command_function(name, lambda: kind))
    return typer.main.get_command(application)


def _help(kind: type[Analysis]) -> str:
    """What the analysis does, and its settings."""
    from rich.markup import escape

    rows = [
        f"{name}{f', by default{default}' if default else ', required'}: {meaning}"
        for name, default, meaning in settings_of(kind)
    ]
    return "\n\n".join(escape(text) for text in [summary(kind), *(["Settings:"] if rows else []), *rows])
