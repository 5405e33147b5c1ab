"""The configuration of the 2017 program as models: every key with its default and its range.

Triples are stored in the order of the file, which calls them z, x, y: its x is the row of a slice and its y the column, so the
order is that of arrays, z, y, x. Relative paths begin at the working directory, as in the original; none is checked on disk.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from simexm.legacy2017.values import BOOLEAN, TEXT, Reads, choice, number, whole, wholes
from simexm.names import printable
from simexm.spectra.fluorophores import load_builtin

Together = Literal["merged", "splitted"]
InFormat = Literal["tiff", "image sequence"]
OutFormat = Literal["tiff", "gif", "image sequence"]
Microscope = Literal["confocal", "widefield", "two photon"]

Text = Annotated[str, TEXT]
Bool = Annotated[bool, BOOLEAN]
Cells = Annotated[Together, choice(get_args(Together))]
Share = Annotated[float, number(0, 1)]
LIGHT_NM = (200, 2000)
"""Range of the wavelengths of all dyes and filters."""


class Section(BaseModel):
    """A section of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def expected(cls, key: str) -> str:
        """The valid values of a key, in words."""
        return next(m.expected for m in cls.model_fields[key].metadata if isinstance(m, Reads))


class Region(Section):
    """A further region: a binary mask in the format of the cells."""

    region_path: Text


class GroundTruth(Section):
    """The segmented volume: its crop is `bounds` voxels from `offset` on, z x y."""

    image_path: Text
    offset: Annotated[tuple[int, int, int], wholes(("z", "x", "y"), 0, unit="voxels")]
    bounds: Annotated[tuple[int, int, int], wholes(("z", "x", "y"), 1, unit="voxels")]
    format: Annotated[InFormat, choice(get_args(InFormat))]
    gt_cells: Cells
    isotropic: Bool
    """Find the membrane from the neighbours in 3-D, otherwise from those in the slice."""
    voxel_dim: Annotated[tuple[int, int, int], wholes(("z", "x", "y"), 1, unit="nm")]
    regions: dict[str, Region] = Field(default_factory=dict)


class Layer(Section):
    """One kind of label."""

    fluorophore: Text = "ATTO425"
    region: Text = "full"
    """membrane, cytosol or a further region. `full`, the original's default, does not exist."""
    labeling_density: Share = 0.5
    """Share of the eligible cells that are labelled."""
    protein_density: Share = 0.2
    """Per nm^3."""
    protein_noise: Share = 0.0
    """Share of displaced proteins; the original has no default, 0 is assumed."""
    antibody_amp: Annotated[float, number(1)] = 5.0
    """Dyes per protein."""
    single_neuron: Bool = False
    """Label one cell only."""

    @field_validator("fluorophore")
    @classmethod
    def _known(cls, name: str) -> str:
        dyes = sorted(load_builtin())
        if name not in dyes:
            near = difflib.get_close_matches(name.upper(), dyes, n=1)
            hint = f"did you mean {near[0]}? The" if near else "the"
            raise ValueError(f"is no dye; {hint} dyes are {', '.join(dyes)}")
        return name


class Labeling(Section):
    """The labels: `global_density` is the share of cells that any layer may label, each subsection a layer."""

    model_config = ConfigDict(frozen=True, extra="allow")

    __pydantic_extra__: dict[str, Layer] = Field(init=False)
    global_density: Share = 1.0

    @property
    def layers(self) -> dict[str, Layer]:
        """Layers sorted by name, the order in which they are simulated."""
        return dict(sorted(self.__pydantic_extra__.items()))


class Expansion(Section):
    """The linear expansion factor."""

    factor: Annotated[float, number(1)]


class Channel(Section):
    """One laser, with the share of its power that is used, and one detected band."""

    laser_wavelength: Annotated[int, whole(200, 1000, unit="nm")]
    laser_power: Annotated[float, number(1, unit="W")]
    laser_percentage: Share
    laser_filter: Annotated[tuple[int, int], wholes(("lowest", "highest"), 0, unit="nm")]

    @field_validator("laser_filter")
    @classmethod
    def _band(cls, band: tuple[int, int]) -> tuple[int, int]:
        if not (band[0] < band[1] and band[1] > LIGHT_NM[0] and band[0] < LIGHT_NM[1]):
            raise ValueError("should be two wavelengths in nm, the lower one first, as in 440, 550")
        return band


class Optics(Section):
    """The microscope; its channels are simulated in sorted order of their names."""

    type: Annotated[Microscope, choice(get_args(Microscope))]
    refractory_index: Annotated[float, number(1)]
    numerical_aperture: Annotated[float, number(above=True)]  # after the index, which its check reads
    focal_plane_depth: Annotated[int, whole(1, unit="nm")]
    """Spacing of the planes in expanded tissue."""
    objective_back_aperture: Annotated[float, number(above=True, unit="m")]
    objective_factor: Annotated[float, number(above=True)]
    """Magnification; the laser illuminates a disc of radius aperture / magnification."""
    exposure_time: Annotated[float, number(above=True, unit="s")]
    objective_efficiency: Share
    detector_efficiency: Share
    pixel_size: Annotated[int, whole(1, unit="nm")]
    """Of the camera; at the specimen it is pixel_size / objective_factor."""
    pinhole_radius: Annotated[float, number(above=True, unit="um")]
    """On the camera's side."""
    baseline_noise: Annotated[int, whole(0, unit="photons")]
    """Mean background."""
    channels: dict[str, Channel] = Field(min_length=1)

    @field_validator("numerical_aperture")
    @classmethod
    def _leaves(cls, aperture: float, info: ValidationInfo) -> float:
        index = info.data.get("refractory_index")
        if index is not None and aperture >= index:
            raise ValueError(f"should be below refractory_index = {index:g}: no light leaves at such an angle")
        return aperture


class Output(Section):
    """Output files: stacks of channels, and of the labelled cells' voxels in one region, merged or one for each."""

    name: Text
    path: Text
    format: Annotated[OutFormat, choice(get_args(OutFormat))]
    sim_channels: Cells
    gt_cells: Cells
    gt_region: Text

    @field_validator("name")
    @classmethod
    def _plain(cls, name: str) -> str:
        if name in (".", "..") or "/" in name or printable(name) != name:
            raise ValueError("should be the name of a folder in `path`, without / and control characters")
        return name

    @property
    def folder(self) -> Path:
        """PATH/NAME, the folder of `simulation` and `groundtruth`."""
        return Path(self.path) / self.name


class Config(Section):
    """A configuration file."""

    groundtruth: GroundTruth
    labeling: Labeling
    expansion: Expansion
    optics: Optics
    output: Output
