"""Commands that compare what was found with the truth: score."""

from typing import TYPE_CHECKING, Annotated

import typer

from simexm.cli import completion, options
from simexm.cli.analyse import analyse
from simexm.cli.app import Heading, command
from simexm.cli.shared import cluster_of

if TYPE_CHECKING:
    from simexm.analysis.contract import Analysis

KINDS = ("segmentation", "skeletons", "synapses", "alignment", "localisations", "traces")
"""What can be scored, by the name of its analysis."""


@command(Heading.JUDGE)
def score(
    found: Annotated[
        str,
        typer.Argument(
            help="What was found: a segmentation in any format that `simexm ingest` reads, what `simexm synapses`, `simexm "
            "align` or `simexm localise` wrote, or cells of a movie as minian, Suite2p, CaImAn or NWB store them.",
            metavar="FOUND",
            show_default=False,
            autocompletion=completion.results,
        ),
    ],
    truth: Annotated[
        str,
        typer.Argument(
            help="The truth: labels on the same grid, what `simexm skeletons` wrote of them, a table of synapses or a phantom's "
            "NAME.yaml, the true transform, a table of emitters by frame, or the simulated movie.",
            metavar="TRUTH",
            show_default=False,
            autocompletion=completion.results,
        ),
    ],
    kind: Annotated[
        str,
        typer.Option(
            "--as", help="What is compared.", metavar="|".join(KINDS), autocompletion=completion.one_of(*KINDS)
        ),
    ] = "segmentation",
    output: Annotated[
        str | None, options.output("NAME.zarr; its tables go to NAME.run beside it.", "FOUND-score.zarr")
    ] = None,
    settings: options.Settings = None,
    roi: options.Roi = None,
    level: options.AnyLevel = None,
    dataset: options.Dataset = None,
    voxel_size_nm: options.VoxelSize = None,
    overwrite: options.Overwrite = False,
    workers: options.Workers = None,
    cluster: options.Cluster = None,
    jobs: options.Jobs = None,
    dry_run: options.DryRun = False,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Score a segmentation, synapses, an alignment, molecules or cells of a movie against the truth.

    Example: simexm score segmentation.zarr truth.zarr --output score.zarr

    Example: simexm score segmentation.zarr skeletons.zarr --as skeletons --output run-lengths.zarr

    Example: simexm score synapses.zarr tissue.yaml --as synapses

    Example: simexm score found.zarr truth.parquet --as localisations

    Example: simexm score minian movie.zarr --as traces
    """
    from simexm.analysis.localisation.score import LocalisationScore
    from simexm.analysis.registration.score import AlignmentScore
    from simexm.analysis.scores.segmentation import SegmentationScore
    from simexm.analysis.scores.synapses import SynapseScore
    from simexm.analysis.scores.traces import TraceScore
    from simexm.analysis.skeletons.score import SkeletonScore
    from simexm.errors import SpecError

    if kind not in KINDS:
        raise SpecError(f"--as {kind} is unknown; type --as {' or --as '.join(KINDS)}")
    kinds: dict[str, type[Analysis]] = {
        "segmentation": SegmentationScore,
        "skeletons": SkeletonScore,
        "synapses": SynapseScore,
        "alignment": AlignmentScore,
        "localisations": LocalisationScore,
        "traces": TraceScore,
    }
    part = {"roi": roi, "level": level, "dataset": dataset, "voxel_size_nm": voxel_size_nm}
    how = {"workers": workers, "overwrite": overwrite, "quiet": quiet}
    chosen = cluster_of(cluster, jobs, workers)
    analyse("score", kinds[kind], [found, truth], output, settings, part, chosen, how, dry_run, as_json)
