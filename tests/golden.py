"""Digests of very small runs, kept in `golden.json`: they notice a change of bytes.

    python -m tests.golden    # writes the table again; see `test_golden.py` for when

Integers (counts of dyes, labels, tables, places of dyes) are the same on every type of CPU, so their digests are compared
everywhere. Images go through FFTs, whose last bits follow the CPU's instructions and the libraries: their digests are compared
where both are those that made the table, and elsewhere `SAMPLES` of their values are, within what another device may change:
`SEAM` of the largest value of a noise-free image, one count of a noisy one.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import tempfile
import warnings
from pathlib import Path
from typing import Any

import llvmlite.binding  # type: ignore[import-untyped]
import numpy as np
import zarr
from numpy.typing import NDArray

from benchmarks import digests
from simexm import Simulation, simulate
from simexm.version import RESULTS_VERSION

TABLE = Path(__file__).with_name("golden.json")
SAMPLES = 24
SEAM = 2e-6
VOXEL_NM = (40.0, 32.0, 32.0)


def labels() -> NDArray[np.uint64]:
    """Two cells that touch, and nothing around them; ids above 2^32."""
    ids = np.zeros((14, 28, 32), np.uint64)
    ids[2:12, 4:25, 4:16], ids[3:13, 6:26, 16:29] = 2**33 + 1, 7
    return ids


def specs() -> dict[str, dict[str, Any]]:
    """One spec of each microscope, one of rounds and one of the model of 2017."""
    made = digests.specs("memory://labels")
    for each in made.values():
        each["source"] = {"path": "memory://labels", "regions": {"synapse": "-"}}
        each.pop("execution", None)
    chosen = {
        name: made[name] for name in ("confocal", "widefield", "light_sheet", "two_photon", "rounds", "simexm2017")
    }
    chosen["confocal"]["keep"] = ["expected", "labelled", "emitters"]
    return chosen


def computed() -> dict[str, dict[str, Any]]:
    """Table entries of each run: digests of arrays, and samples of floats and counts."""
    ids = labels()
    synapse = np.zeros(ids.shape, bool)
    synapse[4:9, 10:18, 12:20] = True
    found: dict[str, dict[str, Any]] = {}
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        for name, spec in specs().items():
            made = simulate(ids, Simulation.from_mapping(spec), voxel_size_nm=VOXEL_NM, regions={"synapse": synapse})
            arrays = {"image": made.image, **made.kept, **made.labels}
            for table, columns in made.tables.items():
                arrays |= {f"{table}/{column}": np.asarray(values) for column, values in columns.items()}
            found[name] = {key: entry(key, array) for key, array in arrays.items()}
        phantom = digests.spec(digests.CONFOCAL, source={**digests.PHANTOM, "shape": [12, 40, 40]})
        result = Simulation.from_mapping(phantom).run(Path(folder, "out.zarr"), quiet=True)
        root = zarr.open_group(str(result.path), mode="r")
        stored = {
            path: np.asarray(node[...]) for path, node in root.members(max_depth=None) if isinstance(node, zarr.Array)
        }
        stored |= {f"cells/{name}": np.asarray(column) for name, column in result.cells().to_pydict().items()}
        found["stored"] = {key: entry(key, array) for key, array in stored.items()}
    return found


def entry(key: str, array: NDArray[Any]) -> dict[str, Any]:
    """Table entry of an array, with samples if the optics changed it."""
    told: dict[str, Any] = {"digest": digests.digest(array)}
    if key in ("image", "expected") or key.split("/")[0].isdigit() or "photons" in key:
        flat = array.ravel().astype(np.float64)
        at = np.linspace(0, flat.size - 1, min(SAMPLES, flat.size)).astype(int)
        told["samples"] = [float(f"{value:.9g}") for value in flat[at]]
        told["within"] = max(SEAM * flat.max(), 1.0 if array.dtype.kind == "u" else 0.0)
    return told


def made_on() -> dict[str, str]:
    """CPU and libraries that decide the last bits of images."""
    features = sorted(name for name, has in llvmlite.binding.get_host_cpu_features().items() if has)
    versions = {name: importlib.metadata.version(name) for name in ("numpy", "scipy", "numba")}
    return {"cpu": hashlib.sha256(" ".join(features).encode()).hexdigest()[:16], **versions}


def main() -> None:
    """Write the table."""
    table: dict[str, Any] = {"results_version": RESULTS_VERSION, "made_on": made_on(), "runs": computed()}
    lines = [
        f"  {json.dumps(name)}: {{\n"
        + ",\n".join(f"   {json.dumps(k)}: {json.dumps(v)}" for k, v in sorted(run.items()))
        + "\n  }"
        for name, run in table["runs"].items()
    ]
    head = "\n".join(f" {json.dumps(key)}: {json.dumps(table[key])}," for key in ("results_version", "made_on"))
    TABLE.write_text("{\n" + head + '\n "runs": {\n' + ",\n".join(lines) + "\n }\n}\n")


if __name__ == "__main__":
    main()
