"""Arguments and options of the command line, each declared once and named alike in all commands.

VERB INPUT... --output OUT [--overwrite] [--workers N] [--cluster F] [--jobs A:B] [--roi z0:z1,y0:y1,x0:x1] [--dry-run]
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from simexm.cli import completion


def option(name: str, help: str, metavar: str, default: str | bool = True, **more: Any) -> Any:
    """An option; `default` is the text that the help shows, False if it shows none."""
    return typer.Option(name, help=help, metavar=metavar, show_default=default, **more)


def output(help: str, default: str | bool) -> Any:
    """The option -o, --output; `default` as for `option`."""
    return typer.Option("--output", "-o", help=help, show_default=default)


def cluster(default: str | bool) -> Any:
    """The option --cluster; `default` as for `option`."""
    text = "Cluster file, such as cluster_configs/slurm.yaml, edited."
    return option("--cluster", text, "FILE", default, autocompletion=completion.cluster_files)


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
Workers = Annotated[int | None, option("--workers", "Workers on this machine.", "N", "one for each core", min=1)]
Cluster = Annotated[Path | None, cluster("this machine")]
Jobs = Annotated[
    str | None,
    option("--jobs", "Worker jobs to keep in the queue: a number, or MIN:MAX.", "MIN:MAX", "the cluster file's"),
]
Roi = Annotated[
    str | None,
    option(
        "--roi", "Voxels to read, along z, y and x; ranges may be open, as in 0:40,:,100:.", "z0:z1,y0:y1,x0:x1", "all"
    ),
]
Level = Annotated[int, option("--level", "Level of the pyramid, 0 the finest.", "N", min=0)]
AnyLevel = Annotated[int | None, option("--level", "Level of the pyramid, 0 the finest.", "N", min=0)]
VoxelSize = Annotated[
    tuple[float, float, float] | None,
    option("--voxel-size", "Voxel size, nm; by default that of the metadata.", "Z Y X", False),
]
Dataset = Annotated[
    str | None,
    option("--dataset", "Volume inside an HDF5, N5 or Zarr, or scale of a precomputed one.", "NAME", False),
]
Round = Annotated[int | None, option("--round", "Round of imaging, from 1 on.", "N", "the first")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check everything and print what would be done, without starting it.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Settings = Annotated[
    Path | None,
    typer.Option("--settings", help="Settings, YAML or JSON; `simexm new NAME` prints some to edit.", metavar="FILE"),
]
Seed = Annotated[int | None, option("--seed", "Seed of all random numbers.", "N", "the spec's, or 0")]
Model = Annotated[
    str,
    option(
        "--model",
        "For .ini files. simexm2017: the original's model; physical: the default physics.",
        "simexm2017|physical",
        autocompletion=completion.one_of("simexm2017", "physical"),
    ),
]
Tile = Annotated[
    tuple[int, int, int] | None, option("--tile", "Pixels along z y x that are computed together.", "Z Y X", False)
]
Device = Annotated[
    str | None,
    option(
        "--device",
        "auto: a GPU if there is one. gpu: the same, with a warning if there is none. cpu.",
        "auto|gpu|cpu",
        "the spec's, or auto",
        autocompletion=completion.one_of("auto", "gpu", "cpu"),
    ),
]
Until = Annotated[
    str | None, option("--until", "Stop after this stage, for example labelling or confocal.", "STAGE", False)
]
