"""Core-seconds of complete blocks, against those of the FFTs that a convolution of the complete grid would need.

python -m benchmarks.limit segmentation.tif

The simulation grid is the grid on which dyes are deposited before they are blurred: the pixel grid divided by integers
(`OpticsPlan.subdivision`), from the first pixel of the image to the last. The limit is one forward and one inverse real
transform of it, float32, padded once by the kernel (the axial and lateral range on both sides), at the speed per node of whatever
cube is fastest. Blocks are timed as the run's journal tells, reading and writing included; their halos, and transforms that are
made again for the overlap of tiles, count as theirs.

Two other readings are printed beside: the planes transformed one by one and padded across alone, which is how simexm goes about
it; and the grid of the ground truth's voxels.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import yaml
from scipy import fft

from benchmarks.end_to_end import SPEC, command
from benchmarks.measure import heading, pin
from benchmarks.membranes import FACTOR, VOXEL_NM
from simexm.api import Simulation
from simexm.geometry.grid import Tiling
from simexm.planning.plan import Plan
from simexm.stages.microscope.optics_plan import OpticsPlan

CUBES = ((256, 256, 256), (384, 384, 384), (480, 480, 480))
PLANES = ((8, 1024, 1024), (8, 1440, 1440))


def per_node(shapes: tuple[tuple[int, int, int], ...], axes: tuple[int, ...]) -> float:
    """Seconds per node of a forward and an inverse real transform on one core, of the best of several shapes."""
    best = math.inf
    for shape in shapes:
        data = np.random.default_rng(0).random(shape, np.float32)
        for _ in range(3):
            start = time.perf_counter()
            fft.irfftn(fft.rfftn(data, axes=axes, workers=1), s=[shape[a] for a in axes], axes=axes, workers=1)
            best = min(best, (time.perf_counter() - start) / math.prod(shape))
    return best


def cube_and_planes(_: int) -> tuple[float, float]:
    """Seconds per node for cubes, and for single planes."""
    return per_node(CUBES, (0, 1, 2)), per_node(PLANES, (1, 2))


def grids(plan: Plan) -> dict[str, int]:
    """Nodes to transform, by reading; see above."""
    optics = plan.imaging.formation
    assert isinstance(optics, OpticsPlan)
    nodes = [n * m for n, m in zip(plan.shape, optics.subdivision, strict=True)]
    ranges = (optics.range_nm, optics.radius_nm, optics.radius_nm)
    kernel = [2 * math.ceil(r / float(c) - 1e-9) for r, c in zip(ranges, optics.node_nm, strict=True)]
    voxel_kernel = [2 * math.ceil(r / (v * FACTOR)) for r, v in zip(ranges, VOXEL_NM, strict=True)]
    return {
        "simulation grid": math.prod(n + k for n, k in zip(nodes, kernel, strict=True)),
        "simulation grid, plane by plane": nodes[0] * math.prod(n + k for n, k in zip(nodes[1:], kernel[1:], strict=True)),
        "voxels": math.prod(n + k for n, k in zip(plan.geometry.crop.shape, voxel_kernel, strict=True)),
    }  # fmt: skip


def transforms(plan: Plan) -> Counter[str]:
    """Lengths of the transforms that simexm makes, and how many planes of each."""
    optics = plan.imaging.formation
    assert isinstance(optics, OpticsPlan)
    found: Counter[str] = Counter()
    for block in plan.blocks:
        for tile in Tiling(block, plan.tile):
            grid, (low, high) = optics.lateral(tile.shape), optics.node_planes(tile)
            found[f"forward {grid.nodes[0]} x {grid.nodes[1]}"] += high - low
            found[f"inverse {grid.pixels[0]} x {grid.pixels[1]}"] += tile.shape[0]
    return found


def blocks_s(folder: Path) -> float:
    """Core-seconds of a run's blocks and coarse levels, from its journal."""
    lines = (line for p in (folder / "journal").rglob("*.jsonl") for line in p.read_text().splitlines())
    return sum(float(json.loads(line)["seconds"]) for line in lines)


def main() -> None:
    """Parse, run in turns, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tiff", type=Path)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--cores", type=int, nargs=2, default=[0, 1])
    given = parser.parse_args()
    pin(given.cores)
    print(heading(given.cores))
    with tempfile.TemporaryDirectory() as name, multiprocessing.get_context("spawn").Pool(2) as pool:
        folder = Path(name)
        command(
            "ingest", str(given.tiff.resolve()), "-o", "cortex.zarr", "--voxel-size", *map(str, VOXEL_NM), cwd=folder
        )
        spec = {**yaml.safe_load(SPEC.read_text()), "source": str(folder / "cortex.zarr")}
        (folder / "benchmark.yaml").write_text(yaml.safe_dump(spec))
        plan = Simulation.load(folder / "benchmark.yaml").plan()
        for what, planes in sorted(transforms(plan).items()):
            print(f"simexm transforms: {what}, {planes} planes at most")
        wanted = grids(plan)
        ratios: dict[str, list[float]] = {reading: [] for reading in wanted}
        for _ in range(given.repeat):
            command("run", "benchmark.yaml", "--workers", "2", "--overwrite", "-q", cwd=folder)
            took = blocks_s(folder / "benchmark.run")
            # on both cores at once, as the blocks were
            cube, plane = (
                statistics.mean(s) for s in zip(*pool.map(cube_and_planes, range(2), chunksize=1), strict=True)
            )
            told = []
            for reading, nodes in wanted.items():
                limit = nodes * (plane if "plane" in reading else cube)
                ratios[reading].append(took / limit)
                told.append(f"{reading} {limit:.1f}")
            print(
                f"blocks {took:.1f} core-seconds; limits: {', '.join(told)} "
                f"({cube * 1e9:.1f} ns a node in cubes, {plane * 1e9:.1f} in planes)",
                flush=True,
            )
        for reading, nodes in wanted.items():
            values = ratios[reading]
            print(
                f"{reading}, padded {nodes / 1e6:.0f} million: blocks take {statistics.median(values):.2f} times the limit "
                f"({min(values):.2f} to {max(values):.2f})"
            )


if __name__ == "__main__":
    main()
