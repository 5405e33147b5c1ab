"""What several commands share: reading a spec, stopping cleanly, printing."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from simexm.names import printable

if TYPE_CHECKING:
    from simexm.api import Simulation
    from simexm.jobs.clusters import Cluster
    from simexm.legacy2017.load import Job
    from simexm.result.result import Result
    from simexm.store.location import Location


class Terminated(KeyboardInterrupt):
    """SIGTERM, with which batch queues and service managers end a program."""


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Let SIGTERM, or the loss of the terminal, stop the block as cleanly as Ctrl-C does."""

    def stop(*_: Any) -> None:
        raise Terminated

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def cluster_of(path: Path | None, jobs: str | None, workers: int | None = None) -> Cluster | None:
    """The cluster that --cluster and --jobs describe; None without --cluster."""
    from simexm.errors import SpecError

    if path is None:
        if jobs is not None:
            raise SpecError("--jobs is for batch queues; name the queue's file with --cluster, or leave --jobs out")
        return None
    if workers is not None:
        raise SpecError("the cluster file sets the number of workers; leave --workers out, or --cluster")
    from simexm.jobs.clusters import cluster

    return cluster(path, jobs)


@contextlib.contextmanager
def bar(what: str, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar if there is a terminal; yields a function of the parts done and the total."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, disable=quiet or not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def load(
    spec: Path,
    tile: tuple[int, int, int] | None,
    seed: int | None = None,
    model: str = "simexm2017",
    output: str | None = None,
    quiet: bool = False,
    device: str | None = None,
) -> tuple[Simulation, Job | None]:
    """Load a spec; or a 2017 configuration, returned as well, whose ground truth is ingested first."""
    from simexm.api import Simulation
    from simexm.errors import SpecError
    from simexm.settings import is_ini

    if is_ini(spec):
        from simexm.legacy2017.load import Job
        from simexm.store.location import is_url

        if output is not None and is_url(output):
            raise SpecError(
                f"{spec} is a configuration of 2017, whose ground truth and files are written beside the output, on a disk; for "
                f"{output} type `simexm convert {spec} -o {spec.with_suffix('.yaml')}` first, then run that"
            )
        job = Job.of(spec, model, seed, None if output is None else Path(output))
        with bar("ingest", quiet) as progress:
            simulation = Simulation.from_mapping(job.spec(), "the configuration")
            job.ingest(progress)
        return simulation.with_tile(tile).with_device(device), job
    simulation = Simulation.load(spec)
    if seed is not None:
        simulation = simulation.replace(seed=seed)
    return simulation.with_tile(tile).with_device(device), None


def at_round(result: Result, number: int | None) -> Result:
    """Return the result at a round; without a number, print that the first is shown."""
    if number is None:
        if result.rounds:
            typer.echo(f"round 1 of {result.rounds}; type --round N for another", err=True)
        return result
    return result.at(round=number)


def print_rows(title: str, rows: list[tuple[str, str]]) -> None:
    """Print a table of (what, value) below a title."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))  # not markup
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(printable(title), style="italic", highlight=False, markup=False, soft_wrap=True)
    console.print(table)


def print_table(rows: list[tuple[str, ...]]) -> None:
    """Print a table whose first row is its heading."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for heading in rows[0]:
        table.add_column(Text(printable(heading)))
    for row in rows[1:]:
        table.add_row(*(Text(printable(cell)) for cell in row))
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def short(path: Location) -> Location:
    """The path relative to the working folder, if it is below."""
    try:
        return path.relative_to(Path.cwd()) if isinstance(path, Path) else path
    except (ValueError, OSError):  # not below, or the working folder was removed
        return path
