"""Surveys: jobs over all blocks of an analysis before any is measured, whose findings the driver joins.

What crosses the borders of blocks, such as a component, is known only then.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from simexm.analysis.blocks import Context, bench_of
from simexm.analysis.joined import DONE, folder, joined_folder, part, read_part, write_part
from simexm.analysis.plan import AnalysisPlan
from simexm.jobs.events import Execute
from simexm.jobs.job import run_job
from simexm.run import guard
from simexm.run.job import job_in
from simexm.store.claims import workspace
from simexm.store.files import remove_tree, writing
from simexm.store.listing import presence


@dataclass(frozen=True)
class _SurveyContext:
    """What a worker needs to survey a block."""

    block: Context
    name: str


def survey(plan: AnalysisPlan, context: Context, execute: Execute, quiet: bool) -> None:
    """Run the surveys that are not done, and join them."""
    where, names = context.place, plan.bench.surveys
    if not names or (joined_folder(where) / DONE).is_file():
        return
    for name in names:
        exists = presence(folder(where, name) / "parts")

        def is_sound(record: Any, name: str = name, exists: Any = exists) -> bool:
            return bool(exists(str(part(where, name, record.block))))

        job = job_in(
            where,
            plan.hash,
            len(plan.blocks),
            survey_block,
            _SurveyContext(context, name),
            folder(where, name) / "journal",
            what=f"{plan.analysis.tag}, {name}",
            voxels=plan.bench.voxels,
            core_seconds=plan.core_seconds,
            is_sound=is_sound,
        )
        folder(where, name).mkdir(parents=True, exist_ok=True)
        run_job(job, execute, quiet=quiet)
    _join(plan, context)
    for name in {*names} - {*plan.bench.kept}:
        remove_tree(folder(where, name) / "parts", ignore_errors=True)


def survey_block(context: _SurveyContext, number: int) -> Mapping[str, Any]:
    """Survey one block and write its part; return its record for the journal."""
    block = context.block
    guard.refuse_other_run(block.hash, block.place)
    found = bench_of(block).survey(context.name, number, partial(read_part, block.place))
    write_part(block.place, context.name, number, found)
    return {}


def _join(plan: AnalysisPlan, context: Context) -> None:
    where = context.place
    with workspace(where.scratch) as space, tempfile.TemporaryDirectory(dir=space, suffix=".partial") as made:
        plan.bench.join(partial(read_part, where), Path(made))
        for file in sorted(Path(made).iterdir()):
            with writing(joined_folder(where) / file.name, where.scratch) as target:
                shutil.copyfile(file, target)
    with writing(joined_folder(where) / DONE, where.scratch) as target:
        target.write_bytes(b"")
