"""Commands that read molecules from images: decode."""

from __future__ import annotations

from typing import Annotated

from simexm.cli.analyse import analyse
from simexm.cli.app import Heading, command
from simexm.cli.options import (
    ClusterOption,
    DryRunOption,
    JobsOption,
    JsonOption,
    OverwriteOption,
    QuietOption,
    ResultPath,
    WorkersOption,
    output_option,
)


@command(Heading.MOLECULES)
def decode(
    path: ResultPath,
    output: Annotated[
        str | None, output_option("NAME.zarr; its tables go to NAME.run beside it.", "RESULT-decode.zarr")
    ] = None,
    overwrite: OverwriteOption = False,
    workers: WorkersOption = None,
    cluster: ClusterOption = None,
    jobs: JobsOption = None,
    dry_run: DryRunOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Read the barcodes of cells from the images of all rounds, and compare them with the truth.

    Example: simexm decode rolonies.zarr --output decoded.zarr
    """
    from simexm.analysis.barcodes.decode import Decode

    analyse(
        Decode(), (path,), output, workers, cluster, jobs,
        overwrite=overwrite, dry_run=dry_run, quiet=quiet, as_json=as_json,
    )  # fmt: skip
