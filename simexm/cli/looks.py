"""Commands that tell and show: new, schema, info, show, fluorophores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from simexm.cli.app import app
from simexm.cli.shared import ResultPath, RoundOption, at_round, print_rows, print_table


@app.command()
def new() -> None:
    """Print a commented spec to edit.

    Example: simexm new > my.yaml
    """
    from importlib.resources import files

    typer.echo(files("simexm.templates").joinpath("new.yaml").read_text(encoding="utf-8"), nl=False)


@app.command()
def schema() -> None:
    """Print the JSON Schema of specs, for editors that complete and check YAML.

    Example: simexm schema > simexm.schema.json
    """
    from simexm.api import Simulation

    typer.echo(json.dumps(Simulation.model_json_schema(), indent=2))


@app.command()
def info(
    path: ResultPath,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Tell what a result holds and how it was made.

    Example: simexm info out.zarr
    """
    from simexm.result.place import SIMULATION
    from simexm.result.result import Result
    from simexm.view.rows import analysis_rows, result_rows

    result = Result.open(path)
    if as_json:
        typer.echo(json.dumps(result.attributes, indent=2))
        return
    if not result.complete:
        typer.echo(f"{path}: incomplete; type the `simexm run` command again to go on")
        return
    print_rows(path, result_rows(result) if result.kind == SIMULATION else analysis_rows(result))


@app.command()
def show(path: ResultPath, round_: RoundOption = None) -> None:
    """Open a result in a window: sliders and the arrow keys choose the plane (up, down) and the channel (left, right).

    Example: simexm show out.zarr
    """
    from simexm.result.result import Result
    from simexm.view.window import show as open_window

    open_window(at_round(Result.open(path), round_))


@app.command()
def fluorophores(
    names: Annotated[
        list[str] | None, typer.Argument(help="Dyes to draw.", metavar="[NAME]...", show_default=False)
    ] = None,
    spec: Annotated[
        Path | None, typer.Option(help="Spec whose lasers and filters are drawn as well.", show_default=False)
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="PNG to write.", show_default="the names, -spectra.png")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """List the built-in dyes; with names or a spec, draw their spectra and tell what each laser and filter makes of them.

    Example: simexm fluorophores ATTO488 ATTO647N --spec my.yaml
    """
    from simexm.view.fluorophores import dye_rows, sight_rows, tell

    told = tell(names or (), spec, output)
    if as_json:
        typer.echo(json.dumps(told.to_mapping(), indent=2))
        return
    print_table(dye_rows(told.dyes))
    if told.bench:
        print_table(sight_rows(told.seen, told.bench))
        typer.echo("signal: of one dye molecule, over that of the dye that the channel is for, in weak light")
    if told.picture:
        typer.echo(f"picture: {told.picture}")
