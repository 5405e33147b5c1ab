"""Synapses of the phantom: from its own mask, and from simulated pictures of a synapse stain.

    python -m benchmarks.synapses [FACTOR ...]

For each expansion factor: cells are the truth sampled on the picture's grid, junctions what is brighter than Otsu's threshold
after a blur of 30 nm. Directions are not known, so precision, recall and F1 are of pairs of cells; they are printed for contacts
from 0.005 um^2 and from 0.03 um^2. Beside them stand those of the true mask on the same grid: what the grid alone costs.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from simexm import Simulation
from simexm.analysis.scores.synapses import SynapseScore
from simexm.analysis.synapses.synapses import Synapses

SHAPE, VOXEL = (150, 300, 300), (32.0, 16.0, 16.0)
PHANTOM = {"kind": "phantom", "shape": list(SHAPE), "voxel_size_nm": list(VOXEL), "seed": 2}
INSIDE = "0.35:4.45,0.35:4.45,0.35:4.45"


def simulation(factor: float, dwell_us: float) -> Simulation:
    """A confocal picture of both sides of each synapse, stained after expansion."""
    layer = {
        "name": "synapse", "dye": "ATTO647N", "region": "synapse", "density_per_um3": 20000,
        "dyes_per_protein": {"distribution": "poisson", "mean": 3}, "stained": "after_expansion", "linker_nm": 10,
    }  # fmt: skip
    channel = {"name": "synapse", "laser_wavelength_nm": 640, "band_nm": [655, 720], "laser_power_uW": 20}
    stages: list[dict[str, Any]] = [
        {"stage": "regions"},
        {"stage": "labelling", "layers": [layer]},
        {"stage": "expansion", "factor": factor},
        {
            "stage": "confocal", "numerical_aperture": 1.15, "pixel_size_nm": 162.5, "plane_spacing_nm": 500,
            "dwell_us": dwell_us, "channels": [channel],
        },
        {"stage": "camera", "read_noise_e": 1.5, "stray_light_e": 0.5},
        {"stage": "truth", "regions": ["synapse"]},
    ]  # fmt: skip
    return Simulation.model_validate({"seed": 3, "source": PHANTOM, "stages": stages})


def otsu(values: NDArray[np.float32]) -> float:
    """Threshold that separates two classes best, from a histogram of 1000 bins."""
    counts, edges = np.histogram(values, 1000)
    centres = (edges[:-1] + edges[1:]) / 2
    below, total = np.cumsum(counts), np.cumsum(counts * centres)
    above = below[-1] - below
    with np.errstate(invalid="ignore", divide="ignore"):
        between = below * above * (total / below - (total[-1] - total) / above) ** 2
    return float(centres[np.nanargmax(between)])


def f1_of(folder: Path, cells: NDArray[Any], mask: NDArray[Any], voxel: tuple[float, float, float]) -> str:
    """Find synapses and score them against the phantom's list."""
    np.save(folder / "cells.npy", cells)
    np.save(folder / "mask.npy", mask.astype(np.uint8))
    (folder / "tissue.yaml").write_text(str(PHANTOM))
    said = []
    for smallest in (0.005, 0.03):
        settings = Synapses(voxel_size_nm=voxel, gap_nm=60, junction_reach_nm=max(40.0, *voxel), smallest_um2=smallest)
        found = settings.run(
            folder / "cells.npy", folder / "mask.npy", output=folder / "s.zarr", overwrite=True, quiet=True
        )
        score = SynapseScore(within_um=INSIDE).run(
            found, folder / "tissue.yaml", output=folder / "f.zarr", overwrite=True, quiet=True
        )
        got = {f"{s['score']} {s['subset']}": s["value"] for s in score.scores().to_pylist()}
        said.append("/".join(f"{got[f'{name} pairs']:.2f}" for name in ("precision", "recall", "f1")))
    return "   ".join(said)


def main() -> None:
    """Print one line for the mask itself, and two for each factor."""
    parser = argparse.ArgumentParser()
    parser.add_argument("factors", nargs="*", type=float, default=[4.0, 16.0])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        from simexm.geometry.grid import Box
        from simexm.sources.phantom import Phantom

        tissue, box = Phantom.model_validate(PHANTOM).open(), Box.of_shape(SHAPE)
        print(
            "voxels of the phantom, true mask:",
            f1_of(folder, tissue.read(box), tissue.read_field("synapse", box), VOXEL),
        )
        for factor in parser.parse_args().factors:
            begin = time.process_time()
            result = simulation(factor, 5 * (factor / 4) ** 3).run(folder / f"{factor:g}.zarr", quiet=True)
            pixel = tuple(1000 * um for um in result.pixel_um())
            cells = np.asarray(result.array(of="labels/cells")[:])
            truth = np.asarray(result.array(of="labels/synapse_synapse")[:]) != 0
            image = np.asarray(result.array()[0], np.float32)
            blurred = ndimage.gaussian_filter(image, [30 / p for p in pixel])
            z, y, x = pixel
            what = f"{factor:g}x, pixels of {z:.0f} x {y:.0f} x {x:.0f} nm"
            print(f"{what}, true mask:", f1_of(folder, cells, truth, (z, y, x)))
            print(f"{what}, picture:  ", f1_of(folder, cells, blurred > otsu(blurred), (z, y, x)), end="")
            print(f"  ({image.max():.0f} counts at most, {time.process_time() - begin:.0f} s of CPU)", flush=True)


if __name__ == "__main__":
    main()
