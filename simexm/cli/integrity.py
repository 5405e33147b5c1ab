"""The command that looks for damage in a result: verify."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simexm.cli.app import app
from simexm.cli.logfile import LogFileOption
from simexm.cli.shared import ResultPath, bar
from simexm.logs import logger
from simexm.names import printable

if TYPE_CHECKING:
    from simexm.run.verify import Damage, Verification

SHOWN = 100
"""Damaged files that are named one by one."""


@app.command()
def verify(
    path: ResultPath,
    repair: Annotated[bool, typer.Option("--repair", help="Make the damaged blocks again, and only these.")] = False,
    spec: Annotated[
        Path | None,
        typer.Option(help="Spec that names the labels' new place, where they have moved.", show_default="the result's"),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Worker processes of a repair.", show_default="one for each core")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
    log_file: LogFileOption = None,
) -> None:
    """Compare every file of a result with the checksum that was recorded when it was written.

    Exit code 0 if all is sound or was repaired, 1 if something is damaged or missing.

    Example: simexm verify out.zarr --repair
    """
    from simexm.api import Simulation
    from simexm.result.place import Place
    from simexm.run.repair import repair as make_again
    from simexm.run.verify import Verification
    from simexm.view.picture import keep_picture

    told = 0

    def tell(damage: Damage) -> None:
        nonlocal told
        told += 1
        if told <= SHOWN:
            typer.secho(f"damaged: {printable(str(damage))}", fg="red", err=True)
        logger.warning("damaged: %s", printable(str(damage)))

    simulation = Simulation.load(spec) if spec else None
    with bar("verify", quiet) as progress:
        if repair:
            found = make_again(
                path,
                tell,
                simulation=simulation,
                workers=workers,
                quiet=quiet,
                progress=progress,
                finished=keep_picture,
            )
        else:
            found = Verification(Place.where(path), progress)
            for damage in found:
                tell(damage)
    if told > SHOWN:
        typer.echo(f"and {told - SHOWN} more", err=True)
    _sum_up(path, found, told, repair)


def _sum_up(path: str, found: Verification, told: int, repaired: bool) -> None:
    looked = f"{path}: {found.files} files, {found.bytes / 1e9:.3g} GB"
    if not told and not found.unfinished:
        typer.echo(f"{looked}, all as they were written")
    elif repaired:
        typer.echo(f"{looked}; {told} were damaged and are as they were written again")
    else:
        if told:
            typer.echo(f"{looked}; {told} are damaged; to make them again, type: simexm verify {path} --repair")
        if found.unfinished:
            typer.echo(
                f"{path} is unfinished: {found.unfinished} blocks are missing; type the command again that began it"
            )
        raise typer.Exit(1)
