"""Overhead of a block: empty blocks on real Dask workers with a journal, and their resume.

python -m benchmarks.executor                     # 1,000,000 blocks on 2 workers: some minutes
python -m benchmarks.executor --blocks 50000
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from benchmarks.end_to_end import machine
from simexm.jobs.events import BlockDone, Event
from simexm.jobs.executor import execute
from simexm.jobs.journal import Journal
from simexm.jobs.local_cluster import local_client

RESULT = {
    "voxels": 4194304,
    "dyes": {"membrane": 123456, "cytosol": 65432},
    "stored": {group: [[123456, "crc32c:01234567"]] * 3 for group in ("", "labels/cells", "labels/membrane")},
}
"""As large as the record of a block with one channel and three levels."""


def nothing(context: Any, block: int) -> Mapping[str, Any]:
    """A block without work."""
    return RESULT


class Memory:
    """Records the driver's resident memory as blocks finish."""

    def __init__(self, every: int) -> None:
        self.every, self.done = every, 0
        self.seen: list[int] = []
        self._me = psutil.Process()

    def __call__(self, event: Event) -> None:
        """Listen."""
        if isinstance(event, BlockDone):
            self.done += 1
            if self.done % self.every == 0:
                self.seen.append(self._me.memory_info().rss)


def without_each(journal: Path, into: Path, nth: int) -> None:
    """Copy a journal without the lines of every nth block."""
    into.mkdir()
    for path in journal.glob("*.jsonl"):
        with path.open() as lines, (into / path.name).open("w") as kept:
            kept.writelines(line for line in lines if json.loads(line)["block"] % nth)


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    print(f"machine: {machine()}; commit {commit.strip()}")
    with tempfile.TemporaryDirectory() as name, local_client(given.workers) as client:
        folder, memory = Path(name), Memory(given.blocks // 20)
        journal = Journal.open(folder / "journal", "hash")
        start = time.perf_counter()
        execute(
            client=client,
            function=nothing,
            context=None,
            blocks=range(given.blocks),
            journal=journal,
            listeners=[memory],
        )
        seconds = time.perf_counter() - start
        files = [p.stat().st_size for p in (folder / "journal").iterdir()]
        held, most = memory.seen[0] / 2**20, max(memory.seen) / 2**20
        print(
            f"{given.blocks} blocks on {given.workers} workers: {seconds:.1f} s, {seconds / given.blocks * 1e3:.3f} ms each; the "
            f"driver held {held:.0f} MiB after a twentieth of them, at most {most:.0f} MiB later; the journal has {len(files)} "
            f"files, {sum(files) / 2**20:.0f} MiB"
        )
        without_each(folder / "journal", folder / "again", 1000)
        start = time.perf_counter()
        again = Journal.open(folder / "again", "hash")
        left = list(again.done.missing(given.blocks))
        print(f"resume: {time.perf_counter() - start:.1f} s until the {len(left)} blocks that are left are known")
        execute(client=client, function=nothing, context=None, blocks=left, journal=again)
        assert len(again.done) == given.blocks


if __name__ == "__main__":
    main()
