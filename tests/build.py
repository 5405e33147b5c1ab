"""Small specifications that tests share."""

from __future__ import annotations

from typing import Any

from simexm import plugins
from simexm.api import Simulation

VOXEL_NM = (40.0, 32.0, 32.0)
"""Voxels of the real cortex volume."""


def layer(**changes: Any) -> dict[str, Any]:
    """One layer: ATTO488 in the membranes of all cells."""
    usual = {"name": "membrane", "dye": "ATTO488", "region": "membrane", "density_per_um2": 200.0}
    if "density_per_um3" in changes:
        del usual["density_per_um2"]
    return {**usual, **changes}


def confocal(**changes: Any) -> dict[str, Any]:
    """A confocal microscope with one green channel, and a short range to keep it quick."""
    green = {"name": "green", "laser_wavelength_nm": 488, "band_nm": [500, 550], "laser_power_uW": 20}
    return {
        "stage": "confocal",
        "numerical_aperture": 1.15,
        "pixel_size_nm": 162.5,
        "plane_spacing_nm": 500,
        "axial_range_um": 1.0,
        "channels": [green],
        **changes,
    }


def spec(
    *layers: dict[str, Any],
    factor: float = 4,
    optics: dict[str, Any] | None = None,
    camera: dict[str, Any] | None = None,
    neighbourhood: int = 26,
    **root: Any,
) -> dict[str, Any]:
    """A whole specification as plain data; `root` are further keys of it."""
    return {
        "source": {"path": "memory"},
        "stages": [
            {"stage": "regions", "neighbourhood": neighbourhood},
            {"stage": "labelling", "layers": list(layers) or [layer()]},
            {"stage": "expansion", "factor": factor},
            optics or confocal(),
            {"stage": "camera", **(camera or {})},
            {"stage": "truth"},
        ],
        **root,
    }


def simulation(*layers: dict[str, Any], **changes: Any) -> Simulation:
    """The validated `spec`."""
    return Simulation.from_mapping(spec(*layers, **changes))


def forget_packages() -> None:
    """Clear the caches of entry points, as packages were installed or removed."""
    plugins.installed.cache_clear()
    plugins.load.cache_clear()
