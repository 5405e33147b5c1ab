"""Digests of all arrays and tables of small runs of each kind, to compare the results of two versions of simexm.

    python -m benchmarks.digests > before.json        # at one commit
    python -m benchmarks.digests --against before.json    # at another one

Compares values, not files: each level of each array is read through zarr-python and each Parquet table through Arrow. What may
differ between versions (parameter hash, versions, times) is not looked at. The specs are run on the command line, so that
nothing here depends on how the package is arranged inside.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet  # type: ignore[import-untyped]
import tifffile
import yaml
import zarr
from numpy.typing import NDArray

VOXEL_NM = (40, 32, 32)
PHANTOM: dict[str, Any] = {"kind": "phantom", "shape": [32, 56, 64], "voxel_size_nm": [40, 32, 32], "seed": 2}
MEMBRANE: dict[str, Any] = {
    "name": "membrane", "dye": "ATTO488", "density_per_um2": 300, "cell_fraction": 0.6, "linker_nm": 6, "retention": 0.8,
    "unspecific_per_um3": 10, "dyes_per_protein": {"distribution": "poisson", "mean": 3},
}  # fmt: skip
SYNAPSE: dict[str, Any] = {
    "name": "synapse", "dye": "ATTO647N", "region": "synapse", "density_per_um3": 20000, "stained": "after_expansion",
    "linker_nm": 10,
}  # fmt: skip
GREEN: dict[str, Any] = {"name": "green", "laser_wavelength_nm": 488, "band_nm": [500, 550]}
RED: dict[str, Any] = {"name": "red", "laser_wavelength_nm": 640, "band_nm": [655, 720]}
COMMON: dict[str, Any] = {"numerical_aperture": 1.0, "pixel_size_nm": 180, "plane_spacing_nm": 450}
CONFOCAL: dict[str, Any] = {
    "stage": "confocal", **COMMON, "axial_range_um": 1.2,
    "channels": [{**GREEN, "laser_power_uW": 20}, {**RED, "laser_power_uW": 20}],
}  # fmt: skip
WIDE_CHANNELS = [{**GREEN, "irradiance_W_per_cm2": 20}, {**RED, "irradiance_W_per_cm2": 20}]
CAMERA: dict[str, Any] = {"stage": "camera", "read_noise_e": 1.5, "stray_light_e": 0.5}


def spec(
    microscope: dict[str, Any], layers: Sequence[dict[str, Any]] = (MEMBRANE, SYNAPSE), **more: Any
) -> dict[str, Any]:
    """A small experiment as plain data; `more` replaces keys of the root."""
    stages = [
        {"stage": "regions"},
        {"stage": "labelling", "layers": list(layers)},
        {"stage": "expansion", "factor": 4},
        microscope,
        CAMERA,
        {"stage": "truth"},
    ]
    return {"name": "digest", "seed": 3, "source": PHANTOM, "stages": stages, "execution": {"min_blocks": 4}, **more}


def rounds() -> dict[str, Any]:
    """Two rounds of two letters over one constant stain."""
    made = spec(CONFOCAL, [{**MEMBRANE, "name": "stain"}], source={**PHANTOM, "shape": [28, 48, 48]})
    sites = [{"region": "cytosol", "density_per_um3": 12}]
    barcodes = {"stage": "barcodes", "rounds": 2, "dyes": {"A": "ATTO550", "C": "ATTO647N"}, "amplicons": sites}
    made["stages"].insert(2, barcodes)
    return made


def simexm2017(source: str) -> dict[str, Any]:
    """The model of 2017."""
    layer = {
        "name": "a",
        "dye": "ATTO488",
        "region": "cytosol",
        "labeling_density": 1.0,
        "protein_density_per_nm3": 1e-5,
    }
    optics = {
        "stage": "simexm2017_imaging", "numerical_aperture": 1.15, "refractive_index": 1.33, "focal_plane_depth_nm": 160,
        "objective_factor": 40, "exposure_s": 0.1, "objective_efficiency": 0.8, "detector_efficiency": 0.6,
        "camera_pixel_nm": 5120, "channels": [{"name": "c", "laser_wavelength_nm": 488, "band_nm": [500, 600]}],
    }  # fmt: skip
    stages = [{"stage": "simexm2017_labelling", "layers": [layer]}, optics, {"stage": "truth"}]
    return {"name": "digest", "seed": 3, "source": source, "stages": stages}


def specs(labels: str) -> dict[str, dict[str, Any]]:
    """Every kind of run by name; `labels` is an ingested volume with a mask `organelle`."""
    two_photon = {
        "stage": "two_photon", **COMMON, "repetition_MHz": 80, "pulse_fs": 150,
        "channels": [{"name": "green", "laser_wavelength_nm": 800, "band_nm": [500, 550], "laser_power_uW": 2000}],
    }  # fmt: skip
    own_dye = {"dyes": {"green-dye": {"like": "ATTO488", "two_photon_GM": 50}}}
    mask = {"name": "organelle", "dye": "ATTO647N", "region": "organelle", "density_per_um3": 5000}
    return {
        "confocal": spec(CONFOCAL),
        "widefield": spec({"stage": "widefield", **COMMON, "channels": WIDE_CHANNELS}),
        "light_sheet": spec({"stage": "light_sheet", **COMMON, "sheet_waist_um": 2.0, "channels": WIDE_CHANNELS}),
        "two_photon": spec(two_photon, [{**MEMBRANE, "dye": "green-dye"}], **own_dye),
        "rounds": rounds(),
        "simexm2017": simexm2017(labels),
        "crop": spec(CONFOCAL, [MEMBRANE], source=labels, crop={"offset": [5, 7, 9], "shape": [20, 30, 31]}),
        "masks": spec(CONFOCAL, [MEMBRANE, mask], source=labels),
        "keep": spec(CONFOCAL, keep=["expected", "labelled", "emitters"]),
        "until_labelling": spec(CONFOCAL),
        "until_confocal": spec(CONFOCAL),
        "one_tile": spec(CONFOCAL, execution={"tile": [12, 40, 40], "min_blocks": 1}),
        "workers": spec(CONFOCAL, seed=5),
        "s3": spec(CONFOCAL, [MEMBRANE], seed=6),
    }


def volume(folder: Path) -> str:
    """Ingest nearest-seed cells and a mask, ids above 2^32; returns the path of the Zarr."""
    shape = (32, 48, 52)
    generator = np.random.default_rng(4)
    seeds = generator.uniform(0, 1, (14, 3)) * np.array(shape)
    grid = np.stack(np.meshgrid(*(np.arange(n) + 0.5 for n in shape), indexing="ij"), axis=-1)
    nearest = np.argmin(((grid[:, :, :, None, :] - seeds) ** 2).sum(axis=-1), axis=-1)
    ids = (nearest.astype(np.uint64) + 1) * np.uint64(2**33) + np.uint64(4)
    ids[:, :6, :6] = 0
    tifffile.imwrite(folder / "cells.tif", ids)
    tifffile.imwrite(folder / "mask.tif", (nearest % 3 == 0).astype(np.uint8))
    words = ["--voxel-size", *map(str, VOXEL_NM), "--region", f"organelle={folder / 'mask.tif'}"]
    command("ingest", str(folder / "cells.tif"), "-o", str(folder / "cells.zarr"), *words, "-q")
    return str(folder / "cells.zarr")


def command(*words: str) -> None:
    """Run the command line; raise if it fails."""
    subprocess.run([sys.executable, "-m", "simexm.cli", *words], check=True, stdout=subprocess.DEVNULL)


def digest(data: NDArray[Any]) -> str:
    """Digest of an array's shape, dtype and values."""
    words = json.dumps([list(data.shape), data.dtype.newbyteorder("=").str]).encode()
    if data.dtype.hasobject:  # of which the bytes would be addresses
        return hashlib.sha256(words + json.dumps(data.tolist(), default=str).encode()).hexdigest()[:24]
    return hashlib.sha256(words + np.ascontiguousarray(data, data.dtype.newbyteorder("<")).tobytes()).hexdigest()[:24]


def of_arrays(store: Any) -> dict[str, str]:
    """Digest of every array below a Zarr, by its path."""
    root = zarr.open_group(store, mode="r")
    return {
        path: digest(np.asarray(node[...]))
        for path, node in root.members(max_depth=None)
        if isinstance(node, zarr.Array)
    }


def of_tables(folder: Path) -> dict[str, str]:
    """Digest of every Parquet table of a run, by its path; parts are sorted by name."""
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*.parquet")):
        table = pyarrow.parquet.read_table(path)
        text = json.dumps([table.column_names, table.to_pydict()], default=str)
        found[str(path.relative_to(folder))] = hashlib.sha256(text.encode()).hexdigest()[:24]
    return found


@contextlib.contextmanager
def s3_server(folder: Path) -> Iterator[str]:
    """Run an S3 server on loopback with one bucket, and name it in the environment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    own = {
        "AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "tester-secret",
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
    }  # fmt: skip
    before = dict(os.environ)
    os.environ |= own
    words = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", url.rpartition(":")[2]]
    with (folder / "moto.log").open("wb") as log, subprocess.Popen(words, stdout=log, stderr=log) as server:
        try:
            for _ in range(100):
                with contextlib.suppress(urllib.error.URLError, ConnectionError):
                    urllib.request.urlopen(url, timeout=5).close()
                    break
                time.sleep(0.2)
            import s3fs  # type: ignore[import-untyped]

            s3fs.S3FileSystem().mkdir("digests")
            yield "s3://digests"
        finally:
            server.terminate()
            os.environ.clear()
            os.environ |= before


def of_run(name: str, made: dict[str, Any], folder: Path) -> dict[str, str]:
    """Run one spec and return the digests of all outputs."""
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(made))
    words = ["run", str(folder / f"{name}.yaml"), "-q"]
    if name.startswith("until_"):
        words += ["--until", name.removeprefix("until_")]
    if name == "workers":
        words += ["--workers", "2"]
    if name == "s3":
        with s3_server(folder) as bucket:
            command(*words, "--output", f"{bucket}/out.zarr")
            import s3fs

            s3fs.S3FileSystem().get("digests/", f"{folder}/s3/", recursive=True)
        return {**of_arrays(str(folder / "s3/out.zarr")), **of_tables(folder / "s3/out.run")}
    out = folder / f"{name}.zarr"
    command(*words, "--output", str(out))
    return {**of_arrays(str(out)), **of_tables(out.with_suffix(".run"))}


def of_memory() -> dict[str, str]:
    """Digests of `simulate` on an array."""
    from simexm import Simulation, simulate

    labels = np.zeros((24, 40, 44), np.uint32)
    labels[4:20, 6:34, 6:20], labels[4:20, 6:34, 20:38] = 1, 2
    mask = spec(
        CONFOCAL, [MEMBRANE, {**SYNAPSE, "name": "site"}], source={"path": "memory", "regions": {"synapse": "x"}}
    )
    found = simulate(labels, Simulation.from_mapping(mask), voxel_size_nm=VOXEL_NM, regions={"synapse": labels == 2})
    cells = {f"cells/{name}": digest(np.asarray(column)) for name, column in found.cells.items()}
    return {"image": digest(found.image), **{f"labels/{n}": digest(a) for n, a in found.labels.items()}, **cells}


def main() -> int:
    """Print the digests as JSON, or compare them with earlier ones."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", type=Path, help="JSON of an earlier commit; prints what differs and exits with 1.")
    parser.add_argument("--only", nargs="*", help="Names of the runs to make.")
    chosen = parser.parse_args()
    found: dict[str, dict[str, str]] = {}
    with tempfile.TemporaryDirectory(prefix="simexm-digests-") as temporary:
        folder = Path(temporary)
        labels = volume(folder)
        found["ingest"] = of_arrays(labels)
        for name, made in specs(labels).items():
            if chosen.only is None or name in chosen.only:
                print(name, file=sys.stderr, flush=True)
                found[name] = of_run(name, made, folder)
        found["in_memory"] = of_memory()
    if chosen.against is None:
        print(json.dumps(found, indent=1))
        return 0
    before = json.loads(chosen.against.read_text())
    names = found.keys() if chosen.only is not None else found.keys() | before.keys()
    differ = [
        f"{name}: {key}"
        for name in sorted(names)
        for key in sorted(found.get(name, {}).keys() | before.get(name, {}).keys())
        if found.get(name, {}).get(key) != before.get(name, {}).get(key)
    ]
    print("\n".join(differ) if differ else f"{sum(map(len, found.values()))} arrays and tables are equal")
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
