"""Seconds and memory of two experiments for which SimExm (2017) was timed, run from their configuration files.

python -m benchmarks.simexm2017 crop segmentation.tif     # 256^3 voxels of the cortex volume, 661 cells, confocal, membrane
python -m benchmarks.simexm2017 ctc                       # 150 x 773 x 739 moving discs, the configuration pipelines/ctc.ini
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks.end_to_end import machine

PIPELINES = Path(__file__).resolve().parents[1] / "pipelines"
ORIGINAL = {"crop": (70.0, 2.1e9), "ctc": (766.0, 8.8e9)}
"""Seconds and bytes of the 2017 program on another machine of two cores."""

CROP = (
    ("discs.tif", "{tiff}"), ("offset = 0, 0, 0", "offset = 256, 256, 256"), ("150, 773, 739", "256, 256, 256"),
    ("isotropic = False", "isotropic = True"), ("500, 125, 125", "40, 32, 32"), ("ATTO425", "ATTO488"),
    ("protein_density = 1e-6", "protein_density = 1e-5"), ("protein_noise = 0.3", "protein_noise = 0.0"),
    ("antibody_amp = 10.0", "antibody_amp = 1.0"), ("depth = 2000", "depth = 500"),
    ("objective_factor = 20.0", "objective_factor = 40.0"), ("wavelength = 425", "wavelength = 488"),
    ("440, 550", "490, 600"), ("ctc2017", "crop"),
)  # fmt: skip


def timed(words: list[str], cwd: Path) -> tuple[float, int]:
    """Run a command; wall seconds, and the largest sum of the resident memory of all its processes, bytes."""
    start, peak = time.perf_counter(), 0
    process = psutil.Popen(words, cwd=cwd)
    while process.poll() is None:
        try:
            family = [process, *process.children(recursive=True)]
            peak = max(peak, sum(p.memory_info().rss for p in family))
        except psutil.NoSuchProcess:
            pass
        time.sleep(0.02)
    if process.returncode:
        raise SystemExit(process.returncode)
    return time.perf_counter() - start, peak


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=sorted(ORIGINAL))
    parser.add_argument("tiff", nargs="?", type=Path)
    parser.add_argument("--repeat", type=int, default=3)
    given = parser.parse_args()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    print(f"machine: {machine()}; commit {commit.strip()}")
    text = (PIPELINES / "ctc.ini").read_text()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if given.case == "crop":
            if given.tiff is None:
                parser.error("crop needs the TIFF stack of the cortex volume")
            for old, new in CROP:
                assert old in text, old
                text = text.replace(old, new.format(tiff=given.tiff.resolve()))
        else:
            subprocess.run([sys.executable, "-m", "simexm.templates.moving_discs", "discs.tif"], cwd=folder, check=True)
        (folder / "config.ini").write_text(text)
        for n in range(given.repeat):
            place = folder / str(n)
            place.mkdir()
            if given.case == "ctc":
                (place / "discs.tif").symlink_to(folder / "discs.tif")
            seconds, peak = timed([sys.executable, "-m", "simexm.cli", "run", str(folder / "config.ini"), "-q"], place)
            their_s, their_bytes = ORIGINAL[given.case]
            print(
                f"{given.case}: {seconds:.2f} s ({their_s / seconds:.1f} times faster than {their_s:g} s), {peak / 1e6:.0f} MB "
                f"({peak / their_bytes:.2f} of {their_bytes / 1e9:g} GB)"
            )


if __name__ == "__main__":
    main()
