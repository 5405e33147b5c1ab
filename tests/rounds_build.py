"""A small experiment with rounds of imaging, that tests share."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.api import Simulation

VOXEL_NM = (40.0, 32.0, 32.0)


def cells(shape: tuple[int, int, int] = (40, 80, 80), number: int = 12, seed: int = 3) -> NDArray[np.uint64]:
    """Nearest-seed cells with ids above 2^32, and a gap of zeros."""
    seeds = np.random.default_rng(seed).uniform(0, 1, (number, 3)) * np.array(shape)
    grid = np.stack(np.meshgrid(*(np.arange(n) + 0.5 for n in shape), indexing="ij"), axis=-1)
    nearest = np.argmin(((grid[:, :, :, None, :] - seeds) ** 2).sum(axis=-1), axis=-1)
    ids: NDArray[np.uint64] = (nearest.astype(np.uint64) + 1) * np.uint64(2**33) + np.uint64(4)
    ids[:, :6, :6] = 0
    return ids


def barcodes(**changes: Any) -> dict[str, Any]:
    """Three rounds of two letters, amplicons in the cytosol."""
    return {
        "stage": "barcodes",
        "rounds": 3,
        "dyes": {"A": "ATTO488", "C": "ATTO647N"},
        "amplicons": [{"region": "cytosol", "density_per_um3": 12}],
        **changes,
    }


def spec(source: Any = "memory", **changes: Any) -> dict[str, Any]:
    """The spec as plain data: a stain with its own dye, barcodes, three channels; `changes` apply to the stage barcodes."""
    return {
        "name": "rounds",
        "seed": 4,
        "source": source,
        "stages": [
            {"stage": "regions"},
            {
                "stage": "labelling",
                "layers": [
                    {"name": "stain", "dye": "ATTO550", "region": "cytosol", "density_per_um3": 2000, "linker_nm": 5}
                ],
            },
            barcodes(**changes),
            {"stage": "expansion", "factor": 4},
            {
                "stage": "confocal", "numerical_aperture": 0.9, "pixel_size_nm": 200, "plane_spacing_nm": 500,
                "axial_range_um": 1.2,
                "channels": [
                    {"name": "A", "laser_wavelength_nm": 488, "band_nm": [500, 545], "laser_power_uW": 20},
                    {"name": "stain", "laser_wavelength_nm": 561, "band_nm": [570, 620], "laser_power_uW": 20},
                    {"name": "C", "laser_wavelength_nm": 640, "band_nm": [655, 720], "laser_power_uW": 20},
                ],
            },
            {"stage": "camera", "stray_light_e": 1},
            {"stage": "truth"},
        ],
    }  # fmt: skip


def simulation(source: Any = "memory", keep: tuple[str, ...] = (), **changes: Any) -> Simulation:
    """The validated spec."""
    return Simulation.from_mapping({**spec(source, **changes), "keep": keep})
