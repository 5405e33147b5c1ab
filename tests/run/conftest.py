"""A small simulation on stored labels: two layers, two dyes, two channels, and blocks enough to matter."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from simexm.geometry.grid import exact3
from simexm.ingestion.ingest import ingest

VOXEL_NM = (40, 32, 32)


def cells(shape: tuple[int, int, int], seed: int = 5) -> NDArray[np.uint64]:
    """Nearest-seed cells with ids above 2^32, and a gap of zeros."""
    rng = np.random.default_rng(seed)
    seeds = rng.uniform(0, 1, (40, 3)) * np.array(shape)
    grid = np.stack(np.meshgrid(*(np.arange(n) + 0.5 for n in shape), indexing="ij"), axis=-1)
    nearest = np.argmin(((grid[:, :, :, None, :] - seeds) ** 2).sum(axis=-1), axis=-1)
    ids = (nearest.astype(np.uint64) + 1) * np.uint64(2**33) + np.uint64(4)
    ids[:, : shape[1] // 6, : shape[2] // 6] = 0
    return np.asarray(ids, np.uint64)


@pytest.fixture(scope="session")
def labels() -> NDArray[np.uint64]:
    """Cell ids, (z, y, x)."""
    return cells((56, 72, 88))


@pytest.fixture(scope="session")
def stored(labels: NDArray[np.uint64], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same labels, ingested from a TIFF stack."""
    folder = tmp_path_factory.mktemp("labels")
    tifffile.imwrite(folder / "cells.tif", labels, compression="zlib")
    ingest(folder / "cells.tif", folder / "cells.zarr", exact3(VOXEL_NM))
    return folder / "cells.zarr"


def spec(source: Path | str, **changes: Any) -> dict[str, Any]:
    """The small simulation as plain data."""
    return {
        "name": "small",
        "seed": 11,
        "source": str(source),
        "stages": [
            {"stage": "regions"},
            {
                "stage": "labelling",
                "layers": [
                    {"name": "membrane", "dye": "ATTO488", "density_per_um2": 300, "cell_fraction": 0.6, "linker_nm": 6},
                    {
                        "name": "cytosol", "dye": "ATTO647N", "region": "cytosol", "density_per_um3": 2000,
                        "cell_fraction": 0.3, "unspecific_per_um3": 20,
                    },
                ],
            },
            {"stage": "expansion", "factor": 4},
            {
                "stage": "confocal", "numerical_aperture": 1.0, "pixel_size_nm": 162.5, "plane_spacing_nm": 450,
                "axial_range_um": 1.5,
                "channels": [
                    {"name": "green", "laser_wavelength_nm": 488, "band_nm": [500, 600], "laser_power_uW": 20},
                    {"name": "red", "laser_wavelength_nm": 600, "band_nm": [620, 720], "laser_power_uW": 20},
                ],
            },
            {"stage": "camera", "stray_light_e": 1},
            {"stage": "truth"},
        ],
        "execution": {"min_blocks": 16},
        **changes,
    }  # fmt: skip


def fingerprint(folder: Path) -> dict[str, str]:
    """Checksum of every file below a folder, by its path."""
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }
