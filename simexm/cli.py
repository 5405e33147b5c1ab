"""The command line: parse, call, render."""

from __future__ import annotations

import json
import os
import sys
import traceback
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core

from simexm import __version__
from simexm.errors import OutputError, SimexmError, SimexmWarning

if TYPE_CHECKING:
    from simexm.engine.plan import Plan
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

SpecPath = Annotated[Path, typer.Argument(help="Spec file, YAML or JSON.", show_default=False)]
TileOption = Annotated[
    tuple[int, int, int] | None,
    typer.Option(help="Pixels along z y x that are computed at once.", metavar="Z Y X", show_default=False),
]
UntilOption = Annotated[
    str | None,
    typer.Option(help="Stop after this stage, for example labelling or confocal.", metavar="STAGE", show_default=False),
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
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier simexm result.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Run a simulation on a Dask cluster on this machine; type it again to resume one that was interrupted.

    Example: simexm run my.yaml --output out.zarr --workers 2
    """
    simulation = _load(spec, tile)
    where = output if output is not None else Path(f"{spec.stem}.zarr")
    try:
        result = simulation.run(where, workers=workers, until=until, overwrite=overwrite, quiet=quiet)
    except KeyboardInterrupt:
        typer.secho("interrupted; what was finished is kept: type the same command again to go on", err=True)
        raise typer.Exit(130) from None
    if not quiet:
        shape = " x ".join(map(str, result.array().shape))
        typer.echo(f"{_short(result.path)}: {shape} (c, z, y, x), {result.levels()} levels")
        typer.echo(f"picture: {_short(result.place.run / 'preview.png')}")


@app.command()
def plan(
    spec: SpecPath,
    tile: TileOption = None,
    until: UntilOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Tell what a run would do: grids, blocks, halo, bytes, memory, seconds. Nothing is computed.

    Example: simexm plan my.yaml --json
    """
    made = _load(spec, tile).plan(until=until)
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
) -> None:
    """Compute the middle of the image, with the very pixels that a run would give, and draw it as a PNG.

    Example: simexm preview my.yaml
    """
    from simexm.view.preview import preview as draw_preview

    path = output or Path(f"{spec.stem}-preview.png")
    if path.suffix.lower() != ".png":
        raise OutputError(f"the picture {path} is a PNG; type --output {path.with_suffix('.png')}")
    made = _load(spec, None).plan()
    made.warn()
    box = draw_preview(made, path)
    typer.echo(f"{path}: pixels {list(box.start)} to {list(box.stop)} of {list(made.shape)} (z, y, x)")


@app.command()
def ingest(
    source: Annotated[Path, typer.Argument(help="TIFF stack of cell ids.", show_default=False)],
    output: Annotated[Path, typer.Argument(help="Folder to write, NAME.zarr.", show_default=False)],
    voxel_size: Annotated[
        tuple[float, float, float], typer.Option(help="Voxel size, nm.", metavar="Z Y X", show_default=False)
    ],
    workers: Annotated[int, typer.Option(min=0, help="Threads; 0 for one on each core.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what an earlier ingest wrote.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Turn a TIFF stack, of any compression and size, into sharded multiscale OME-Zarr labels.

    Example: simexm ingest segmentation.tif cortex.zarr --voxel-size 40 32 32
    """
    from rich.console import Console
    from rich.progress import Progress

    from simexm.sources.ingest import ingest as ingest_stack

    console = Console(stderr=True)
    with Progress(console=console, disable=quiet or not console.is_terminal) as bar:
        task = bar.add_task("ingest", total=None)
        made = ingest_stack(
            source, output, voxel_size, workers=workers, overwrite=overwrite,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )  # fmt: skip
    if not quiet:
        voxels = made.shape[0] * made.shape[1] * made.shape[2]
        typer.echo(
            f"{output}: {' x '.join(map(str, made.shape))} voxels of {made.dtype}, {made.levels} levels, largest id "
            f"{made.largest_id}, {made.nbytes / 1e6:.1f} MB, {voxels / 1e6 / max(made.seconds, 1e-9):.0f} Mvoxel/s"
        )


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
        ("labels", ", ".join(result.label_names)),
        ("pixel", f"{z:g} x {y:g} x {x:g} um expanded, expansion {p['expansion_factor']:g}"),
        ("dyes", ", ".join(f"{k}: {v}" for k, v in p["dyes"].items())),
        ("PSF energy", ", ".join(f"{s['dye']} in {s['channel']}: {s['share']:.1%}" for s in p["psf_energy_share"])),
        ("clipped", ", ".join(f"{k}: {v}" for k, v in p["clipped_pixels"].items())),
        ("seed, hash", f"{p['seed']}, {p['hash']}"),
        ("versions", ", ".join(f"{k} {v}" for k, v in p["versions"].items())),
    ]
    _print_rows(str(path), rows)


def _load(spec: Path, tile: tuple[int, int, int] | None) -> Simulation:
    from simexm.simulation import Simulation

    return Simulation.load(spec).with_tile(tile)


def _print_plan(made: Plan) -> None:
    m = made.to_mapping()
    image, optics, blocks, source = m["image"], m["optics"], m["blocks"], m["source"]
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
        ("levels", ", ".join(_times(s) for s in image["levels"])),
        (
            "simulation grid",
            f"{_times(optics['simulation_grid_expanded_nm'])} nm expanded, {_times(optics['nodes_per_pixel'])} nodes a pixel",
        ),
        ("PSF", f"+-{optics['axial_range_um']:.3g} um along z, halo {_times(optics['halo_pixels'])} pixels"),
        ("blocks", f"{blocks['count']} of {_times(blocks['block_pixels'])}, tiles of {_times(blocks['tile_pixels'])}"),
        ("stored", f"{m['bytes_uncompressed'] / 1e9:.3g} GB before compression, about {blocks['files']} files"),
        ("memory", f"{m['memory_per_worker_bytes'] / 2**30:.2f} GiB in each worker"),
        ("time", f"about {m['core_seconds']:.0f} core-seconds, {m['core_seconds'] / cores:.0f} s on {cores} cores"),
        ("hash", m["hash"]),
    ]
    for p in optics["pairs"]:
        axial = f"{p['fwhm_axial_nm']:.0f}" if p["fwhm_axial_nm"] else "-"
        rows.append(
            (
                f"{p['dye']} in {p['channel']}",
                (
                    f"{p['electrons_per_dye_in_focus']:.3g} electrons a dye in focus, FWHM {axial} x "
                    f"{p['fwhm_lateral_nm']:.0f} nm expanded, {p['left_out_share']:.1%} of a thick stack's light left out; "
                    f"emits {p['photons_per_dye_in_stack']:.3g} photons over the stack"
                ),
            )
        )
    _print_rows(made.simulation.name, rows)
    for p in optics["pairs"]:
        if p["photons_per_dye_in_stack"] > BLEACHING_PHOTONS:
            typer.echo(
                f"{p['dye']} would emit {p['photons_per_dye_in_stack']:.2g} photons in {p['channel']}: most dyes bleach after "
                f"{BLEACHING_PHOTONS:.0e} to 1e6, and bleaching is not simulated; lower the light or take fewer planes"
            )


BLEACHING_PHOTONS = 1e5
"""Photons after which organic dyes in water begin to bleach noticeably (Eggeling et al. 1998, Anal. Chem. 70, 2651)."""


def _print_rows(title: str, rows: list[tuple[str, str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
    for row in rows:
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


def main() -> None:
    """Entry point of the `simexm` command."""
    app()


if __name__ == "__main__":
    main()
