"""Core-seconds and memory of this commit against another one's: whole commands, one after the other, in turns.

git worktree add ../before COMMIT && python -m venv ../before/venv && ../before/venv/bin/pip install ../before
python -m benchmarks.against ../before/venv/bin/python cortex.zarr
python -m benchmarks.against ../before/venv/bin/python cortex.zarr --only help plan --turns 3
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import yaml

from benchmarks.end_to_end import SPEC
from benchmarks.measure import Measured, heading, measured

EXECUTE = """
import importlib
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
folder = "simexm.jobs" if find_spec("simexm.jobs") else "simexm.engine"  # as it was until November 2026
execute = importlib.import_module(f"{folder}.executor").execute
Journal = importlib.import_module(f"{folder}.journal").Journal
local_client = importlib.import_module(f"{folder}.{'local_cluster' if 'jobs' in folder else 'cluster'}").local_client
from nothing import nothing
if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name, local_client(2) as client:
        journal = Journal.open(Path(name) / "journal", "hash")
        execute(client=client, function=nothing, context=None, blocks=range(int(sys.argv[1])), journal=journal)
        assert len(journal.done) == int(sys.argv[1])
"""
NOTHING = """
RESULT = {"stored": {g: [[123456, "crc32c:01234567"]] * 3 for g in ("", "labels/cells", "labels/membrane")}}
def nothing(context, block):
    return RESULT
"""


def commands(blocks: int) -> dict[str, list[str]]:
    """What each program is given, by name; OUT stands for an output of its own."""
    command = ["-m", "simexm.cli"]
    return {
        "help": [*command, "--help"],
        "plan": [*command, "plan", "benchmark.yaml"],
        "run": [*command, "run", "benchmark.yaml", "--workers", "2", "--quiet", "--overwrite", "--output", "OUT.zarr"],
        "blocks": ["execute.py", str(blocks)],
    }


def main() -> None:
    """Parse, measure in turns, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, help="Python of an environment in which the other commit is installed")
    parser.add_argument("labels", type=Path, help="the labels that are simulated")
    parser.add_argument("--crop", nargs=3, type=int, default=[256, 256, 256], help="voxels of them")
    parser.add_argument("--blocks", type=int, default=100_000, help="number of blocks without work")
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--cores", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--only", nargs="+", help="of help, plan, run, blocks")
    given = parser.parse_args()
    programs = {"before": str(given.other.absolute()), "now": sys.executable}
    print(heading(given.cores))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        spec = yaml.safe_load(SPEC.read_text()) | {"source": str(given.labels.absolute())}
        (folder / "benchmark.yaml").write_text(
            yaml.safe_dump(spec | {"crop": {"offset": [0, 0, 0], "shape": given.crop}})
        )
        (folder / "execute.py").write_text(EXECUTE)
        (folder / "nothing.py").write_text(NOTHING)
        for what, words in commands(given.blocks).items():
            if given.only and what not in given.only:
                continue
            seen: dict[str, list[Measured]] = {"before": [], "now": []}
            for turn in range(-1, given.turns):  # the first fills the caches and is not counted
                for which in list(programs)[:: -1 if turn % 2 else 1]:
                    line = [word.replace("OUT", which) for word in words]
                    one = measured([programs[which], "-W", "ignore", *line], folder, {"PYTHONPATH": name}, given.cores)
                    seen[which] += [one] * (turn >= 0)
            print(row(what, seen), flush=True)


def row(what: str, seen: dict[str, list[Measured]]) -> str:
    """One line: medians of both, and the median of the ratios of neighbours."""

    def both(of: Callable[[Measured], float], unit: str) -> str:
        before, now = ([of(one) for one in seen[which]] for which in ("before", "now"))
        ratio = statistics.median(b / a for a, b in zip(before, now, strict=True))
        return f"{statistics.median(before):.2f} before, {statistics.median(now):.2f} now {unit}, ratio {ratio:.3f}"

    spent, peak = both(lambda m: m.core_seconds, "core-seconds"), both(lambda m: m.peak_bytes / 2**20, "MiB")
    return f"{what}: {spent}; {peak}"


if __name__ == "__main__":
    main()
