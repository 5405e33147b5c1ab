"""A small spec in the model of 2017."""

from __future__ import annotations

from typing import Any


def small_2017(**layer: Any) -> dict[str, Any]:
    """A spec over few voxels; `layer` changes its layer."""
    layers = [
        {
            "name": "a",
            "dye": "ATTO488",
            "region": "cytosol",
            "labeling_density": 1.0,
            "protein_density_per_nm3": 1e-5,
            **layer,
        }
    ]
    optics = {
        "stage": "simexm2017_imaging", "numerical_aperture": 1.15, "refractive_index": 1.33, "focal_plane_depth_nm": 160,
        "objective_factor": 40, "exposure_s": 0.1, "objective_efficiency": 0.8, "detector_efficiency": 0.6,
        "camera_pixel_nm": 5120,
        "channels": [{"name": "c", "laser_wavelength_nm": 488, "band_nm": [500, 600]}],
    }  # fmt: skip
    stages = [{"stage": "simexm2017_labelling", "layers": layers}, optics, {"stage": "truth"}]
    return {"source": {"path": "memory"}, "stages": stages}
