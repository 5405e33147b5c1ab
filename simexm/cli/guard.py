"""Commands that watch over results: status, verify."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simexm.cli import completion
from simexm.cli.app import Heading, command
from simexm.cli.logfile import LogFileOption
from simexm.cli.options import JsonOption, QuietOption, ResultPath, WorkersOption
from simexm.cli.shared import bar, print_rows
from simexm.logs import logger
from simexm.names import printable
from simexm.units import duration, size

if TYPE_CHECKING:
    from simexm.run.status import Status
    from simexm.run.verify import Damage, Verification

SHOWN = 100
"""Damaged files that are named one by one."""


@command(Heading.GUARD)
def status(
    path: ResultPath,
    as_json: JsonOption = False,
) -> None:
    """Tell how far a run is, by what lies in NAME.run beside the result: from any machine that sees it.

    Example: simexm status out.zarr
    """
    from simexm.run.status import status as read_status

    found = read_status(path)
    if as_json:
        typer.echo(json.dumps(found.to_mapping(), indent=2))
        return
    print_rows(path, _status_rows(found))


def _status_rows(found: Status) -> list[tuple[str, str]]:
    share = f" ({found.done / found.blocks:.0%})" if found.blocks else ""
    failed = f", {found.failed} failed" if found.failed else ""
    state = "complete" if found.complete else f"{found.done} of {found.blocks} blocks done{share}{failed}"
    rows = [("run", state if found.blocks else "not begun yet")]
    for name, told in found.passes.items():
        rows.append(
            (f"pass {name}", "finished" if told["finished"] else f"{told['done']} of {found.blocks} blocks done")
        )
    if found.blocks_per_s and found.left_s is not None and not found.complete:
        rows.append(("speed", f"{found.blocks_per_s:.3g} blocks/s, {duration(found.left_s)} left"))
    if found.driver:
        life = "alive" if found.driver.alive else "dead"
        rows.append(("driver", f"{life}: process {found.driver.pid} on {found.driver.host}"))
    elif not found.complete:
        rows.append(("driver", "none; type the same `simexm run` or `simexm submit` again to go on"))
    if found.driver_job and not found.complete:
        rows.append(("driver's job", f"{found.driver_job['id']} ({found.driver_job['kind']})"))
    if found.jobs:
        rows.append(("jobs", ", ".join(f"{n} {phase}" for phase, n in found.jobs.items())))
    if found.workers is not None:
        rows.append(("workers", str(found.workers)))
    return rows


@command(Heading.GUARD)
def verify(
    path: ResultPath,
    repair: Annotated[bool, typer.Option("--repair", help="Make the damaged blocks again, and only these.")] = False,
    spec: Annotated[
        Path | None,
        typer.Option(
            help="Spec that names the labels' new place, where they have moved.",
            show_default="the result's",
            autocompletion=completion.specs,
        ),
    ] = None,
    workers: WorkersOption = None,
    quiet: QuietOption = False,
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
    looked = f"{path}: {found.files} files, {size(found.bytes)}"
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
