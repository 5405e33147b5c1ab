"""The two roles that the engine asks for by name: the stage that labels cells, and the microscope.

All else a stage is known by what it reads and writes. These two also say what the result is called (layers, channels), how large
it is, and what it costs, which must be known before anything runs.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from simexm.geometry.geometry import Geometry
from simexm.geometry.grid import Box, Spacing, Triple
from simexm.geometry.transform import Transform
from simexm.kernels.labels.cells import counts
from simexm.spectra.fluorophores import Fluorophore
from simexm.stages.contract import EMITTERS, EXPECTED, LABELLED, Counted, RunContext, Stage, TileState
from simexm.stages.products import Product, image

CELLS = "cells"
"""Name of the table of cells, and of the label image that shows all of them."""
MOST_LAYERS, MOST_CHANNELS = 500, 100
"""More would be a mistake: each layer has a label image, and each channel an image, of its own."""


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
        """1 for each id that the layer labels; id 0 is no cell. `counted` is what the stage's passes have counted."""

    @property
    def emits(self) -> Mapping[str, str]:
        """Dye of each layer."""
        return {layer.name: layer.dye for layer in self.named_layers}

    @property
    def regions_used(self) -> tuple[tuple[str, str], ...]:
        """The regions that layers label."""
        return tuple((layer.region, f"layer {layer.name!r} labels") for layer in self.named_layers)

    def products(self, context: RunContext) -> tuple[Product, ...]:
        """The table of cells; where the stage makes emitters, their table and their image, too."""
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
        """Columns of the table of cells, one row a cell of the specimen.

        `id`; `voxels` in the specimen; `layers` that label it, comma-separated; what other stages count of it; `dyes_LAYER`;
        `photons_CHANNEL`: photo-electrons that the channel expects of its layers' dyes, each in the plane that it lies in.
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
        """Layers that are empty."""
        return [
            f"layer {layer.name!r} is empty: no labelled cell has a voxel of region {layer.region!r} that carries a dye; check "
            "region, share of cells and density"
            for layer in self.named_layers
            if not sums.get(f"dyes_{layer.name}")
        ]

    def provenance(self, sums: Mapping[str, int]) -> dict[str, Any]:
        """Dyes of each layer."""
        return {"dyes": {layer.name: sums.get(f"dyes_{layer.name}", 0) for layer in self.named_layers}}


def electrons_of(context: RunContext) -> dict[str, dict[str, float]]:
    """Photo-electrons that one dye of each layer gives each channel in the plane that it lies in."""
    by_pair = {(p.channel, p.dye): p.in_focus for p in context.imaging.formation.pairs} if context.imaging else {}
    return {
        layer: {channel: by_pair.get((channel, dye), 0.0) for channel in context.channels}
        for layer, dye in context.dye_of_layer.items()
    }


class NamedChannel(Protocol):
    """A channel: its name, laser, band, and colour, where the user chose one."""

    @property
    def name(self) -> str: ...
    @property
    def laser_wavelength_nm(self) -> float: ...
    @property
    def band_nm(self) -> tuple[float, float]: ...
    @property
    def color(self) -> str | None: ...


@dataclass(frozen=True)
class Pair:
    """One dye in one channel.

    Attributes
    ----------
    channel, dye
        Names.
    emission_nm
        Wavelength for which the response was computed.
    in_focus
        Photo-electrons that one dye gives to the plane it lies in.
    """

    channel: str
    dye: str
    emission_nm: float
    in_focus: float


class ImageFormation(ABC):
    """How light makes the image: a function of the spec alone, the same for every tile.

    Attributes
    ----------
    pairs
        Every dye that a channel sees.
    """

    pairs: tuple[Pair, ...]

    @property
    @abstractmethod
    def cell_nm(self) -> Spacing | None:
        """Cell of the grid on which dyes are placed, nm of expanded tissue; None where they do not come as points."""


class ImagingCost(ABC):
    """What making the image takes, of time and of memory.

    Attributes
    ----------
    seconds_per_pixel
        Rough seconds of one core for a pixel of a channel: the camera, coarser levels, truth, and encoding.
    """

    seconds_per_pixel: ClassVar[float]

    @abstractmethod
    def relative(self, axis: int, pixels: int) -> float:
        """Relative cost of a block of so many pixels along one axis; the cost of a block is the product."""

    @property
    @abstractmethod
    def seconds_per_cost(self) -> float:
        """Rough seconds of one core for a block of cost 1."""

    def core_seconds(self, tiles: Mapping[Triple, int]) -> float:
        """Rough seconds of one core for so many tiles of each shape."""
        costs = (n * math.prod(self.relative(axis, p) for axis, p in enumerate(shape)) for shape, n in tiles.items())
        return sum(costs) * self.seconds_per_cost

    @abstractmethod
    def tile_bytes(self, tile: Triple, channels: int, context: RunContext, chunk_nm: float) -> int:
        """Most bytes that imaging a tile holds at once beside the image.

        Emitters that come together lie within `chunk_nm` along z, expanded.
        """

    def kept_bytes(self, tile: Triple, channels: int) -> int:
        """Of these, what is kept from one frame of imaging to the next."""
        return 0

    def device_bytes(self, tile: Triple, channels: int, context: RunContext, chunk_nm: float, at_once: int) -> int:
        """The same of a GPU's memory, where so many image planes are made at once.

        Raises
        ------
        TypeError
            If the stage computes on the CPU only.
        """
        raise TypeError(f"{type(self).__name__} does not say what it takes of a GPU's memory")


class ImagingDescription(ABC):
    """What people and files are told of how the image is made."""

    @abstractmethod
    def describe(self, tile: Triple) -> dict[str, Any]:
        """What `plan` shows, as plain data; `pairs` among it."""

    @abstractmethod
    def rows(self) -> list[tuple[str, str]]:
        """The same for people, (what, value)."""

    def remarks(self) -> list[str]:
        """What `plan` says below it."""
        return []

    def warnings(self) -> list[str]:
        """What to warn of before a run."""
        return []

    @abstractmethod
    def provenance(self) -> dict[str, Any]:
        """What the result keeps of it, as plain data."""


@dataclass(frozen=True)
class ImagingPlan:
    """What a microscope is resolved to before a run."""

    formation: ImageFormation
    cost: ImagingCost
    description: ImagingDescription


class Microscope(Stage):
    """A stage that makes an image.

    Attributes
    ----------
    multiphoton
        Whether two photons excite a dye together, so that its one-photon spectrum does not count.
    """

    multiphoton: ClassVar[bool] = False

    def products(self, context: RunContext) -> tuple[Product, ...]:
        """The expected image."""
        return (image(EXPECTED.name, context.channels, EXPECTED.dtype, EXPECTED.unit),)

    def pixel_bytes(self, context: RunContext) -> int:
        """The expected image, and the counts that a detector makes of it."""
        return (4 + 2) * len(context.channels)

    @property
    @abstractmethod
    def all_channels(self) -> Sequence[NamedChannel]:
        """The channels, in order."""

    @abstractmethod
    def check(self, dyes: Mapping[str, Fluorophore], factor: float) -> None:
        """Raise SpecError where one of the dyes cannot be seen; `factor` is the nominal linear expansion."""

    @abstractmethod
    def geometry(
        self, volume: Triple, crop: Box, voxel_nm: Spacing, origin_nm: Spacing, transform: Transform
    ) -> Geometry:
        """The image's grid; `transform` is that of all stages together."""

    @abstractmethod
    def resolve(self, dyes: Mapping[str, Fluorophore], geometry: Geometry) -> ImagingPlan:
        """TileState out all that does not depend on the tile.

        Raises
        ------
        SpecError
            If no image can be made with these dyes.
        """
