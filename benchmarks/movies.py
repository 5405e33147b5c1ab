"""CPU time and memory of a movie, 608 x 608 pixels and 200 frames of CA1 by a Miniscope V4, against minisim's.

python -m benchmarks.movies --peer /path/to/python-with-minisim --times 3

Each runs in a process of its own, in turns. CPU seconds are those after the imports and after compiled code is loaded; simexm
stores its result, minisim keeps it in memory. minisim runs as its preset has it, and without neuropil and vessels, which
simexm's movie lacks.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SPEC = Path(__file__).parents[1] / "pipelines" / "ca1.yaml"
_OWN = """
import json, resource, sys, time, warnings
warnings.simplefilter("ignore")
from simexm.api import Simulation
spec = Simulation.load(sys.argv[1])
small = spec.to_mapping()
scope = next(s for s in small["stages"] if s["stage"] == "miniscope")
seconds, scope["duration_s"] = scope.get("duration_s", 10.0), 0.1
Simulation.from_mapping(small).run(sys.argv[2] + "/small.zarr", quiet=True)  # loads compiled code
scope["duration_s"] = seconds * float(sys.argv[3])
begin = time.process_time()
result = Simulation.from_mapping(small).run(sys.argv[2] + "/movie.zarr", quiet=True)
workers = resource.getrusage(resource.RUSAGE_CHILDREN)
cpu = time.process_time() - begin + workers.ru_utime + workers.ru_stime
peak = max(workers.ru_maxrss, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) / 1024
print(json.dumps({"cpu_s": cpu, "peak_MiB": peak, "cells": result.cells().num_rows, "frames": result.series().shape[0]}))
"""
_PEER = """
import json, resource, sys, time
import minisim
from minisim import presets
more = json.loads(sys.argv[1])
small = minisim.build_spec(presets.miniscope_v4(), presets.ca1(), duration_s=0.2, **more)
minisim.simulate(small)
begin = time.process_time()
minisim.simulate(minisim.build_spec(presets.miniscope_v4(), presets.ca1(), duration_s=10, **more))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"cpu_s": time.process_time() - begin, "peak_MiB": peak}))
"""
_BARE = {"include_neuropil": False, "include_vasculature": False}


def _measured(command: list[str]) -> dict[str, Any]:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Print a line for each run, and the ratios of the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", help="Python with minisim 1.0.3")
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--longer", type=float, default=1.0, help="simexm's movie so many times as long")
    given = parser.parse_args()
    for _ in range(given.times):
        with tempfile.TemporaryDirectory() as folder:
            print("simexm", _measured([sys.executable, "-c", _OWN, str(SPEC), folder, str(given.longer)]), flush=True)
        for name, more in (("minisim", {}), ("minisim without neuropil and vessels", _BARE)) if given.peer else ():
            print(name, _measured([given.peer, "-c", _PEER, json.dumps(more)]), flush=True)


if __name__ == "__main__":
    main()
