"""Commands that check results: status, verify."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simexm.cli import completion, options
from simexm.cli.app import Heading, command
from simexm.cli.logfile import LogFileOption
from simexm.cli.shared import bar, print_rows
from simexm.logs import logger
from simexm.names import printable
from simexm.units import duration, size

if TYPE_CHECKING:
    from simexm.run.status import Status
    from simexm.run.verify import Damage, Verification

SHOWN = 100
"""Damaged files that are listed."""


@command(Heading.GUARD)
def status(path: options.ResultPath, as_json: options.Json = False) -> None:
    """Print how far a run is, read from NAME.run beside the result, on any machine that can read it.

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
    rows = [("run", state if found.blocks else "not started yet")]
    for name, one in found.passes.items():
        done = f"{one['done']} of {found.blocks} blocks done"
        rows.append((f"pass {name}", "finished" if one["finished"] else done))
    if found.blocks_per_s and found.left_s is not None and not found.complete:
        rows.append(("speed", f"{found.blocks_per_s:.3g} blocks/s, {duration(found.left_s)} left"))
    if found.driver:
        life = "alive" if found.driver.alive else "dead"
        rows.append(("driver", f"{life}: process {found.driver.pid} on {found.driver.host}"))
    elif not found.complete:
        rows.append(("driver", "none; type the same `simexm run` or `simexm submit` again to resume"))
    if found.driver_job and not found.complete:
        rows.append(("driver's job", f"{found.driver_job['id']} ({found.driver_job['kind']})"))
    if found.jobs:
        rows.append(("jobs", ", ".join(f"{n} {phase}" for phase, n in found.jobs.items())))
    if found.workers is not None:
        rows.append(("workers", str(found.workers)))
    return rows


@command(Heading.GUARD)
def verify(
    path: options.ResultPath,
    repair: Annotated[bool, typer.Option("--repair", help="Compute the damaged blocks again, and only these.")] = False,
    spec: Annotated[
        Path | None,
        typer.Option(
            help="Spec with the new path of the labels, if they were moved.",
            show_default="the result's",
            autocompletion=completion.specs,
        ),
    ] = None,
    workers: options.Workers = None,
    quiet: options.Quiet = False,
    log_file: LogFileOption = None,
) -> None:
    """Compare every file of a result with the checksum recorded when it was written.

    Exit code 0 if all files are intact or were repaired, 1 if any is damaged or missing.

    Example: simexm verify out.zarr --repair
    """
    from simexm.api import Simulation
    from simexm.result.place import Place
    from simexm.run.repair import repair as repair_result
    from simexm.run.verify import Verification
    from simexm.view.picture import keep_picture

    damaged = 0

    def report(damage: Damage) -> None:
        nonlocal damaged
        damaged += 1
        if damaged <= SHOWN:
            typer.secho(f"damaged: {printable(str(damage))}", fg="red", err=True)
        logger.warning("damaged: %s", printable(str(damage)))

    simulation = Simulation.load(spec) if spec else None
    with bar("verify", quiet) as progress:
        if repair:
            how: dict[str, Any] = {"workers": workers, "quiet": quiet, "progress": progress, "finished": keep_picture}
            found = repair_result(path, report, simulation=simulation, **how)
        else:
            found = Verification(Place.where(path), progress)
            for damage in found:
                report(damage)
    if damaged > SHOWN:
        typer.echo(f"and {damaged - SHOWN} more", err=True)
    _print_summary(path, found, damaged, repair)


def _print_summary(path: str, found: Verification, damaged: int, repaired: bool) -> None:
    checked = f"{path}: {found.files} files, {size(found.bytes)}"
    if not damaged and not found.unfinished:
        typer.echo(f"{checked}, all as they were written")
    elif repaired:
        typer.echo(f"{checked}; {damaged} were damaged and are as they were written again")
    else:
        if damaged:
            typer.echo(f"{checked}; {damaged} are damaged; to repair them, type: simexm verify {path} --repair")
        if found.unfinished:
            typer.echo(
                f"{path} is unfinished: {found.unfinished} blocks are missing; type the same command again to resume"
            )
        raise typer.Exit(1)
