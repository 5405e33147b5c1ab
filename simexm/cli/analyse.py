"""How a command runs an analysis: over which inputs, by whom, what it prints; and analyses that other packages bring."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from simexm.cli.shared import cluster_of, print_rows, short, stoppable

if TYPE_CHECKING:
    from simexm.analysis.contract import Analysis


def analyse(
    analysis: Analysis,
    inputs: tuple[str, ...],
    output: str | None,
    workers: int | None,
    cluster: Path | None,
    jobs: str | None,
    *,
    overwrite: bool,
    dry_run: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Run an analysis and print its scores; without a name the output is called after the first input."""
    from simexm.store.location import location

    where = output or f"{location(inputs[0]).stem}-{analysis.tag}.zarr"
    chosen = cluster_of(cluster, jobs, workers)
    if dry_run:
        plan = analysis.plan(*inputs, output=where, overwrite=overwrite)
        typer.echo(json.dumps(plan.to_mapping(), indent=2))
        return
    with stoppable():
        found = analysis.run(
            *inputs, output=where, cluster=chosen, workers=workers, overwrite=overwrite, quiet=quiet
        )  # fmt: skip
    if as_json:
        typer.echo(json.dumps({s["score"]: s["value"] for s in found.scores().to_pylist()}, indent=2))
        return
    from simexm.view.rows import analysis_rows

    print_rows(str(short(found.path)), analysis_rows(found))
