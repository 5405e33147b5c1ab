"""Scaling of time with the volume and the workers: ratios within one run.

python -m benchmarks.scaling segmentation.tif --cores 0 1

The benchmark spec on the cortex volume (512^3), and on the same mirrored to 512 x 1024 x 1024 voxels, with one worker process and
with two, in turns; and with two threads of one process, as `simexm run` chooses by itself for so little work. Start-up is what
the same command takes for a crop of 64^3 voxels, with as many workers.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import yaml

from benchmarks.end_to_end import SPEC, command
from benchmarks.measure import heading, measured


def prepare(tiff: Path, folder: Path) -> None:
    """Both volumes as OME-Zarr, and three specs."""
    volume = tifffile.imread(tiff)
    mirrored = np.concatenate([volume, volume[:, ::-1]], axis=1)
    mirrored = np.concatenate([mirrored, mirrored[:, :, ::-1]], axis=2)
    for name, data in (("whole", volume), ("mirrored", mirrored)):
        tifffile.imwrite(folder / f"{name}.tif", data, compression="zlib", bigtiff=True)
        command(
            "ingest", f"{name}.tif", "-o", f"{name}.labels.zarr", "--voxel-size", "40", "32", "32", "-q", cwd=folder
        )
        spec: dict[str, Any] = yaml.safe_load(SPEC.read_text())
        spec["source"] = str(folder / f"{name}.labels.zarr")
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(spec))
    spec["crop"] = {"offset": [200, 200, 200], "shape": [64, 64, 64]}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(spec))


def run(name: str, cores: list[int], folder: Path, workers: int | None) -> tuple[float, float]:
    """(wall, core-seconds in blocks) of one run; `workers` processes, or threads on all `cores`."""
    words = [sys.executable, "-m", "simexm.cli", "run", f"{name}.yaml", "-o", "out.zarr", "--overwrite", "-q"]
    took = measured([*words, *(["--workers", str(workers)] if workers else [])], folder, cores=cores)
    lines = (line for p in (folder / "out.run/journal").glob("*.jsonl") for line in p.read_text().splitlines())
    return took.seconds, sum(json.loads(line).get("seconds", 0.0) for line in lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tiff", type=Path)
    parser.add_argument("--cores", nargs=2, type=int, default=[0, 1])
    parser.add_argument("--repeat", type=int, default=3)
    given = parser.parse_args()
    print(heading(given.cores))
    two = given.cores
    ways = {
        "512^3, two threads": ("whole", two, None),
        "512^3, one worker process": ("whole", two, 1),
        "512^3, two worker processes": ("whole", two, 2),
        "512 x 1024 x 1024, two worker processes": ("mirrored", two, 2),
    }
    starting = {"two threads": None, "one process": 1, "two processes": 2}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(given.tiff.resolve(), folder)
        run("tiny", two, folder, None)  # compiles what is not compiled yet
        starts = {
            workers: statistics.median(run("tiny", two, folder, workers)[0] for _ in range(5))
            for workers in starting.values()
        }
        print("start-up:", ", ".join(f"{k} {starts[n]:.1f} s" for k, n in starting.items()))
        found: dict[str, list[tuple[float, float]]] = {k: [] for k in ways}
        for _ in range(given.repeat):
            for key, (spec, cores, workers) in ways.items():
                found[key].append(run(spec, cores, folder, workers))
    for key, times in found.items():
        print(
            f"{key}: wall {', '.join(f'{w:.1f}' for w, _ in times)} s; in blocks {', '.join(f'{b:.1f}' for _, b in times)} s"
        )

    def ratio(above: str, below: str) -> str:
        started = [starts[ways[way][2]] for way in (above, below)]
        each = [(a[0] - started[0]) / (b[0] - started[1]) for a, b in zip(found[above], found[below], strict=True)]
        return f"{statistics.median(each):.2f} ({min(each):.2f} to {max(each):.2f})"

    _, p1, p2, large = ways
    print("two worker processes against one, start-up apart:", ratio(p1, p2))
    print("four times the voxels, start-up apart:", ratio(large, p2))


if __name__ == "__main__":
    main()
