"""Block functions for the tests, and a driver to be killed; importable by workers."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from distributed import get_worker

from simexm.jobs.executor import execute
from simexm.jobs.journal import Journal
from simexm.jobs.local_cluster import local_client
from simexm.jobs.lock import lock

Context = dict[str, Any]


def note(context: Context, block: int) -> dict[str, Any]:
    """Leave a line for each time that a block is run: its number, and the worker."""
    with (Path(context["folder"]) / f"runs-{os.getpid()}").open("a") as file:
        file.write(f"{block} {get_worker().address}\n")
    time.sleep(context.get("seconds", 0))
    return {"square": block * block, "empty": block % 2 == 0}


def runs(folder: Path) -> list[tuple[int, str]]:
    """Block and worker of each time that `note` was called."""
    lines = [line.split() for path in folder.glob("runs-*") for line in path.read_text().splitlines()]
    return [(int(block), worker) for block, worker in lines]


def counts(folder: Path) -> Counter[int]:
    """How often each block was run."""
    return Counter(block for block, _ in runs(folder))


def bad_block_raises(context: Context, block: int) -> dict[str, Any]:
    """Raise in block `bad`, the first `times` times."""
    result = note(context, block)
    if block == context["bad"] and _count_up(context) <= context["times"]:
        raise ValueError(f"block {block} is bad")
    return result


def bad_block_kills(context: Context, block: int) -> dict[str, Any]:
    """Kill the worker in block `bad`, the first `times` times."""
    result = note(context, block)
    if block == context["bad"] and _count_up(context) <= context["times"]:
        os.kill(os.getpid(), 9)
    return result


def always_raises(context: Context, block: int) -> dict[str, Any]:
    """As on a cluster that cannot see the source."""
    raise FileNotFoundError("no source here")


def nothing(context: Context, block: int) -> dict[str, Any]:
    """Do no work, so that only the engine's own cost is left."""
    return {"empty": True}


def _count_up(context: Context) -> int:
    file = Path(context["folder"]) / "bad"
    with file.open("a") as handle:
        handle.write("x")
    return file.stat().st_size


def drive(folder: Path, blocks: int) -> None:
    """Run, or resume, `blocks` blocks."""
    with lock(folder / "lock"), local_client(2, dashboard=False) as client:
        journal = Journal.open(folder / "journal", "hash")
        context = {"folder": str(folder), "seconds": 0.01}
        execute(client=client, function=note, context=context, blocks=journal.done.missing(blocks), journal=journal)


if __name__ == "__main__":
    drive(Path(sys.argv[1]), int(sys.argv[2]))
