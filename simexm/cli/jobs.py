"""Commands around batch queues: submit, status."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simexm.cli import completion
from simexm.cli.app import app
from simexm.cli.shared import (
    DeviceOption,
    DryRunOption,
    JobsOption,
    ModelOption,
    OutputOption,
    OverwriteOption,
    ResultPath,
    SeedOption,
    SpecPath,
    TileOption,
    UntilOption,
    cluster_of,
    load,
    print_rows,
    short,
)  # fmt: skip
from simexm.errors import SpecError

if TYPE_CHECKING:
    from simexm.run.status import Status


@app.command()
def submit(
    spec: SpecPath,
    cluster: Annotated[
        Path,
        typer.Option(
            help="Cluster file, such as cluster_configs/slurm.yaml, edited.",
            show_default=False,
            autocompletion=completion.cluster_files,
        ),
    ],
    jobs: JobsOption = None,
    output: OutputOption = None,
    tile: TileOption = None,
    device: DeviceOption = None,
    until: UntilOption = None,
    seed: SeedOption = None,
    model: ModelOption = "simexm2017",
    overwrite: OverwriteOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Put a whole run into a batch queue: a job that leads it and submits the workers' jobs. You may log out then.

    Example: simexm submit my.yaml --cluster cluster_configs/slurm.yaml --jobs 2:10 --output out.zarr
    """
    from simexm.jobs.batch import driver
    from simexm.jobs.batch.cluster_file import BatchFile
    from simexm.result.place import Place
    from simexm.run import guard
    from simexm.run.backend import refuse_plan

    chosen = cluster_of(cluster, jobs)
    assert chosen is not None
    if not isinstance(chosen.file, BatchFile):
        raise SpecError(f"{cluster} is of kind local, where there is no queue to submit to; type `simexm run` instead")
    if spec.suffix.lower() == ".ini":
        raise SpecError(
            f"{spec} must be a spec of simexm; type `simexm convert {spec} {spec.with_suffix('.yaml')}` first"
        )
    simulation, _ = load(spec, tile, seed, model, device=device)
    plan = simulation.plan(until=until, gpu=chosen.file.gpu is not None)
    plan.warn()
    where = Place.at(output or f"{spec.stem}.zarr")
    guard.refuse(plan.hash, guard.labels_read(plan.simulation.source), where, overwrite)
    refuse_plan(plan, chosen.file)
    words = ["run", str(spec), "--cluster", str(cluster), "--output", str(where.zarr)]
    words += ["--jobs", jobs] if jobs else []
    words += ["--tile", *map(str, tile)] if tile else []
    words += ["--device", device] if device else []
    words += ["--until", until] if until else []
    words += ["--seed", str(seed)] if seed is not None else []
    words += ["--overwrite"] if overwrite else []
    if dry_run:
        typer.echo(f"# the driver's job\n{driver.script(chosen.file, where.jobs, Path.cwd(), words)}")
        typer.echo(f"# each job of workers\n{chosen.job_script(where.jobs)}", nl=False)
        return
    job, queue, log = driver.submit(chosen.file, where.jobs, Path.cwd(), words)
    zarr = short(where.zarr)
    rows = [
        ("how far it is", f"simexm status {zarr}"),
        ("what it prints", f"tail -f {short(log)}"),
        ("in the queue", queue.look(job)),
        ("to stop it", f"{queue.cancel_command} {job}    (what is done is kept; submit again to go on)"),
    ]
    print_rows(f"submitted job {job}, which leads the run into {zarr}", rows)


@app.command()
def status(
    path: ResultPath,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
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
    from simexm.jobs.progress import clock

    share = f" ({found.done / found.blocks:.0%})" if found.blocks else ""
    failed = f", {found.failed} failed" if found.failed else ""
    state = "complete" if found.complete else f"{found.done} of {found.blocks} blocks done{share}{failed}"
    rows = [("run", state if found.blocks else "not begun yet")]
    for name, told in found.passes.items():
        rows.append(
            (f"pass {name}", "finished" if told["finished"] else f"{told['done']} of {found.blocks} blocks done")
        )
    if found.blocks_per_s and found.left_s is not None and not found.complete:
        rows.append(("speed", f"{found.blocks_per_s:.3g} blocks/s, {clock(found.left_s)} left"))
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
