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
from simexm.spectra.fluorophores import Fluorophore
from simexm.stages.contract import Counted, Stage, World

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

    @abstractmethod
    def reach_nm(self, world: World) -> float:
        """How far along an axis a dye may lie from its protein, nm of tissue."""

    @abstractmethod
    def tile_bytes(self, voxels: Box, world: World) -> int:
        """Bytes of the buffers through which labels of a tile pass, beside those of ids and regions."""


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
    def tile_bytes(self, tile: Triple, channels: int, world: World, chunk_nm: float) -> int:
        """Most bytes that imaging a tile holds at once beside the image.

        Emitters that come together lie within `chunk_nm` along z, expanded.
        """

    def kept_bytes(self, tile: Triple, channels: int) -> int:
        """Of these, what is kept from one round of imaging to the next."""
        return 0

    def device_bytes(self, tile: Triple, channels: int, world: World, chunk_nm: float, at_once: int) -> int:
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
        """Work out all that does not depend on the tile.

        Raises
        ------
        SpecError
            If no image can be made with these dyes.
        """
