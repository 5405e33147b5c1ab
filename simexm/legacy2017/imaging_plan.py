"""The 2017 program's imaging as resolved before a run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from simexm.geometry.grid import Triple
from simexm.legacy2017.kernels import blur as simexm2017_blur
from simexm.legacy2017.kernels import frame as simexm2017_frame
from simexm.legacy2017.kernels import psf
from simexm.stages.contract import RunContext
from simexm.stages.roles import ImageFormation, ImagingCost, ImagingDescription, Pair

_SECONDS_PER_VOXEL = 60e-9


@dataclass(frozen=True)
class Formation2017(ImageFormation):
    """The sampling of voxels, and the pairs of dye and channel; `in_focus` is a dye's mean photons, as the kernel's peak is 1."""

    frame: simexm2017_frame.Frame
    pairs: tuple[Pair, ...]

    @property
    def cell_nm(self) -> None:
        """None: fluorophores are counts by voxel, not points."""
        return None


@dataclass(frozen=True)
class Cost2017(ImagingCost):
    """Cost by the voxels that tiles transform, and memory by their spectra."""

    formation: Formation2017
    seconds_per_pixel = 40e-9

    def relative(self, axis: int, pixels: int) -> float:
        """Transformed voxels along one axis."""
        reach = 2 * psf.REACH
        if axis == 0:
            return pixels * self.formation.frame.step + reach
        return pixels * self.formation.frame.bin / self.formation.frame.scatter + reach

    @property
    def seconds_per_cost(self) -> float:
        """Seconds for each transformed voxel."""
        return len(self.formation.pairs) * _SECONDS_PER_VOXEL

    def tile_bytes(self, tile: Triple, channels: int, context: RunContext, chunk_nm: float) -> int:
        """For each dye of a channel: the kernel's spectrum, two rings of spectra (two digits of photons), working planes."""
        rows, columns = (math.ceil(self.relative(axis, tile[axis]) * 1.1) for axis in (1, 2))
        dyes = max(sum(p.channel == c for p in self.formation.pairs) for c in {p.channel for p in self.formation.pairs})
        spectrum = rows * (columns // 2 + 1) * 16
        planes = simexm2017_blur.RING * 2 + psf.REACH + 12
        return dyes * planes * spectrum


@dataclass(frozen=True)
class Description2017(ImagingDescription):
    """The sampling in whole voxels, and each pair, without warnings: the model's omissions are part of it."""

    formation: Formation2017

    def describe(self, tile: Triple) -> dict[str, Any]:
        """Sampling in whole voxels, and every pair."""
        return {
            "model": "simexm2017",
            "planes_step_voxels": self.formation.frame.step,
            "bin_voxels": self.formation.frame.bin,
            "pixels_per_voxel": self.formation.frame.scatter,
            "kernel_voxels": 2 * psf.REACH + 1,
            "pairs": [
                {
                    "channel": p.channel,
                    "dye": p.dye,
                    "emission_nm": p.emission_nm,
                    "photons_per_fluorophore": p.in_focus,
                }
                for p in self.formation.pairs
            ],
        }

    def rows(self) -> list[tuple[str, str]]:
        """Sampling in whole voxels, and every pair."""
        f = self.formation.frame
        lateral = f"{f.bin} x {f.bin} voxels a pixel" if f.scatter == 1 else f"{f.scatter} x {f.scatter} pixels a voxel"
        planes = f"every {f.step}. plane of voxels" if f.step > 1 else "every plane of voxels"
        return [
            ("model", "simexm2017"),
            ("sampling", f"{planes}, {lateral}"),
            *((f"{p.dye} in {p.channel}", f"{p.in_focus:.4g} photons per fluorophore") for p in self.formation.pairs),
        ]

    def provenance(self) -> dict[str, Any]:
        """The model's name."""
        return {"model": "simexm2017"}
