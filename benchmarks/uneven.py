"""What uneven expansion costs: CPU seconds of the same blocks expanded evenly and unevenly, in turns, in one process.

python -m benchmarks.uneven --turns 5

The labels are those of the phantom, computed once and held in memory, so that neither reading nor the phantom counts. Seconds by
activity are those of the profile that every run keeps.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import Counter
from typing import Any

from benchmarks.measure import heading
from simexm.api import Simulation
from simexm.geometry.grid import Box
from simexm.planning.plan import Plan
from simexm.planning.planner import make_plan
from simexm.run.block import compute_frames
from simexm.run.passes import counted_in_memory
from simexm.sources.arrays import ArrayVolume
from simexm.sources.base import LabelSource
from simexm.sources.phantom import Phantom
from simexm.timing import Stopwatch

SHAPE = (120, 420, 420)
DISPLACEMENT = [{"rms_nm": 100, "correlation_um": 1.5}, {"rms_nm": [300, 150, 150], "correlation_um": 20}]
UNEVEN = {"anisotropy": [1.03, 1.0, 0.98], "shear": {"zy": 0.01}, "displacement": DISPLACEMENT}


def spec(dyes_per_um2: float, **fields: Any) -> dict[str, Any]:
    """Membranes of the phantom in a confocal microscope."""
    layer = {"name": "membrane", "dye": "ATTO488", "density_per_um2": dyes_per_um2}
    channel = {"name": "green", "laser_wavelength_nm": 488, "band_nm": [500, 550], "laser_power_uW": 20}
    microscope = {
        "stage": "confocal", "numerical_aperture": 1.0, "pixel_size_nm": 162.5, "plane_spacing_nm": 500,
        "channels": [channel],
    }  # fmt: skip
    return {
        "name": "uneven",
        "seed": 1,
        "source": {"kind": "phantom", "shape": SHAPE},
        "stages": [
            {"stage": "regions"},
            {"stage": "labelling", "layers": [layer]},
            {"stage": "expansion", "factor": 4, **fields},
            microscope,
            {"stage": "camera"},
            {"stage": "truth"},
        ],
    }


def seconds(plan: Plan, source: LabelSource) -> tuple[float, Counter[str]]:
    """CPU seconds of all blocks, and wall seconds by activity."""
    start = time.process_time()
    with Stopwatch() as watch:
        counted = counted_in_memory(plan, source)
        for block in plan.blocks:
            for _ in compute_frames(plan, source, counted, block):
                pass
    return time.process_time() - start, Counter({name: row[0] for name, row in watch.rows.items()})


def main() -> None:
    """Parse, measure in turns, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--dyes-per-um2", type=float, default=400)
    given = parser.parse_args()
    print(heading([0, 1]))
    volume = Phantom(kind="phantom", shape=SHAPE).open()
    source = ArrayVolume(volume.read(Box.of_shape(SHAPE)), (40.0, 32.0, 32.0))
    plans = {
        name: make_plan(Simulation.from_mapping(spec(given.dyes_per_um2, **fields)), source=source)
        for name, fields in (("even", {}), ("uneven", UNEVEN))
    }
    for plan in plans.values():
        seconds(plan, source)  # compiles
    cpu: dict[str, list[float]] = {name: [] for name in plans}
    parts: dict[str, Counter[str]] = {name: Counter() for name in plans}
    for _ in range(given.turns):
        for name, plan in plans.items():
            spent, rows = seconds(plan, source)
            cpu[name].append(spent)
            parts[name].update(rows)
    blocks = len(plans["even"].blocks)
    print(f"image {plans['even'].shape}, {blocks} blocks")
    for name, turns in cpu.items():
        print(
            f"{name}: {statistics.median(turns) / blocks:.3f} CPU s a block ({min(turns):.2f} to {max(turns):.2f} all)"
        )
    for row in sorted(set(parts["even"]) | set(parts["uneven"])):
        each = [parts[name][row] / given.turns / blocks for name in plans]
        print(f"  {row}: {each[0]:.3f}, {each[1]:.3f} s")
    ratios = [b / a for a, b in zip(cpu["even"], cpu["uneven"], strict=True)]
    print(f"ratio of CPU seconds {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
