"""Arguments and options of the command line, each declared once and named alike in all commands.

VERB INPUT... --output OUT [--overwrite] [--workers N] [--cluster F] [--jobs A:B] [--roi z0:z1,y0:y1,x0:x1] [--dry-run]
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from simexm.cli import completion


def output(help: str, default: str | bool) -> Any:
    """The option -o, --output; `default` is the text that the help shows, False if the option is required."""
    return typer.Option("--output", "-o", help=help, show_default=default)


def cluster(default: str | bool) -> Any:
    """The option --cluster; `default` as for `output`."""
    return typer.Option(
        "--cluster",
        help="Cluster file, such as cluster_configs/slurm.yaml, edited.",
        metavar="FILE",
        show_default=default,
        autocompletion=completion.cluster_files,
    )


SpecPath = Annotated[
    Path,
    typer.Argument(
        help="Spec file, YAML or JSON; or an .ini file of SimExm (2017).",
        show_default=False,
        autocompletion=completion.specs,
    ),
]
ResultPath = Annotated[
    str,
    typer.Argument(
        help="Result, NAME.zarr, or its URL.", metavar="RESULT", show_default=False, autocompletion=completion.results
    ),
]
Output = Annotated[
    str | None, output("Folder to write, NAME.zarr, or its URL, s3://BUCKET/NAME.zarr.", "the spec's name")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the output; a Zarr only if simexm wrote it.")]
Workers = Annotated[
    int | None,
    typer.Option("--workers", min=1, help="Workers on this machine.", metavar="N", show_default="one for each core"),
]
Cluster = Annotated[Path | None, cluster("this machine")]
Jobs = Annotated[
    str | None,
    typer.Option(
        "--jobs",
        help="Worker jobs to keep in the queue: a number, or MIN:MAX.",
        metavar="MIN:MAX",
        show_default="the cluster file's",
    ),
]
Roi = Annotated[
    str | None,
    typer.Option(
        "--roi",
        help="Voxels to read, along z, y and x; an open range begins at the first or ends at the last voxel.",
        metavar="z0:z1,y0:y1,x0:x1",
        show_default="all",
    ),
]
Level = Annotated[int, typer.Option("--level", min=0, help="Level of the pyramid, 0 the finest.", metavar="N")]
Dataset = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        help="Volume inside an HDF5, N5 or Zarr, or scale of a precomputed one.",
        metavar="NAME",
        show_default=False,
    ),
]
Round = Annotated[
    int | None, typer.Option("--round", help="Round of imaging, from 1 on.", metavar="N", show_default="the first")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check everything and print what would be done, without starting it.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Seed = Annotated[
    int | None,
    typer.Option("--seed", help="Seed of all random numbers.", metavar="N", show_default="the spec's, or 0"),
]
Model = Annotated[
    str,
    typer.Option(
        "--model",
        help="For .ini files. simexm2017: the original's model; physical: the default physics.",
        metavar="simexm2017|physical",
        autocompletion=completion.one_of("simexm2017", "physical"),
    ),
]
Tile = Annotated[
    tuple[int, int, int] | None,
    typer.Option("--tile", help="Pixels along z y x that are computed together.", metavar="Z Y X", show_default=False),
]
Device = Annotated[
    str | None,
    typer.Option(
        "--device",
        help="auto: a GPU if there is one. gpu: the same, with a warning if there is none. cpu.",
        metavar="auto|gpu|cpu",
        show_default="the spec's, or auto",
        autocompletion=completion.one_of("auto", "gpu", "cpu"),
    ),
]
Until = Annotated[
    str | None,
    typer.Option(
        "--until", help="Stop after this stage, for example labelling or confocal.", metavar="STAGE", show_default=False
    ),
]
