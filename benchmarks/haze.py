"""What the light of the whole specimen costs: widefield runs with and without it, in turns.

python -m benchmarks.haze cortex.zarr
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from benchmarks.measure import Measured, heading, measured


def spec(source: Path, haze: bool) -> dict[str, Any]:
    """Membranes in widefield, expanded four times: 82 um of cortex of which 5 um above and below a plane are near."""
    layer = {"name": "membrane", "dye": "ATTO488", "region": "membrane", "cell_fraction": 0.5, "density_per_um2": 200}
    channel = {"name": "green", "laser_wavelength_nm": 488, "band_nm": [500, 550], "irradiance_W_per_cm2": 5}
    microscope = {
        "stage": "widefield", "objective": "water_1.0", "pixel_size_nm": 162.5, "plane_spacing_nm": 500,
        "channels": [channel], "haze": haze,
    }  # fmt: skip
    return {
        "name": "haze",
        "seed": 1,
        "source": str(source.resolve()),
        "stages": [
            {"stage": "regions"},
            {"stage": "labelling", "layers": [layer]},
            {"stage": "expansion", "factor": 4},
            microscope,
            {"stage": "camera"},
            {"stage": "truth"},
        ],
    }


def main() -> None:
    """Parse, measure in turns, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", type=Path, help="the cortex volume as OME-Zarr")
    parser.add_argument("--turns", type=int, default=3)
    given = parser.parse_args()
    print(heading([0, 1]))
    found: dict[str, list[Measured]] = {"without": [], "with": []}
    with tempfile.TemporaryDirectory() as name:
        for turn in range(given.turns):
            for label, haze in list(zip(found, (False, True), strict=True))[:: 1 if turn % 2 else -1]:
                Path(name, f"{label}.yaml").write_text(yaml.safe_dump(spec(given.labels, haze)))
                words = [
                    sys.executable,
                    "-m",
                    "simexm.cli",
                    "run",
                    f"{label}.yaml",
                    "--workers",
                    "2",
                    "--quiet",
                    "--overwrite",
                ]
                found[label].append(measured([*words, "--output", "out.zarr"], Path(name)))
    core = {label: statistics.median(m.core_seconds for m in each) for label, each in found.items()}
    peak = {label: max(m.peak_bytes for m in each) / 2**30 for label, each in found.items()}
    for label, seconds in core.items():
        print(f"{label} haze: {seconds:.1f} core-seconds, {peak[label]:.2f} GiB")
    ratios = [b.core_seconds / a.core_seconds for a, b in zip(found["without"], found["with"], strict=True)]
    print(f"ratio of core-seconds {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
