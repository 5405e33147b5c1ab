"""Commands that run experiments: run, plan, preview, decode, convert."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simexm.cli import completion
from simexm.cli.app import app
from simexm.cli.logfile import LogFileOption
from simexm.cli.shared import (
    DeviceOption,
    DryRunOption,
    JobsOption,
    ModelOption,
    OutputOption,
    OverwriteOption,
    ResultPath,
    RoundOption,
    SeedOption,
    SpecPath,
    Terminated,
    TileOption,
    UntilOption,
    bar,
    cluster_of,
    load,
    print_rows,
    print_table,
    short,
    stoppable,
)  # fmt: skip
from simexm.errors import OutputError, SimexmWarning, SpecError
from simexm.logs import logger

if TYPE_CHECKING:
    from simexm.jobs.clusters import Cluster


@app.command()
def run(
    spec: SpecPath,
    output: OutputOption = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Worker processes on this machine.", show_default="one for each core")
    ] = None,
    cluster: Annotated[
        Path | None,
        typer.Option(
            help="Cluster file, such as cluster_configs/slurm.yaml, edited.",
            show_default="this machine",
            autocompletion=completion.cluster_files,
        ),
    ] = None,
    jobs: JobsOption = None,
    tile: TileOption = None,
    device: DeviceOption = None,
    until: UntilOption = None,
    seed: SeedOption = None,
    model: ModelOption = "simexm2017",
    overwrite: OverwriteOption = False,
    dry_run: DryRunOption = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
    log_file: LogFileOption = None,
    show: Annotated[bool, typer.Option("--show", "-v", help="Open the result in a window when it is done.")] = False,
    profile: Annotated[
        bool, typer.Option("--profile", help="Print where the blocks' time went, when the run is done.")
    ] = False,
) -> None:
    """Run a simulation on a Dask cluster, on this machine or in a batch queue; type it again to resume an interrupted one.

    Example: simexm run my.yaml --output out.zarr --workers 2

    Example: simexm run my.yaml --cluster cluster_configs/slurm.yaml --jobs 2:10

    Example: simexm run my.yaml --quiet --log-file my.log
    """
    chosen = cluster_of(cluster, jobs, workers)
    if dry_run:
        _print_scripts(chosen, output or f"{spec.stem}.zarr")
        return
    simulation, job = load(spec, tile, seed, model, output, quiet, device)
    where = job.output if job else output or f"{spec.stem}.zarr"
    if job and until is None:
        job.check_files(overwrite)
    try:
        with stoppable():
            result = simulation.run(
                where, cluster=chosen, workers=workers, until=until, overwrite=overwrite, quiet=quiet, profile=profile
            )  # fmt: skip
    except KeyboardInterrupt as stopped:
        told = "interrupted; what was finished is kept: type the same command again to go on"
        logger.error(told)
        typer.secho(told, err=True)
        raise typer.Exit(143 if isinstance(stopped, Terminated) else 130) from None
    if job and until is None:
        with bar("files", quiet) as progress:
            job.write_files(result, progress)
    if not quiet:
        shape = " x ".join(map(str, result.array().shape))
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
        except NoWindowError as error:  # the run is done all the same
            warnings.warn(str(error), SimexmWarning, stacklevel=1)


def _print_scripts(cluster: Cluster | None, output: str) -> None:
    from simexm.result.place import Place

    script = cluster.job_script(Place.at(output).jobs) if cluster else ""
    if not script:
        raise SpecError("--dry-run prints the scripts of batch jobs, and this machine needs none; name a --cluster")
    typer.echo(script, nl=False)


@app.command()
def plan(
    spec: SpecPath,
    tile: TileOption = None,
    device: DeviceOption = None,
    until: UntilOption = None,
    seed: SeedOption = None,
    model: ModelOption = "simexm2017",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Tell what a run would do: grids, blocks, halo, bytes, memory, seconds. Nothing is computed.

    Example: simexm plan my.yaml --json
    """
    from simexm.run.backend import lacking_here

    made = load(spec, tile, seed, model, device=device)[0].plan(until=until)
    made.warn()
    why = lacking_here(made)
    if why:  # the run may be meant for another machine
        warnings.warn(f"a run on this machine would be refused: {why}", SimexmWarning, stacklevel=1)
    if as_json:
        typer.echo(json.dumps(made.to_mapping(), indent=2))
    else:
        from simexm.view.rows import plan_rows

        print_rows(made.simulation.name, plan_rows(made))
        for remark in made.imaging.description.remarks():
            typer.echo(remark)


@app.command()
def preview(
    spec: SpecPath,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="PNG to write.", show_default="the spec's name, -preview.png")
    ] = None,
    at: Annotated[
        tuple[int, int, int] | None,
        typer.Option(help="Pixel z y x around which to look.", metavar="Z Y X", show_default="the middle of the image"),
    ] = None,
    round_: RoundOption = None,
    tile: TileOption = None,
    device: DeviceOption = None,
    until: UntilOption = None,
    seed: SeedOption = None,
    model: ModelOption = "simexm2017",
) -> None:
    """Compute a part of the image, with the very pixels that a run would give, and draw it as a PNG and in the terminal.

    Example: simexm preview my.yaml
    """
    from simexm.store.location import refuse_url, with_ending
    from simexm.view.preview import preview as compute
    from simexm.view.terminal import print_picture

    path = output or Path(f"{spec.stem}-preview.png")
    refuse_url(path)
    if path.suffix.lower() != ".png":
        raise OutputError(f"the picture {path} is a PNG; type --output {with_ending(path, '.png')}")
    made = load(spec, tile, seed, model, device=device)[0].plan(until=until)
    made.warn()
    seen = compute(made, at, round=round_)
    seen.save(path)
    print_picture(seen.picture)
    typer.echo(f"{path}: {seen}")


@app.command()
def decode(
    path: ResultPath,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Table to write, .parquet or .csv, one row a cell.", show_default=False),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a table that is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Read the barcodes of cells from the images of all rounds, and compare them with the truth.

    Example: simexm decode rolonies.zarr --output decoded.csv
    """
    from simexm.analysis.barcodes.decode import decode as decode_result
    from simexm.analysis.barcodes.decode import refuse_table, write_table
    from simexm.result.result import Result

    if output:
        refuse_table(output, overwrite)
    found = decode_result(Result.open(path))
    if output:
        write_table(found.table, output)
    if as_json:
        typer.echo(json.dumps(found.to_mapping(), indent=2))
        return
    rows = [
        ("cells with a barcode", str(found.cells)),
        ("right", str(found.right)),
        ("wrong", f"{found.wrong} ({found.letters_wrong:.2%} of the letters)"),
        ("undecidable", f"{found.undecidable}, without an amplicon in the image"),
    ]
    print_rows(path, rows)
    if output:
        typer.echo(f"table: {output}")


@app.command()
def convert(
    config: Annotated[Path, typer.Argument(help="Configuration file of SimExm (2017).", show_default=False)],
    spec: Annotated[Path, typer.Argument(help="Spec to write, .yaml or .json.", show_default=False)],
    model: ModelOption = "simexm2017",
    seed: SeedOption = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the spec.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Write a .ini file of SimExm (2017) as a native spec, and ingest its ground truth beside it.

    Example: simexm convert config.ini my.yaml --model physical
    """
    from simexm import settings
    from simexm.api import Simulation
    from simexm.errors import SourceNotFoundError
    from simexm.legacy2017.convert import ingest_command, to_yaml_text
    from simexm.legacy2017.load import Job
    from simexm.store.location import usable

    usable(spec)
    if spec.exists() and not overwrite:
        raise OutputError(f"{spec} is there already; type --overwrite, or another name")
    job = Job.of(config, model, seed, spec.with_suffix(".zarr"))
    mapping = job.spec()
    Simulation.from_mapping(mapping, str(config))
    try:
        with bar("ingest", quiet) as progress:
            job.ingest(progress)
    except SourceNotFoundError as error:
        warnings.warn(
            f"{error} The spec is written all the same; where the ground truth is, type: "
            f"{ingest_command(job.config, job.ground_truth)}",
            SimexmWarning,
            stacklevel=1,
        )
    if spec.suffix.lower() == ".json":
        spec.write_text(settings.dump(mapping, spec), encoding="utf-8")
    else:
        spec.write_text(to_yaml_text(mapping, f"From {config.name}, model {model}."), encoding="utf-8")
    if not quiet:
        typer.echo(f"{spec}: type `simexm run {spec}`")
