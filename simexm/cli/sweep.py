"""The command that simulates an experiment for many values of its settings: sweep."""

import json
from typing import Annotated

import typer

from simexm.cli import options
from simexm.cli.app import Heading, command
from simexm.cli.shared import cluster_of, load, print_rows, short, stoppable
from simexm.errors import SpecError
from simexm.units import count, duration, size


@command(Heading.SIMULATE)
def sweep(
    spec: options.SpecPath,
    output: Annotated[
        str | None, options.output("NAME.zarr; its tables and points go to NAME.run beside it.", "SPEC-sweep.zarr")
    ] = None,
    settings: options.Settings = None,
    workers: options.Workers = None,
    cluster: options.Cluster = None,
    jobs: options.Jobs = None,
    overwrite: options.Overwrite = False,
    dry_run: options.DryRun = False,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Simulate for many values of the settings, analyse each result, and collect the scores in one table.

    Type it again to resume an interrupted sweep, or to try points again that failed.

    Example: simexm sweep my.yaml --settings sweep.yaml --output factors.zarr

    Example: simexm sweep my.yaml --settings sweep.yaml --dry-run
    """
    from simexm.run import guard
    from simexm.sweep.run import SweepPlan, checked_place
    from simexm.sweep.settings import Sweep
    from simexm.view.rows import sweep_rows

    if settings is None:
        raise SpecError("what varies is missing; name its file with --settings (`simexm new sweep` prints one to edit)")
    chosen = cluster_of(cluster, jobs, workers)
    simulation, varied = load(spec, None)[0], Sweep.load(settings)
    where = output or f"{spec.stem}-sweep.zarr"
    if dry_run:
        plan = SweepPlan.of(simulation, varied)
        guard.refuse(plan.hash, [], checked_place(where), overwrite)
        if as_json:
            typer.echo(json.dumps(plan.to_mapping(), indent=2))
        else:
            same = len(plan.points) - len(plan.unique)
            rows = [(path, ", ".join(map(str, varied.values(path)))) for path in varied.axes]
            rows += [
                (
                    "points",
                    f"{len(plan.points)}, of which {same} are equal to others" if same else str(len(plan.points)),
                ),
                ("simulations", f"about {duration(plan.core_seconds)} of one core, without what is measured on them"),
                ("images", f"{size(plan.nbytes)} before compression, keep: {varied.keep}"),
                ("measured", ", ".join(varied.measure) or "nothing"),
            ]
            print_rows(simulation.name, rows)
        return
    with stoppable():
        result = simulation.sweep(varied, where, cluster=chosen, workers=workers, overwrite=overwrite, quiet=quiet)
    if as_json:
        typer.echo(json.dumps(result.scores().to_pylist(), indent=2))
    elif not quiet:
        print_rows(str(short(result.path)), sweep_rows(result))
    if not result.complete:
        failed = sum(bool(why) for why in result.table("points")["failure"].to_pylist())
        typer.secho(
            f"{count(failed, 'point')} failed, which the table points lists; type the same command again to try them",
            err=True,
        )
        raise typer.Exit(1)
