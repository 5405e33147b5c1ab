"""Commands that simulate: plan, preview, run, submit."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simexm.cli import options
from simexm.cli.app import Heading, command
from simexm.cli.logfile import LogFileOption
from simexm.cli.shared import Terminated, bar, cluster_of, load, print_rows, print_table, short, stoppable
from simexm.errors import OutputError, SimexmWarning, SpecError
from simexm.logs import logger
from simexm.units import times

if TYPE_CHECKING:
    from simexm.api import Simulation
    from simexm.jobs.clusters import Cluster
    from simexm.planning.plan import Plan
    from simexm.result.place import Place


@command(Heading.SIMULATE)
def plan(
    spec: options.SpecPath,
    tile: options.Tile = None,
    device: options.Device = None,
    until: options.Until = None,
    seed: options.Seed = None,
    model: options.Model = "simexm2017",
    as_json: options.Json = False,
) -> None:
    """Print what a run would do, without computing anything: grids, blocks, halo, bytes, memory, seconds.

    Example: simexm plan my.yaml --json
    """
    from simexm.run.backend import why_too_large

    made = load(spec, tile, seed, model, device=device)[0].plan(until=until)
    made.warn()
    why = why_too_large(made)
    if why:  # a warning: the run may be for another machine
        warnings.warn(f"a run on this machine would be refused: {why}", SimexmWarning, stacklevel=1)
    if as_json:
        typer.echo(json.dumps(made.to_mapping(), indent=2))
    else:
        _print_plan(made)


def _print_plan(made: Plan) -> None:
    from simexm.view.rows import plan_rows

    print_rows(made.simulation.name, plan_rows(made))
    for remark in made.imaging.description.remarks():
        typer.echo(remark)


@command(Heading.SIMULATE)
def preview(
    spec: options.SpecPath,
    output: Annotated[
        Path | None, options.output("PNG to write.", "the spec's name, -preview.png, which is replaced")
    ] = None,
    at: Annotated[
        tuple[int, int, int] | None,
        typer.Option(
            help="Pixel z y x at the centre of the preview.", metavar="Z Y X", show_default="the middle of the image"
        ),
    ] = None,
    round_: options.Round = None,
    tile: options.Tile = None,
    device: options.Device = None,
    until: options.Until = None,
    seed: options.Seed = None,
    model: options.Model = "simexm2017",
    overwrite: options.Overwrite = False,
) -> None:
    """Compute a part of the image, pixel by pixel as a run would, and draw it as a PNG and in the terminal.

    Example: simexm preview my.yaml
    """
    from simexm.store.atomic_file import refuse
    from simexm.store.location import refuse_url, with_ending
    from simexm.view.preview import preview as compute
    from simexm.view.terminal import print_picture

    path = output or Path(f"{spec.stem}-preview.png")
    refuse_url(path)
    if path.suffix.lower() != ".png":
        raise OutputError(f"the picture {path} is a PNG; type --output {with_ending(path, '.png')}")
    refuse([output] if output else [], overwrite=overwrite)
    made = load(spec, tile, seed, model, device=device)[0].plan(until=until)
    made.warn()
    seen = compute(made, at, round=round_)
    seen.save(path)
    print_picture(seen.picture)
    typer.echo(f"{path}: {seen}")


@command(Heading.SIMULATE)
def run(
    spec: options.SpecPath,
    output: options.Output = None,
    workers: options.Workers = None,
    cluster: options.Cluster = None,
    jobs: options.Jobs = None,
    tile: options.Tile = None,
    device: options.Device = None,
    until: options.Until = None,
    seed: options.Seed = None,
    model: options.Model = "simexm2017",
    overwrite: options.Overwrite = False,
    dry_run: options.DryRun = False,
    quiet: options.Quiet = False,
    log_file: LogFileOption = None,
    show: Annotated[bool, typer.Option("--show", help="Open the result in a window when it is done.")] = False,
    profile: Annotated[
        bool, typer.Option("--profile", help="Print what the blocks' time was spent on, when the run is done.")
    ] = False,
) -> None:
    """Run a simulation with Dask, on this machine or in a batch queue; type it again to resume an interrupted run.

    Example: simexm run my.yaml --output out.zarr --workers 2

    Example: simexm run my.yaml --cluster cluster_configs/slurm.yaml --jobs 2:10

    Example: simexm run my.yaml --quiet --log-file my.log
    """
    chosen = cluster_of(cluster, jobs, workers)
    if dry_run:
        simulation = _native(spec, tile, seed, device)
        made, place = _checked(simulation, chosen, output or f"{spec.stem}.zarr", until, overwrite)
        script = chosen.job_script(place.jobs) if chosen else ""
        if script:
            typer.echo(script, nl=False)
        else:
            _print_plan(made)
        return
    simulation, job = load(spec, tile, seed, model, output, quiet, device)
    where = job.output if job else output or f"{spec.stem}.zarr"
    if job and until is None:
        job.check_files(overwrite)
    try:
        with stoppable():
            result = simulation.run(
                where, cluster=chosen, workers=workers, until=until, overwrite=overwrite, quiet=quiet, profile=profile
            )
    except KeyboardInterrupt as stopped:
        text = "interrupted; finished blocks are kept: type the same command again to resume"
        logger.error(text)
        typer.secho(text, err=True)
        raise typer.Exit(143 if isinstance(stopped, Terminated) else 130) from None
    if job and until is None:
        with bar("files", quiet) as progress:
            job.write_files(result, progress)
    if not quiet:
        shape = times(result.array().shape)
        rounds = f"{result.rounds} rounds of " if result.rounds else ""
        typer.echo(f"{short(result.path)}: {rounds}{shape} (c, z, y, x), {result.levels()} levels")
        typer.echo(f"picture: {short(result.place.run / 'preview.png')}")
        if job and until is None:
            typer.echo(f"files of the original: {short(job.folder)}")
    if profile:
        from simexm.run.profile import profile as profile_of
        from simexm.run.profile import table

        print_table(table(profile_of(result)))
    if show:
        from simexm.view.toolkit import NoWindowError
        from simexm.view.window import show as open_window

        try:
            open_window(result)
        except NoWindowError as error:
            warnings.warn(str(error), SimexmWarning, stacklevel=1)


@command(Heading.SIMULATE)
def submit(
    spec: options.SpecPath,
    cluster: Annotated[Path, options.cluster(False)],
    jobs: options.Jobs = None,
    output: options.Output = None,
    tile: options.Tile = None,
    device: options.Device = None,
    until: options.Until = None,
    seed: options.Seed = None,
    overwrite: options.Overwrite = False,
    dry_run: options.DryRun = False,
) -> None:
    """Submit a run to a batch queue: one job drives it and submits the worker jobs. You may log out.

    Example: simexm submit my.yaml --cluster cluster_configs/slurm.yaml --jobs 2:10 --output out.zarr
    """
    from simexm.jobs.batch import driver
    from simexm.jobs.batch.cluster_file import BatchFile

    chosen = cluster_of(cluster, jobs)
    assert chosen is not None
    if not isinstance(chosen.file, BatchFile):
        raise SpecError(f"{cluster} is of kind local, which has no queue to submit to; type `simexm run` instead")
    simulation = _native(spec, tile, seed, device)
    _, where = _checked(simulation, chosen, output or f"{spec.stem}.zarr", until, overwrite)
    words = ["run", str(spec), "--cluster", str(cluster), "--output", str(where.zarr)]
    words += ["--jobs", jobs] if jobs else []
    words += ["--tile", *map(str, tile)] if tile else []
    words += ["--device", device] if device else []
    words += ["--until", until] if until else []
    words += ["--seed", str(seed)] if seed is not None else []
    words += ["--overwrite"] if overwrite else []
    if dry_run:
        typer.echo(f"# the driver's job\n{driver.script(chosen.file, where.jobs, Path.cwd(), words)}")
        typer.echo(f"# each worker job\n{chosen.job_script(where.jobs)}", nl=False)
        return
    job, queue, log = driver.submit(chosen.file, where.jobs, Path.cwd(), words)
    zarr = short(where.zarr)
    rows = [
        ("progress", f"simexm status {zarr}"),
        ("output", f"tail -f {short(log)}"),
        ("in the queue", queue.look(job)),
        ("to stop it", f"{queue.cancel_command} {job}    (finished blocks are kept; submit again to resume)"),
    ]
    print_rows(f"submitted job {job}, which drives the run into {zarr}", rows)


def _native(spec: Path, tile: tuple[int, int, int] | None, seed: int | None, device: str | None) -> Simulation:
    """Load a spec; refuse a configuration of 2017, whose ground truth would have to be ingested first."""
    if spec.suffix.lower() == ".ini":
        raise SpecError(
            f"{spec} is a configuration of 2017, not a spec; type `simexm convert {spec} -o {spec.with_suffix('.yaml')}` first"
        )
    return load(spec, tile, seed, device=device)[0]


def _checked(
    simulation: Simulation, chosen: Cluster | None, output: str, until: str | None, overwrite: bool
) -> tuple[Plan, Place]:
    """Plan a run without starting it, and raise the errors that its start would raise."""
    from simexm.jobs.batch.cluster_file import BatchFile
    from simexm.result.place import Place
    from simexm.run import guard
    from simexm.run.backend import refuse_plan

    gpu = chosen.file.gpu is not None if chosen and isinstance(chosen.file, BatchFile) else None
    made, where = simulation.plan(until=until, gpu=gpu), Place.at(output)
    made.warn()
    guard.refuse(made.hash, guard.labels_read(simulation.source), where, overwrite)
    if chosen:
        refuse_plan(made, chosen.file)
    return made, where
