"""Peak memory of a worker against what `plan` predicts, over kinds of experiments.

python -m benchmarks.memory                  # all
python -m benchmarks.memory confocal fine    # some

Of each experiment the block in the middle is made, on a Dask worker of its own, with the memory that runs plan for. The measured
peak is VmHWM: imports included, compiled code cached. Of some, a whole run is made as a user would type it, in threads where it
is small; "first run" compiles all functions.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from benchmarks.end_to_end import machine
from simexm.api import Simulation
from simexm.jobs.local_cluster import local_client
from simexm.result.place import Place
from simexm.run import folders
from simexm.run.worker import Context, run_block

MiB = 2**20
COLORS = {
    "ATTO425": {"name": "blue", "laser_wavelength_nm": 425, "band_nm": [455, 485]},
    "ATTO488": {"name": "green", "laser_wavelength_nm": 488, "band_nm": [500, 550]},
    "ATTO550": {"name": "orange", "laser_wavelength_nm": 561, "band_nm": [575, 620]},
    "ATTO647N": {"name": "red", "laser_wavelength_nm": 640, "band_nm": [655, 720]},
}


@dataclass(frozen=True)
class Figures:
    """Memory of one experiment, bytes."""

    name: str
    tile: tuple[int, int, int]
    part: tuple[int, int, int]
    predicted: int
    peak: int

    def __str__(self) -> str:
        tile, part = (" x ".join(map(str, t)) for t in (self.tile, self.part))
        share = self.peak / self.predicted
        return f"| {self.name} | {tile} | {part} | {self.predicted / MiB:.0f} | {self.peak / MiB:.0f} | {share:.0%} |"


def experiment(
    dyes: int,
    shape: tuple[int, int, int],
    *,
    voxel_nm: tuple[float, float, float] = (40, 32, 32),
    stage: str = "confocal",
    factor: float = 4,
    pixel_nm: float = 162.5,
    plane_nm: float = 500,
    extra: tuple[dict[str, Any], ...] = (),
    **root: Any,
) -> dict[str, Any]:
    """A spec over the phantom with so many dyes, each in its own channel."""
    light = {"laser_power_uW": 20} if stage == "confocal" else {"irradiance_W_per_cm2": 10}
    names = list(COLORS)[1:2] if dyes == 1 else list(COLORS)[:dyes]
    return {
        "source": {"kind": "phantom", "shape": list(shape), "voxel_size_nm": list(voxel_nm)},
        "stages": [
            {"stage": "regions"},
            {
                "stage": "labelling",
                "layers": [
                    {"name": name, "dye": name, "cell_fraction": 0.5, "density_per_um2": 200, "linker_nm": 5}
                    for name in names
                ],
            },
            *extra,
            {"stage": "expansion", "factor": factor},
            {
                "stage": stage,
                "numerical_aperture": 1.15,
                "pixel_size_nm": pixel_nm,
                "plane_spacing_nm": plane_nm,
                "channels": [{**COLORS[name], **light} for name in names],
            },
            {"stage": "camera"},
            {"stage": "truth"},
        ],
        **root,
    }


def _rounds() -> dict[str, Any]:
    spec = experiment(
        2,
        (256, 512, 512),
        extra=(
            {
                "stage": "barcodes",
                "rounds": 3,
                "dyes": {"A": "ATTO550", "C": "ATTO647N"},
                "amplicons": [{"region": "cytosol", "density_per_um3": 5}],
            },
        ),
    )
    spec["stages"][4]["channels"] = [{**color, "laser_power_uW": 20} for color in COLORS.values()]
    return spec


def _pan() -> dict[str, Any]:
    """Densities of a grey volume and of a mask beside those of membranes."""
    spec = experiment(1, (192, 384, 384))
    grey = {"field": "em", "at_zero_per_um3": 5000, "per_value_per_um3": -20, "most_per_um3": 5000}
    spec["stages"][1]["layers"] += [
        {
            "name": "pan",
            "dye": "ATTO488",
            "region": "everywhere",
            "density_from": grey,
            "penetration": {"length_um": 5},
        },
        {"name": "mitochondria", "dye": "ATTO488", "region": "mitochondria", "density_per_um3": 5000},
    ]
    return spec


EXPERIMENTS: dict[str, Callable[[], dict[str, Any]]] = {
    "small": lambda: experiment(1, (256, 256, 256)),
    "confocal": lambda: experiment(1, (1024, 2048, 2048)),
    "confocal, four channels": lambda: experiment(4, (1024, 2048, 2048)),
    "widefield": lambda: experiment(1, (1024, 2048, 2048), stage="widefield"),
    "widefield, four channels": lambda: experiment(4, (1024, 2048, 2048), stage="widefield"),
    "not expanded": lambda: experiment(1, (1024, 2048, 2048), factor=1),
    "expanded 20 times": lambda: experiment(2, (192, 256, 256), factor=20, pixel_nm=120, plane_nm=300),
    "fine voxels": lambda: experiment(1, (1024, 2048, 2048), voxel_nm=(8, 8, 8)),
    "coarse pixels": lambda: experiment(2, (512, 1024, 1024), stage="widefield", pixel_nm=650, plane_nm=1500),
    "all kept": lambda: experiment(2, (512, 768, 768), keep=["expected", "labelled", "emitters"]),
    "rounds": _rounds,
    "pan-stain": _pan,
}


def _stored(folder: Path, chunk: tuple[int, int, int]) -> dict[str, Any]:
    """A small experiment on labels in 256 x 512 x 512 voxels of uint64, in chunks of this shape."""
    array = zarr.create_array(str(folder / "labels.zarr"), shape=(256, 512, 512), chunks=chunk, dtype="u8")
    z, y, x = (np.arange(n) // 20 for n in array.shape)
    array[...] = 1 + x + 30 * (y[:, None] + 30 * z[:, None, None])
    spec = experiment(1, (1, 1, 1), crop={"shape": [64, 96, 96]}, execution={"memory_GiB": 2})
    return spec | {"source": {"path": str(folder / "labels.zarr"), "voxel_size_nm": [40, 32, 32]}}


RUNS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "threads": lambda _: experiment(1, (160, 400, 400), execution={"min_blocks": 2}),
    "threads, two dyes": lambda _: experiment(2, (160, 320, 320)),
    "one chunk": lambda folder: _stored(folder, (256, 512, 512)),
    "slabs": lambda folder: _stored(folder, (128, 512, 512)),
    "first run": lambda _: experiment(1, (160, 400, 400), execution={"min_blocks": 2}),
}


def measure_run(name: str) -> Figures:
    """Run an experiment in a separate process; the peak is the largest in its journal."""
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        spec = RUNS[name](folder)
        (folder / "spec.json").write_text(json.dumps(spec))
        cache = {"NUMBA_CACHE_DIR": str(folder / "compiled")} if name == "first run" else {}
        words = [sys.executable, "-m", "simexm.cli", "run", "spec.json", "--output", "out.zarr", "--quiet"]
        subprocess.run(words, cwd=folder, env={**os.environ, **cache}, check=True)
        lines = [
            line for path in (folder / "out.run/journal").glob("*.jsonl") for line in path.read_text().splitlines()
        ]
        told = [json.loads(line)["result"] for line in lines]
        plan = json.loads((folder / "out.run/plan.json").read_text())
    tile, part = (tuple(plan["blocks"][key]) for key in ("tile_pixels", "part_voxels"))
    return Figures(name, tile, part, told[0]["predicted_bytes"], max(t["peak_bytes"] for t in told))


def measure(name: str, spec: dict[str, Any]) -> Figures:
    """Compute the block in the middle on a separate worker."""
    plan = Simulation.from_mapping(spec).plan()
    middle = tuple(n // 2 for n in plan.blocks.position(len(plan.blocks) - 1))
    number = next(n for n in range(len(plan.blocks)) if plan.blocks.position(n) == middle)
    with tempfile.TemporaryDirectory() as folder, local_client(1) as client:
        where = Place.at(Path(folder) / "out.zarr").claimed()
        folders.prepare(plan, where)
        peak = client.submit(run_block, Context(plan, where), number).result()["peak_bytes"]
    return Figures(name, plan.tile, plan.part, plan.memory.total, peak)


def figures(names: list[str]) -> Iterator[Figures]:
    """Measure the experiments whose names begin so; by default all."""
    for name, spec in EXPERIMENTS.items():
        if not names or any(name.startswith(n) for n in names):
            yield measure(name, spec())
    for name in RUNS:
        if not names or any(name.startswith(n) for n in names):
            yield measure_run(name)


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    given = parser.parse_args()
    print(machine())
    print("| experiment | tile, pixels | labels at once, voxels | predicted MiB | peak MiB | share |")
    print("|---|---|---|---|---|---|")
    for row in figures(given.names):
        print(row, flush=True)


if __name__ == "__main__":
    main()
