"""Ingest and run the benchmark spec from the shell and print one row of figures each.

python -m benchmarks.end_to_end segmentation.tif            # the cortex volume: ingest, then run
python -m benchmarks.end_to_end --phantom 1024 1024 512     # a phantom of this many voxels
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

SPEC = Path(__file__).with_name("confocal_membrane.yaml")


def command(*words: str, cwd: Path) -> float:
    """Run `simexm` with these words; wall seconds from the shell."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "simexm.cli", *words], cwd=cwd, check=True)
    return time.perf_counter() - start


def peak_of(run_folder: Path) -> int:
    """Largest resident memory of any worker (VmHWM), bytes, from the journal."""
    lines = (line for p in (run_folder / "journal").glob("*.jsonl") for line in p.read_text().splitlines())
    return max(int(json.loads(line)["result"]["peak_bytes"]) for line in lines)


def machine() -> str:
    """Processor and system in a few words."""
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        "?",
    )
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}"


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tiff", nargs="?", type=Path)
    parser.add_argument("--phantom", nargs=3, type=int, metavar=("Z", "Y", "X"))
    parser.add_argument("--workers", default="2")
    parser.add_argument("--repeat", type=int, default=1)
    given = parser.parse_args()
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    print(f"machine: {machine()}; commit {commit}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        spec: dict[str, Any] = yaml.safe_load(SPEC.read_text())
        if given.phantom:
            spec["source"] = {"kind": "phantom", "shape": given.phantom, "voxel_size_nm": [40, 32, 32]}
        else:
            seconds = command(
                "ingest", str(given.tiff.resolve()), "-o", "cortex.zarr", "--voxel-size", "40", "32", "32", cwd=folder
            )
            print(f"ingest: {seconds:.1f} s wall, start-up included")
        (folder / "benchmark.yaml").write_text(yaml.safe_dump(spec))
        planned = subprocess.run(
            [sys.executable, "-m", "simexm.cli", "plan", "benchmark.yaml", "--json"],
            cwd=folder, check=True, capture_output=True, text=True,
        )  # fmt: skip
        predicted = json.loads(planned.stdout)["memory_per_worker_bytes"]
        for _ in range(given.repeat):
            seconds = command("run", "benchmark.yaml", "--workers", given.workers, "--overwrite", "-q", cwd=folder)
            peak = peak_of(folder / "benchmark.run")
            print(
                f"run: {seconds:.1f} s wall, {given.workers} workers, peak {peak / 2**20:.0f} MiB a worker "
                f"(predicted {predicted / 2**20:.0f} MiB)"
            )


if __name__ == "__main__":
    main()
