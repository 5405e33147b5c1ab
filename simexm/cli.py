"""The command line: parse, call, render."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core

from simexm import __version__
from simexm.errors import OutputError, SimexmError, SimexmWarning, SpecError
from simexm.export.formats import Arrangement, Format

if TYPE_CHECKING:
    from simexm.engine.plan import Plan
    from simexm.legacy.load import Job
    from simexm.result import Result
    from simexm.simulation import Simulation


class _Group(typer.core.TyperGroup):
    """All commands; turns what they raise into one message and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            warnings.simplefilter("ignore")  # of other libraries: nothing that a user could mend
            warnings.simplefilter("always", SimexmWarning)
            try:
                return super().invoke(ctx)
            except KeyboardInterrupt:
                typer.secho("interrupted", err=True)
                raise typer.Exit(130) from None
            except BrokenPipeError:
                raise
            except (typer.Exit, typer.Abort):
                raise
            except Exception as error:
                if _Debug.on or type(error).__module__.startswith("typer"):  # its usage errors
                    raise
                told, code = _told(error)
                typer.secho(f"error: {told}", fg="red", err=True)
                raise typer.Exit(code) from None


app = typer.Typer(
    name="simexm",
    cls=_Group,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Simulate expansion microscopy of segmented electron-microscopy volumes.\n\n"
    "Exit codes: 0 done, 1 the run failed, 2 the spec or the input is wrong, 130 interrupted.",
)

SpecPath = Annotated[
    Path, typer.Argument(help="Spec file, YAML or JSON; or an .ini file of SimExm (2017).", show_default=False)
]
SeedOption = Annotated[int | None, typer.Option(help="Seed of every random number.", show_default="the spec's, or 0")]
ModelOption = Annotated[
    str,
    typer.Option(
        help="For .ini files: simexm2017 draws as the original did; physical runs the file through the default physics."
    ),
]
TileOption = Annotated[
    tuple[int, int, int] | None,
    typer.Option(help="Pixels along z y x that are computed at once.", metavar="Z Y X", show_default=False),
]
UntilOption = Annotated[
    str | None,
    typer.Option(help="Stop after this stage, for example labelling or confocal.", metavar="STAGE", show_default=False),
]


RoundOption = Annotated[
    int | None, typer.Option("--round", help="Which round, where there are several.", show_default="the first")
]


class _Debug:
    """Whether a traceback is wanted."""

    on = False


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"simexm {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    debug: Annotated[bool, typer.Option("--debug", help="Show Python's traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and end.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    _Debug.on = debug or bool(os.environ.get("SIMEXM_DEBUG"))


@app.command()
def run(
    spec: SpecPath,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder to write, NAME.zarr.", show_default="the spec's name")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Worker processes on this machine.", show_default="one for each core")
    ] = None,
    tile: TileOption = None,
    until: UntilOption = None,
    seed: SeedOption = None,
    model: ModelOption = "simexm2017",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier simexm result.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
    show: Annotated[bool, typer.Option("--show", "-v", help="Open the result in a window when it is done.")] = False,
) -> None:
    """Run a simulation on a Dask cluster on this machine; type it again to resume one that was interrupted.

    Example: simexm run my.yaml --output out.zarr --workers 2
    """
    simulation, job = _load(spec, tile, seed, model, output, quiet)
    where = job.output if job else output or Path(f"{spec.stem}.zarr")
    if job and until is None:
        job.check_files(overwrite)
    try:
        result = simulation.run(where, workers=workers, until=until, overwrite=overwrite, quiet=quiet)
    except KeyboardInterrupt:
        typer.secho("interrupted; what was finished is kept: type the same command again to go on", err=True)
        raise typer.Exit(130) from None
    if job and until is None:
        with _bar("files", quiet) as progress:
            job.write_files(result, progress)
    if not quiet:
        shape = " x ".join(map(str, result.array().shape))
        rounds = f"{result.rounds} rounds of " if result.rounds else ""
        typer.echo(f"{_short(result.path)}: {rounds}{shape} (c, z, y, x), {result.levels()} levels")
        typer.echo(f"picture: {_short(result.place.run / 'preview.png')}")
        if job and until is None:
            typer.echo(f"files of the original: {_short(job.folder)}")
    if show:
        from simexm.view.toolkit import NoWindowError
        from simexm.view.window import show as open_window

        try:
            open_window(result)
        except NoWindowError as error:  # the run is done all the same
            warnings.warn(str(error), SimexmWarning, stacklevel=1)


@app.command()
def plan(
    spec: SpecPath,
    tile: TileOption = None,
    until: UntilOption = None,
    seed: SeedOption = None,
    model: ModelOption = "simexm2017",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Tell what a run would do: grids, blocks, halo, bytes, memory, seconds. Nothing is computed.

    Example: simexm plan my.yaml --json
    """
    made = _load(spec, tile, seed, model)[0].plan(until=until)
    made.warn()
    if as_json:
        typer.echo(json.dumps(made.to_mapping(), indent=2))
    else:
        _print_plan(made)


@app.command()
def preview(
    spec: SpecPath,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="PNG to write.", show_default="the spec's name, -preview.png")
    ] = None,
    seed: SeedOption = None,
    model: ModelOption = "simexm2017",
) -> None:
    """Compute the middle of the image, with the very pixels that a run would give, and draw it as a PNG.

    Example: simexm preview my.yaml
    """
    from simexm.view.preview import preview as draw_preview

    path = output or Path(f"{spec.stem}-preview.png")
    if path.suffix.lower() != ".png":
        raise OutputError(f"the picture {path} is a PNG; type --output {path.with_suffix('.png')}")
    made = _load(spec, None, seed, model)[0].plan()
    made.warn()
    box = draw_preview(made, path)
    typer.echo(f"{path}: pixels {list(box.start)} to {list(box.stop)} of {list(made.shape)} (z, y, x)")


@app.command()
def ingest(
    source: Annotated[
        str,
        typer.Argument(
            help="TIFF stack, folder (or quoted glob) of slices, Zarr, N5, Neuroglancer precomputed or HDF5.",
            show_default=False,
        ),
    ],
    output: Annotated[Path, typer.Argument(help="Folder to write, NAME.zarr.", show_default=False)],
    voxel_size: Annotated[
        tuple[float, float, float] | None,
        typer.Option(help="Voxel size, nm; by default what the metadata tell.", metavar="Z Y X", show_default=False),
    ] = None,
    region: Annotated[
        list[str] | None,
        typer.Option(
            help="Mask of a further region, of any of these kinds, not 0 inside; may be repeated.",
            metavar="NAME=PATH",
            show_default=False,
        ),
    ] = None,
    offset: Annotated[
        tuple[int, int, int] | None,
        typer.Option(help="First voxel to take.", metavar="Z Y X", show_default="0 0 0"),
    ] = None,
    shape: Annotated[
        tuple[int, int, int] | None,
        typer.Option(help="Number of voxels to take.", metavar="Z Y X", show_default="up to the end"),
    ] = None,
    cells: Annotated[
        str, typer.Option(help="merged, or splitted: SOURCE holds one stack or folder for each cell.")
    ] = "merged",
    dataset: Annotated[
        str | None,
        typer.Option(help="Volume inside an HDF5, N5 or Zarr, or scale of a precomputed one.", show_default=False),
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Threads; 0 for one on each core.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what an earlier ingest wrote.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Turn a segmentation of any kind and size, and masks of regions, into sharded multiscale OME-Zarr labels.

    Example: simexm ingest segmentation.tif cortex.zarr --voxel-size 40 32 32 --region synapse=synapses.tif
    """
    from simexm.sources.ingest import ingest as ingest_volume

    masks = dict(_named(pair) for pair in region or ())
    if len(masks) < len(region or ()):
        raise SpecError(f"two regions have the same name ({', '.join(region or ())}); give each a name of its own")
    if cells not in ("merged", "splitted"):
        raise SpecError(f"--cells {cells} is unknown; type merged (one volume of all cells) or splitted (one a cell)")
    with _bar("ingest", quiet) as progress:
        made = ingest_volume(
            source, output, voxel_size, regions=masks, offset=offset, shape=shape,
            cells="merged" if cells == "merged" else "splitted", dataset=dataset, workers=workers, overwrite=overwrite,
            progress=progress,
        )  # fmt: skip
    if not quiet:
        voxels = made.shape[0] * made.shape[1] * made.shape[2]
        typer.echo(
            f"{output}: {_times(made.shape)} voxels of {_times(map(float, made.voxel_size_nm))} nm, {made.dtype}, "
            + (f"regions {', '.join(made.regions)}, " if made.regions else "")
            + f"{made.levels} levels, largest id {made.largest_id}, {made.nbytes / 1e6:.1f} MB, "
            f"{voxels / 1e6 / max(made.seconds, 1e-9):.0f} Mvoxel/s"
        )


def _named(pair: str) -> tuple[str, str]:
    name, equals, path = pair.partition("=")
    if not (name and equals and path):
        raise SpecError(
            f"--region {pair}: it is not known which is the name and which the mask; type --region NAME=PATH"
        )
    return name, path


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
    from simexm.simulation import Simulation

    typer.echo(json.dumps(Simulation.model_json_schema(), indent=2))


@app.command()
def info(
    path: Annotated[Path, typer.Argument(help="Result, NAME.zarr.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Tell what a result holds and how it was made.

    Example: simexm info out.zarr
    """
    from simexm.result import Result

    result = Result.open(path)
    if as_json:
        typer.echo(json.dumps(result.attributes, indent=2))
        return
    p = result.provenance
    if not result.complete:
        typer.echo(f"{path}: incomplete; type the `simexm run` command again to go on")
        return
    image = result.array()
    z, y, x = p["pixel_size_expanded_um"]
    rows = [
        (
            "image",
            f"{' x '.join(map(str, image.shape))} (c, z, y, x), {image.dtype}, {result.levels()} levels, {p['quantity']}",
        ),
        ("channels", ", ".join(c["label"] for c in result.channels)),
        *([("rounds", f"{result.rounds}, with {p['amplicons']} amplicons in all")] if result.rounds else ()),
        ("labels", ", ".join(result.label_names)),
        ("pixel", f"{z:g} x {y:g} x {x:g} um expanded, expansion {p['expansion_factor']:g}"),
        ("dyes", ", ".join(f"{k}: {v}" for k, v in p["dyes"].items())),
        (
            "PSF energy",
            ", ".join(f"{s['dye']} in {s['channel']}: {s['share']:.1%}" for s in p.get("psf_energy_share", ())) or "-",
        ),
        ("clipped", ", ".join(f"{k}: {v}" for k, v in p["clipped_pixels"].items())),
        ("seed, hash", f"{p['seed']}, {p['hash']}"),
        ("versions", ", ".join(f"{k} {v}" for k, v in p["versions"].items())),
    ]
    _print_rows(str(path), rows)


@app.command()
def show(
    path: Annotated[Path, typer.Argument(help="Result, NAME.zarr.", show_default=False)], round_: RoundOption = None
) -> None:
    """Open a result in a window: sliders and the arrow keys choose the plane (up, down) and the channel (left, right).

    Example: simexm show out.zarr
    """
    from simexm.result import Result
    from simexm.view.window import show as open_window

    open_window(_at_round(Result.open(path), round_))


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
    _print_table(dye_rows(told.dyes))
    if told.bench:
        _print_table(sight_rows(told.seen, told.bench))
        typer.echo("signal: of one dye molecule, over that of the dye that the channel is for, in weak light")
    if told.picture:
        typer.echo(f"picture: {told.picture}")


@app.command()
def export(
    path: Annotated[Path, typer.Argument(help="Result, NAME.zarr.", metavar="RESULT", show_default=False)],
    folder: Annotated[Path, typer.Argument(help="Folder to write files to.", metavar="DIR", show_default=False)],
    form: Annotated[Format, typer.Option("--format", help="PNG: a folder of images, one a plane.", show_default=False)],
    channels: Annotated[
        Arrangement,
        typer.Option(
            help="split: a gray stack each, with the stored values (GIF: 8 bits). merged: in ome-tiff all in one file; in tiff "
            "8-bit RGB stacks of three channels; in gif and png 8 bits in their display colours."
        ),
    ] = Arrangement.SPLIT,
    labels: Annotated[
        Arrangement | None,
        typer.Option(
            help="merged: a stack of ids for each label image. split: one for each cell.", show_default="no labels"
        ),
    ] = None,
    level: Annotated[int, typer.Option(help="Level of the pyramid, 0 the finest.")] = 0,
    round_: RoundOption = None,
    eight_bit: Annotated[
        bool,
        typer.Option(
            "--8bit",
            help="Scale each channel by its own maximum, value * 255 / maximum. Without, where 8 bits are needed, by its display "
            "window.",
        ),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Write a result as TIFF, OME-TIFF, GIF or PNG, whatever its size. Voxel sizes are of the tissue before expansion.

    Example: simexm export out.zarr files --format ome-tiff --channels merged --labels merged
    """
    from simexm.export.export import export as export_result
    from simexm.result import Result

    result = _at_round(Result.open(path), round_)
    with _bar("export", quiet) as progress:
        written = export_result(
            result, folder, form, channels=channels, labels=labels, level=level, eight_bit=eight_bit, overwrite=overwrite,
            progress=progress,
        )  # fmt: skip
    if not quiet:
        for each in written[:_LISTED]:
            typer.echo(str(each))
        if len(written) > _LISTED:
            typer.echo(f"and {len(written) - _LISTED} more below {folder}")


def _at_round(result: Result, number: int | None) -> Result:
    """The result at the round that was asked for; tells which one is taken where none was."""
    if number is None:
        if result.rounds:
            typer.echo(f"round 1 of {result.rounds}; type --round N for another", err=True)
        return result
    return result.at_round(number)


_LISTED = 20
"""Files that are named at most."""


@contextlib.contextmanager
def _bar(what: str, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A progress bar, where there is a terminal; yields what to call with the parts done and all parts."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, disable=quiet or not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _load(
    spec: Path,
    tile: tuple[int, int, int] | None,
    seed: int | None = None,
    model: str = "simexm2017",
    output: Path | None = None,
    quiet: bool = False,
) -> tuple[Simulation, Job | None]:
    """The simulation of a spec; or that of a 2017 configuration, whose ground truth is ingested first, and the configuration."""
    from simexm.legacy.load import Job, is_ini
    from simexm.simulation import Simulation

    if is_ini(spec):
        job = Job.of(spec, model, seed, output)
        with _bar("ingest", quiet) as progress:
            return job.simulation(progress).with_tile(tile), job
    simulation = Simulation.load(spec)
    if seed is not None:
        simulation = simulation.replace(seed=seed)
    return simulation.with_tile(tile), None


@app.command()
def decode(
    path: Annotated[Path, typer.Argument(help="Result with rounds, NAME.zarr.", metavar="RESULT", show_default=False)],
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
    from simexm.decode import decode as decode_result
    from simexm.decode import refuse_table, write_table
    from simexm.result import Result

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
    _print_rows(str(path), rows)
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
    from simexm import specfile
    from simexm.errors import SourceNotFoundError
    from simexm.legacy.convert import ingest_command, to_yaml_text
    from simexm.legacy.load import Job
    from simexm.simulation import Simulation

    if spec.exists() and not overwrite:
        raise OutputError(f"{spec} is there already; type --overwrite, or another name")
    job = Job.of(config, model, seed, spec.with_suffix(".zarr"))
    mapping = job.spec()
    Simulation.from_mapping(mapping, str(config))
    try:
        with _bar("ingest", quiet) as progress:
            job.ingest(progress)
    except SourceNotFoundError as error:
        warnings.warn(
            f"{error} The spec is written all the same; where the ground truth is, type: "
            f"{ingest_command(job.config, job.ground_truth)}",
            SimexmWarning,
            stacklevel=1,
        )
    if spec.suffix.lower() == ".json":
        spec.write_text(specfile.dump(mapping, spec), encoding="utf-8")
    else:
        spec.write_text(to_yaml_text(mapping, f"From {config.name}, model {model}."), encoding="utf-8")
    if not quiet:
        typer.echo(f"{spec}: type `simexm run {spec}`")


def _print_plan(made: Plan) -> None:
    m = made.to_mapping()
    image, blocks, source = m["image"], m["blocks"], m["source"]
    cores = os.cpu_count() or 1
    rows = [
        (
            "source",
            f"{_times(source['crop_stop'], source['crop_start'])} voxels of {_times(source['voxel_size_nm'])} nm",
        ),
        (
            "image",
            (
                f"{len(image['channels'])} x {_times(image['shape_pixels'])} (c, z, y, x), "
                f"{_times(image['pixel_size_expanded_nm'])} nm expanded = {_times(image['pixel_size_tissue_nm'])} nm of tissue"
            ),
        ),
        *([("rounds", f"{m['rounds']} such images, one for each round")] if m["rounds"] else ()),
        ("levels", ", ".join(_times(s) for s in image["levels"])),
        *made.imaging.rows(),
        ("blocks", f"{blocks['count']} of {_times(blocks['block_pixels'])}, tiles of {_times(blocks['tile_pixels'])}"),
        ("stored", f"{m['bytes_uncompressed'] / 1e9:.3g} GB before compression, about {blocks['files']} files"),
        ("memory", f"{m['memory_per_worker_bytes'] / 2**30:.2f} GiB in each worker"),
        ("time", f"about {m['core_seconds']:.0f} core-seconds, {m['core_seconds'] / cores:.0f} s on {cores} cores"),
        ("hash", m["hash"]),
    ]
    _print_rows(made.simulation.name, rows)
    for remark in made.imaging.remarks():
        typer.echo(remark)


def _print_rows(title: str, rows: list[tuple[str, str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
    for row in rows:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def _print_table(rows: list[tuple[str, ...]]) -> None:
    """Print a table whose first row is its heading."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for heading in rows[0]:
        table.add_column(heading)
    for row in rows[1:]:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def _times(values: Any, minus: Any = None) -> str:
    numbers = [a - b for a, b in zip(values, minus, strict=True)] if minus is not None else values
    return " x ".join(f"{n:.6g}" for n in numbers)


def _short(path: Path) -> Path:
    try:
        return path.relative_to(Path.cwd())
    except ValueError:
        return path


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    if issubclass(category, SimexmWarning):
        typer.secho(f"warning: {message}", fg="yellow", err=True)


def _told(error: Exception) -> tuple[str, int]:
    """What to say of an error, and the exit code."""
    if isinstance(error, SimexmError):
        return str(error), error.exit_code
    if isinstance(error, MemoryError):
        return "the memory is full; lower execution.memory_GiB in the spec, or close other programs", 1
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror or error}; name a file or folder that you may use", 1
    *_, last = traceback.extract_tb(error.__traceback__)
    where = f"{Path(last.filename).name}, line {last.lineno}"
    told = f"{type(error).__name__}: {error} (in {where}). This is a fault of simexm, not of yours: please report it"
    return f"{told} with what `simexm --debug ...` shows", 1


def _one_arena() -> None:
    """Let the threads of this process share one heap: glibc gives each its own, and what one frees no other can use."""
    import ctypes

    with contextlib.suppress(OSError, AttributeError):  # not glibc
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


_M_ARENA_MAX = -8


def main() -> None:
    """Entry point of the `simexm` command."""
    _one_arena()
    app()


if __name__ == "__main__":
    main()
