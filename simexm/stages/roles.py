"""Roles of stages that others need to know: the one that labels cells, the microscope, and the detector.

They name layers and channels, give the size of the image and its cost, and say what a count means. Every other stage is
known by what it reads and writes alone.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from simexm.geometry.geometry import Geometry
from simexm.geometry.grid import Box, Spacing, Triple
from simexm.geometry.transform import Transform
from simexm.kernels.labels.cells import counts
from simexm.spectra.bands import LitAndFiltered
from simexm.spectra.curves import CsvCurve, Curve
from simexm.spectra.efficiency import Efficiency
from simexm.spectra.fluorophores import Fluorophore
from simexm.stages.contract import EMITTERS, EXPECTED, LABELLED, Counted, RunContext, Stage, TileState
from simexm.stages.motion_path import MotionPath
from simexm.stages.products import Product, image

CELLS = "cells"
"""Name of the table of cells, and of the label image that shows all of them."""
MOST_LAYERS, MOST_CHANNELS = 500, 100
"""More are taken for a mistake: each layer is a label image, each channel an image."""


class NamedLayer(Protocol):
    """One kind of label: its name, its dye, and the region that it labels."""

    @property
    def name(self) -> str: ...
    @property
    def dye(self) -> str: ...
    @property
    def region(self) -> str: ...


class Labeller(Stage):
    """A stage that decides which cells carry which dye."""

    @property
    @abstractmethod
    def named_layers(self) -> Sequence[NamedLayer]:
        """The layers, in order."""

    @abstractmethod
    def labelled(self, layer: str, ids: NDArray[np.uint64], seed: int, counted: Counted) -> NDArray[np.uint8]:
        """1 for each id that the layer labels; id 0 is no cell. `counted` holds the tables of the stage's count passes."""

    @property
    def emits(self) -> Mapping[str, str]:
        """Dye of each layer."""
        return {layer.name: layer.dye for layer in self.named_layers}

    @property
    def regions_used(self) -> tuple[tuple[str, str], ...]:
        """Regions that the layers label."""
        return tuple((layer.region, f"layer {layer.name!r} labels") for layer in self.named_layers)

    def products(self, context: RunContext) -> tuple[Product, ...]:
        """The table of cells and, if the stage writes emitters, their table and their image."""
        places = dict.fromkeys(("z_nm", "y_nm", "x_nm"), "float64")
        photons = {f"photons_{channel}": "float32" for channel in context.channels}
        columns = {**places, "layer": "str", "dye": "str", "cell": "uint64", "dyes": "int32", **photons}
        cells = {"voxels": "int64", **{f"dyes_{layer}": "int64" for layer in context.dye_of_layer}}
        table = Product(CELLS, "table", columns=cells, key="id", merge="sum")
        if EMITTERS not in self.writes:
            return (table,)
        labelled = image(LABELLED.name, tuple(context.emits), LABELLED.dtype, LABELLED.unit)
        return table, labelled, Product(EMITTERS.name, "table", columns=columns, optional=True)

    def rows(self, product: Product, state: TileState) -> dict[str, NDArray[Any]]:
        """Voxels and dyes of the cells of the tile."""
        ids, tally = state.cell_ids, state.tally
        voxels = tally.voxels.at(ids)
        dyes = {f"dyes_{layer}": tally.dyes.get(layer, counts()).at(ids) for layer in state.context.dye_of_layer}
        here = (voxels > 0) & (ids != 0)
        return {"id": ids[here], "voxels": voxels[here], **{name: n[here] for name, n in dyes.items()}}

    def table(
        self, product: Product, sums: Mapping[str, NDArray[Any]], context: RunContext, counted: Counted
    ) -> dict[str, NDArray[Any]]:
        """Columns of the table of cells, one row per cell of the specimen.

        `id`; `voxels` in the specimen; `layers` that label the cell, comma-separated; counts of other stages;
        `dyes_LAYER`; `photons_CHANNEL`: expected photo-electrons of all its dyes in the channel, each counted in its
        own plane.
        """
        ids = sums["id"]
        flags = {n.name: self.labelled(n.name, ids, context.seed, counted) != 0 for n in self.named_layers}
        layers = np.array([",".join(n for n, f in flags.items() if f[i]) for i in range(ids.size)], dtype=object)
        dyes = {layer: sums[f"dyes_{layer}"] for layer in context.dye_of_layer}
        own = {f"dyes_{layer}": n for layer, n in dyes.items()}
        more = {name: n for name, n in sums.items() if name not in {"id", "voxels", *own}}
        columns = {"id": ids, "voxels": sums["voxels"], "layers": layers, **more, **own}
        electrons = electrons_of(context)
        for channel in context.channels:
            columns[f"photons_{channel}"] = sum(
                (n * electrons[layer][channel] for layer, n in dyes.items()), np.zeros(ids.size)
            )
        return columns

    def end_warnings(self, sums: Mapping[str, int]) -> list[str]:
        """Warn of empty layers."""
        return [
            f"layer {layer.name!r} is empty: no labelled cell carries a dye in region {layer.region!r}; check region, "
            "cell_fraction and density"
            for layer in self.named_layers
            if not sums.get(f"dyes_{layer.name}")
        ]

    def provenance(self, sums: Mapping[str, int]) -> dict[str, Any]:
        """Dyes of each layer."""
        return {"dyes": {layer.name: sums.get(f"dyes_{layer.name}", 0) for layer in self.named_layers}}


def electrons_of(context: RunContext) -> dict[str, dict[str, float]]:
    """Photo-electrons per channel of one dye of each layer, in its own plane."""
    by_pair = {(p.channel, p.dye): p.in_focus for p in context.imaging.formation.pairs} if context.imaging else {}
    return {
        layer: {channel: by_pair.get((channel, dye), 0.0) for channel in context.channels}
        for layer, dye in context.dye_of_layer.items()
    }


class NamedChannel(LitAndFiltered, Protocol):
    """A channel: name, light, filters, and the colour if the user chose one."""

    @property
    def color(self) -> str | None: ...


@dataclass(frozen=True)
class Pair:
    """One dye in one channel."""

    channel: str
    dye: str
    emission_nm: float
    """Wavelength for which the response was computed."""
    in_focus: float
    """Photo-electrons of one dye in its own plane; photons at the detector if there is none."""


class ImageFormation(ABC):
    """How light forms the image; depends on the spec alone. `pairs` lists every dye that a channel sees."""

    pairs: tuple[Pair, ...]
    follows_motion: ClassVar[bool] = False
    """Whether tissue that moves while it is filmed is imaged where it is; see `TissueMotion`."""

    @property
    @abstractmethod
    def cell_nm(self) -> Spacing | None:
        """Cell of the grid on which dyes are deposited, nm of expanded tissue; None if dyes are not points."""


class ImagingCost(ABC):
    """Time and memory that imaging takes."""

    seconds_per_pixel: ClassVar[float]
    """Rough core-seconds per pixel and channel for the camera, coarser levels, truth, and encoding."""

    @abstractmethod
    def relative(self, axis: int, pixels: int) -> float:
        """Relative cost of a block of this length along one axis; the cost of a block is the product over axes."""

    @property
    @abstractmethod
    def seconds_per_cost(self) -> float:
        """Rough core-seconds of a block of cost 1."""

    def core_seconds(self, tiles: Mapping[Triple, int]) -> float:
        """Rough core-seconds of all tiles, given their number by shape."""
        costs = (n * math.prod(self.relative(axis, p) for axis, p in enumerate(shape)) for shape, n in tiles.items())
        return sum(costs) * self.seconds_per_cost

    @abstractmethod
    def tile_bytes(self, tile: Triple, channels: int, context: RunContext, chunk_nm: float) -> int:
        """Peak bytes of imaging a tile beside the image; the emitters of a chunk span `chunk_nm` along z, expanded."""

    def kept_bytes(self, tile: Triple, channels: int) -> int:
        """The part of `tile_bytes` that is held from one frame to the next."""
        return 0

    def device_bytes(self, tile: Triple, channels: int, context: RunContext, chunk_nm: float, at_once: int) -> int:
        """Peak bytes of GPU memory when `at_once` image planes are computed together; TypeError for CPU-only stages."""
        raise TypeError(f"{type(self).__name__} does not predict GPU memory")


class ImagingDescription(ABC):
    """Description of the imaging for `plan`, warnings and results."""

    @abstractmethod
    def describe(self, tile: Triple) -> dict[str, Any]:
        """The plan as plain data, `pairs` included."""

    @abstractmethod
    def rows(self) -> list[tuple[str, str]]:
        """The plan as (name, value) rows to print."""

    def remarks(self) -> list[str]:
        """Remarks that `plan` prints below the rows."""
        return []

    def warnings(self) -> list[str]:
        """Warnings before a run."""
        return []

    @abstractmethod
    def provenance(self) -> dict[str, Any]:
        """Attributes of the result, as plain data."""


@dataclass(frozen=True)
class ImagingPlan:
    """A microscope resolved for a run."""

    formation: ImageFormation
    cost: ImagingCost
    description: ImagingDescription


class Microscope(Stage):
    """A stage that forms an image; `multiphoton` if two photons excite a dye together."""

    multiphoton: ClassVar[bool] = False

    def products(self, context: RunContext) -> tuple[Product, ...]:
        """The expected image."""
        return (image(EXPECTED.name, context.channels, EXPECTED.dtype, EXPECTED.unit),)

    def pixel_bytes(self, context: RunContext) -> int:
        """The expected image and the detector's counts."""
        return (4 + 2) * len(context.channels)

    @property
    @abstractmethod
    def all_channels(self) -> Sequence[NamedChannel]:
        """The channels, in order."""

    @abstractmethod
    def check(self, dyes: Mapping[str, Fluorophore], factor: float, efficiency: Efficiency) -> None:
        """Raise SpecError if a dye cannot be seen; `factor` is the nominal linear expansion."""

    @abstractmethod
    def geometry(
        self, volume: Triple, crop: Box, voxel_nm: Spacing, origin_nm: Spacing, transform: Transform
    ) -> Geometry:
        """The pixel grid; `transform` is that of all stages together."""

    @property
    def frame_rate_hz(self) -> float | None:
        """Frames per second of a movie; None if no movie is taken."""
        return None

    @property
    def pixel_time_s(self) -> float | None:
        """Time in which a pixel of a plane collects light: dwell or exposure; None if the stage has none."""
        return None

    def excitations_per_s(self, dyes: Mapping[str, Fluorophore]) -> dict[str, float]:
        """Excitations of each dye per second, by name, if the microscope can film dyes that switch; else empty."""
        return {}

    @abstractmethod
    def resolve(self, dyes: Mapping[str, Fluorophore], geometry: Geometry, efficiency: Efficiency) -> ImagingPlan:
        """Compute everything that does not depend on the tile; SpecError if these dyes give no image.

        `efficiency` is that of the detector, `EVERY_PHOTON` without one.
        """


class TissueMotion(Stage):
    """A stage that moves tissue against the microscope, as a whole, from frame to frame."""

    margin_um: float | None
    """Farthest that the field may look beyond its place at rest; None: as far as the tissue reaches."""

    @abstractmethod
    def moved(self, context: RunContext) -> MotionPath:
        """Where the tissue lies in each frame."""


class Detector(Stage):
    """A stage that turns expected photo-electrons into counts, and says how to turn counts back."""

    @property
    @abstractmethod
    def efficiency(self) -> Efficiency:
        """Quantum efficiency."""

    @property
    @abstractmethod
    def background_e(self) -> float:
        """Mean photo-electrons per pixel and plane that are no light of dyes, at the centre of the frame."""

    @property
    @abstractmethod
    def saturation_e(self) -> float:
        """Photo-electrons per pixel and plane above which counts no longer follow."""

    @property
    def frame(self) -> tuple[int, int] | None:
        """Rows and columns of the frame; a larger image is tiled with frames from its corner. None: the image is one."""
        return None

    @abstractmethod
    def electrons(self, counts: NDArray[Any], pixels: Box, context: RunContext) -> NDArray[np.float64]:
        """Photo-electrons, background included, that give these counts (..., z, y, x) of a box of pixels on average."""

    @abstractmethod
    def noise_e(self, mean_e: float, context: RunContext) -> float:
        """Standard deviation of `electrons` of a pixel that expects `mean_e`."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """The detector as plain data for plan and result, with everything that a preset filled in."""

    def curves_read(self, curves: Mapping[str, CsvCurve | Curve]) -> Self:
        """Copy with its curves read; other files, which may be large, are left to `resolved`."""
        return self

    def check(self, microscope: Microscope) -> None:
        """Raise SpecError if the detector cannot work with this microscope."""

    def provenance(self, sums: Mapping[str, int]) -> dict[str, Any]:
        """The detector."""
        return {"detector": self.describe()}
