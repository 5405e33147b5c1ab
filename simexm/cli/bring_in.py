"""Commands that prepare an experiment: ingest, convert, new, schema, fluorophores."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from simexm.cli import completion, options
from simexm.cli.app import Heading, command
from simexm.cli.shared import bar, print_table
from simexm.errors import OutputError, SimexmWarning, SpecError
from simexm.units import count, size, times


class ColorOrder(StrEnum):
    """Order of an id's bytes in a colour, the highest first."""

    RGB = "rgb"
    BGR = "bgr"


@command(Heading.BRING_IN)
def ingest(
    source: Annotated[
        str,
        typer.Argument(
            help="TIFF stack, folder (or quoted glob) of slices, Zarr, N5, Neuroglancer precomputed, HDF5, .npy, NRRD, NIfTI "
            "or MRC.",
            show_default=False,
        ),
    ],
    output: Annotated[str, options.output("Folder to write, NAME.zarr, or its URL, s3://BUCKET/NAME.zarr.", False)],
    voxel_size: options.VoxelSize = None,
    region: Annotated[
        list[str] | None,
        typer.Option(
            help="Mask of a further region, in any of these formats, nonzero inside; may be repeated.",
            metavar="NAME=PATH",
            show_default=False,
        ),
    ] = None,
    field: Annotated[
        list[str] | None,
        typer.Option(
            help="Further field, in any of these formats: ids of other objects, tissue classes, or grey values; may be repeated.",
            metavar="NAME=KIND:PATH",
            show_default=False,
        ),
    ] = None,
    roi: options.Roi = None,
    time: Annotated[
        int | None,
        typer.Option(help="Time point of a series to read, from 0 on.", metavar="N", show_default="all", min=0),
    ] = None,
    cells: Annotated[
        str, typer.Option(help="merged, or splitted: SOURCE holds one stack or folder for each cell.")
    ] = "merged",
    dataset: options.Dataset = None,
    color_ids: Annotated[
        ColorOrder | None,
        typer.Option(
            help="Colours of a TIFF or image sequence are ids. rgb: 65536 red + 256 green + blue, as VAST and QuPath pack them. "
            "bgr: red + 256 green + 65536 blue.",
            show_default="colours are refused",
        ),
    ] = None,
    workers: options.Workers = None,
    overwrite: options.Overwrite = False,
    dry_run: options.DryRun = False,
    quiet: options.Quiet = False,
) -> None:
    """Convert a segmentation of any format and size, and masks of regions, to sharded multiscale OME-Zarr labels.

    Example: simexm ingest segmentation.tif --output cortex.zarr --voxel-size 40 32 32 --region synapse=synapses.tif
    """
    from simexm.ingestion.ingest import ingest as ingest_volume

    masks = _named("region", "PATH", region or ())
    pairs = _named("field", "KIND:PATH", field or ())
    fields: dict[str, Any] = {name: value.partition(":")[::2] for name, value in pairs.items()}
    if cells not in ("merged", "splitted"):
        raise SpecError(f"--cells {cells} is unknown; type merged (one volume of all cells) or splitted (one a cell)")
    colors = color_ids and color_ids.value
    content: dict[str, Any] = {"regions": masks, "fields": fields, "cells": cells, "color_ids": colors}
    part: dict[str, Any] = {"roi": roi, "time": time, "dataset": dataset}
    how: dict[str, Any] = {"workers": workers, "overwrite": overwrite, "dry_run": dry_run}
    with bar("ingest", quiet) as progress:
        made = ingest_volume(source, output, voxel_size, **content, **part, **how, progress=progress)
    if dry_run or not quiet:
        megavoxels = made.times * math.prod(made.shape) / 1e6
        done = f", largest id {made.largest_id}" if made.largest_id is not None else ""
        stored = f"{size(made.nbytes)} before compression" if dry_run else size(made.nbytes)
        speed = "" if dry_run else f", {megavoxels / max(made.seconds, 1e-9):.0f} Mvoxel/s"
        series = f"{count(made.times, 'time point')} of " if made.times > 1 else ""
        regions = f"regions {', '.join(made.regions)}, " if made.regions else ""
        regions += f"fields {', '.join(made.fields)}, " if made.fields else ""
        typer.echo(
            f"{output}: {series}{times(made.shape)} voxels of {times(made.voxel_size_nm)} nm, {made.dtype}, {regions}"
            f"{made.levels} levels{done}, {stored}{speed}"
        )


def _named(option: str, form: str, pairs: Sequence[str]) -> dict[str, str]:
    """Values of a repeated option NAME=VALUE, by name."""
    found = {}
    for pair in pairs:
        name, _, rest = pair.partition("=")
        if not (name and rest):
            raise SpecError(f"--{option} {pair}: the name is missing; type --{option} NAME={form}")
        if name in found:
            raise SpecError(f"two {option}s have the same name ({', '.join(pairs)}); give each its own name")
        found[name] = rest
    return found


@command(Heading.BRING_IN)
def convert(
    config: Annotated[Path, typer.Argument(help="Configuration file of SimExm (2017).", show_default=False)],
    output: Annotated[
        Path | None, options.output("Spec to write, .yaml or .json.", "the configuration's name, .yaml")
    ] = None,
    model: options.Model = "simexm2017",
    seed: options.Seed = None,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
) -> None:
    """Convert an .ini file of SimExm (2017) to a native spec, and ingest its ground truth beside it.

    Example: simexm convert config.ini --output my.yaml --model physical
    """
    from simexm import settings
    from simexm.api import Simulation
    from simexm.errors import SourceNotFoundError
    from simexm.legacy2017.convert import ingest_command, to_yaml_text
    from simexm.legacy2017.load import Job
    from simexm.store.atomic_file import refuse
    from simexm.store.location import usable

    spec = output or config.with_suffix(".yaml")
    usable(spec)
    refuse([spec], overwrite=overwrite)
    job = Job.of(config, model, seed, spec.with_suffix(".zarr"))
    mapping = job.spec()
    Simulation.from_mapping(mapping, str(config))
    try:
        with bar("ingest", quiet) as progress:
            job.ingest(progress)
    except SourceNotFoundError as error:
        warnings.warn(
            f"{error} The spec is written nevertheless; where the ground truth is, type: "
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


@command(Heading.BRING_IN)
def new(
    name: Annotated[
        str | None,
        typer.Argument(
            help="Experiment to start from, one of --list; or an installed analysis, for its settings.",
            metavar="[NAME]",
            show_default="a template with comments",
            autocompletion=completion.experiments,
        ),
    ] = None,
    output: Annotated[Path | None, options.output("Spec to write, .yaml.", "it is printed")] = None,
    list_all: Annotated[bool, typer.Option("--list", help="List the experiments to start from.")] = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Print or write a spec to edit, a commented template or a ready experiment; or the settings of an analysis or a sweep.

    Example: simexm new > my.yaml

    Example: simexm new --list

    Example: simexm new brainbow --output my.yaml
    """
    from simexm import templates
    from simexm.store.atomic_file import atomic_file, refuse
    from simexm.store.location import with_ending

    if list_all:
        print_table([("experiment", "what it is"), *templates.experiments().items()])
        return
    text = (name and _settings_text(name)) or templates.spec_text(name)
    if output is None:
        typer.echo(text, nl=False)
        return
    if output.suffix.lower() not in (".yaml", ".yml"):
        raise OutputError(f"the spec {output} is YAML; type --output {with_ending(output, '.yaml')}")
    refuse([output], overwrite=overwrite)
    with atomic_file(output) as partial:
        partial.write_text(text.replace(f"pipelines/{name}.yaml", str(output)), encoding="utf-8")
    if name and _settings_text(name):
        typer.echo(f"{output}: type `simexm {name} {'SPEC' if name == 'sweep' else 'INPUT'} --settings {output}`")
    else:
        typer.echo(f"{output}: type `simexm plan {output}`, then `simexm run {output}`")


def _settings_text(name: str) -> str:
    """Commented settings of a sweep or of an installed analysis; empty if there is none of that name."""
    from simexm import templates

    if name == "sweep":
        return templates.sweep_text()
    if name in templates.experiments():
        return ""
    from simexm.analysis import installed
    from simexm.analysis.settings import settings_text

    return settings_text(installed.load(name)) if name in installed.names() else ""


@command(Heading.BRING_IN)
def schema() -> None:
    """Print the JSON Schema of specs, for editors that complete and check YAML.

    Example: simexm schema > simexm.schema.json
    """
    from simexm.api import Simulation

    typer.echo(json.dumps(Simulation.model_json_schema(), indent=2))


@command(Heading.BRING_IN)
def fluorophores(
    names: Annotated[
        list[str] | None, typer.Argument(help="Dyes to draw.", metavar="[NAME]...", show_default=False)
    ] = None,
    spec: Annotated[
        Path | None,
        typer.Option(
            help="Spec whose lasers and filters are drawn, too.", show_default=False, autocompletion=completion.specs
        ),
    ] = None,
    output: Annotated[
        Path | None, options.output("PNG to write.", "the names, -spectra.png, which is replaced")
    ] = None,
    fetch: Annotated[
        list[str] | None,
        typer.Option(
            help="Dye or protein that FPbase knows; writes NAME.csv for a spec to name. Repeatable.",
            metavar="NAME",
            show_default=False,
        ),
    ] = None,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """List the built-in dyes; with names or a spec, draw spectra, light sources and filters, and list what each channel detects.

    Example: simexm fluorophores ATTO488 ATTO647N --spec my.yaml
    """
    if fetch:
        from simexm.view.fluorophores import fetch_dyes

        for line in fetch_dyes(fetch, alone=not (names or spec or output or as_json), overwrite=overwrite):
            typer.echo(line)
        return
    from simexm.store.atomic_file import refuse
    from simexm.view.fluorophores import dye_in_channel_rows, dye_rows, report_dyes

    refuse([output] if output else [], overwrite=overwrite)
    report = report_dyes(names or (), spec, output)
    if as_json:
        typer.echo(json.dumps(report.to_mapping(), indent=2))
        return
    print_table(dye_rows(report.dyes))
    if report.light_path:
        print_table(dye_in_channel_rows(report.seen, report.light_path))
        typer.echo("signal: of one dye molecule, over that of the dye that the channel is for, in weak light")
    if report.picture:
        typer.echo(f"picture: {report.picture}")
