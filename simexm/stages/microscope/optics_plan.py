"""The optics resolved for a run: channels, the dyes that they see, and the simulation grid."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, model_validator

from simexm.geometry.grid import Box, Spacing, Triple
from simexm.kernels.diffraction.pupil import Square
from simexm.kernels.diffraction.tables import Focus
from simexm.kernels.imaging import image
from simexm.kernels.imaging.gridding import NODES
from simexm.names import Name
from simexm.settings import Frozen
from simexm.spectra.curves import Band, CsvCurve, Curve, Filter, Lines, Source, find_curve, resolved_filter
from simexm.spectra.lightpath import Excitation, Transmission
from simexm.stages.microscope.field import IN_PLACE, ChromaticShift, FieldPlan, Part
from simexm.stages.microscope.haze import HazePlan
from simexm.stages.microscope.psf_stack import PsfStack
from simexm.stages.microscope.sheet import SheetTerms
from simexm.stages.roles import ImageFormation, Pair

Array = NDArray[np.float64]
Places = Array | Square
"""Where a response is asked for: at radii (nr,), or on a square about the axis."""
MOST_TABLES = 256
"""Tables of single depths that a process keeps."""
MOST_PLANAR = 32
"""The same for responses without symmetry about the axis."""
FADING_RINGS = 4.0
"""Periods within the lateral radius over which the highest frequencies fade out, to suppress ringing beyond it."""
LEFT_OUT_LIMIT = 0.05
"""Share of a thick stack's light beyond the axial range above which a run warns."""


def _lit(power: object) -> object:
    if power == 0 and not isinstance(power, bool):
        raise ValueError("a channel without light shows nothing but noise; give it power, or remove the channel")
    return power


Power = Annotated[float, BeforeValidator(_lit)]
"""Power of a channel's light; 0 is refused."""


class Channel(Frozen):
    """One light source and one detected band.

    Attributes
    ----------
    name
        Name of the channel and its random streams.
    laser_wavelength_nm
        Wavelength of the laser; or give `source`.
    source
        Another source than one laser line: several lines, or a curve of power per nm.
    excitation_filter
        Filter behind the source; it takes its share of the channel's power.
    band_nm
        Lowest and highest wavelength that the filters pass; or give `emission_filter`.
    emission_filter
        Filter before the detector.
    dichroic
        What the dichroic mirror transmits to the detector. What it reflects is part of the channel's power.
    color
        RRGGBB for viewers; by default the colour of the detected light.
    psf_stack
        A measured stack for this channel alone.
    chromatic
        Shift of the channel's focus and image, as measured with beads; none by default.
    """

    name: Name
    laser_wavelength_nm: float | None = Field(default=None, ge=200, le=2000)
    source: Source | None = None
    excitation_filter: Filter | None = None
    band_nm: Band | None = None
    emission_filter: Filter | None = None
    dichroic: Filter | None = None
    color: str | None = Field(default=None, pattern=r"^[0-9A-Fa-f]{6}$")
    psf_stack: PsfStack | None = None
    chromatic: ChromaticShift | None = None

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        for simple, general, what in (
            ("laser_wavelength_nm", "source", "light"),
            ("band_nm", "emission_filter", "filter"),
        ):
            given = [key for key in (simple, general) if getattr(self, key) is not None]
            if len(given) != 1:
                how = "has both" if given else "has neither"
                raise ValueError(
                    f"channel {self.name!r} {how} {simple} {'and' if given else 'nor'} {general}, so its {what} is not "
                    f"known; give one of them"
                )
        if self.band_nm is not None:
            low, high = self.band_nm
            if not 200 <= low < high <= 2000:
                raise ValueError(
                    f"band_nm of channel {self.name!r} must be two wavelengths in ascending order, got {low:g}, {high:g}"
                )
        return self

    def resolved(self, curves: Mapping[str, CsvCurve | Curve]) -> Self:
        """Copy with its curves read; SpecError if one is unknown or cannot be used."""
        filters = ("excitation_filter", "emission_filter", "dichroic")
        read: dict[str, object] = {
            key: resolved_filter(given, curves) for key in filters if (given := getattr(self, key)) is not None
        }
        if isinstance(self.source, str | CsvCurve | Curve):
            read["source"] = find_curve(self.source, "source", curves)
        if self.psf_stack is not None:
            read["psf_stack"] = self.psf_stack.frozen()
        return self.model_copy(update=read) if read else self

    @property
    def excitation(self) -> Excitation:
        """The light at the specimen; the curves must have been read."""
        filters = Transmission.of(() if self.excitation_filter is None else (_read(self.excitation_filter),))
        given = self.laser_wavelength_nm if self.source is None else self.source
        if isinstance(given, float):
            return Excitation(((given, 1.0),), None, filters)
        if isinstance(given, Lines):
            return Excitation(tuple(given.lines_nm.items()), None, filters)
        assert isinstance(given, Curve), "the source has not been read"
        return Excitation((), given.spectrum, filters)

    @property
    def detection(self) -> Transmission:
        """The filters before the detector; the curves must have been read."""
        last = self.band_nm if self.band_nm is not None else self.emission_filter
        return Transmission.of([_read(f) for f in (self.dichroic, last) if f is not None])

    @property
    def excitation_nm(self) -> float:
        """Mean wavelength of the photons at the specimen, for which the optics are computed; the laser's line if it is one."""
        return self.excitation.mean_nm()

    @property
    def passes_nm(self) -> Band:
        """Band that is detected: where half of the largest transmission passes."""
        return self.detection.passes_nm()

    @property
    def filter_key(self) -> str:
        """Key of the filter before the detector, for messages."""
        return "band_nm" if self.band_nm is not None else "emission_filter"


def _read(given: Band | str | CsvCurve | Curve) -> Band | Curve:
    assert isinstance(given, tuple | Curve), "the curve has not been read"
    return given


@dataclass(frozen=True)
class OpticsPair(Pair):
    """One dye in one channel; `emission_nm` is the photon-weighted mean of the detected light.

    Attributes
    ----------
    emitted_in_stack
        Photons that a dye in the middle of the specimen emits in all directions while the stack is imaged.
    left_out
        Share of a uniformly stained stack's light beyond the axial range or, for a camera, beyond the lateral radius.
    fwhm_nm
        Axial and lateral full width at half maximum; axial None where the range does not reach it.
    efficiency
        Photo-electrons per photon that reaches the detector.
    deepest_peak
        Peak of a dye's image in the deepest plane relative to the first; None if all are alike.
    planar
        Rows and columns of the transfer functions of a response without symmetry about the axis; None if it has it.
    """

    emitted_in_stack: float
    left_out: float
    fwhm_nm: tuple[float | None, float]
    efficiency: float
    deepest_peak: float | None = None
    planar: tuple[int, int] | None = None


@dataclass(frozen=True)
class Depths:
    """Depths at which responses are tabulated; planes between two of them blend their tables linearly.

    Attributes
    ----------
    foci
        The depths, `step_nm` apart, and their focus settings.
    start_nm, plane_nm
        Depth of the first plane below the cover glass, and distance of planes.
    step_nm
        A multiple of it is the depth of each of the `foci`; infinite if there is one for all planes.
    off_nm
        How far above the sharpest dyes the first and the last plane of the specimen lie.
    """

    foci: tuple[Focus, ...]
    start_nm: float
    plane_nm: float
    step_nm: float
    off_nm: tuple[float, ...]

    def at(self, planes: range) -> tuple[NDArray[np.int64], Array]:
        """First of the two depths that each plane blends, and the share of the next, (planes,)."""
        first = np.zeros(len(planes), np.int64)
        if len(self.foci) == 1:
            return first, np.zeros(len(planes))
        place = (self.start_nm + np.array(planes) * self.plane_nm) / self.step_nm - round(
            self.foci[0].depth_nm / self.step_nm
        )
        first = np.clip(np.floor(place).astype(np.int64), 0, len(self.foci) - 2)
        return first, place - first


class Look(NamedTuple):
    """A dye as some channels show it; `pairs` are the numbers of its pairs."""

    dye: str
    shift: ChromaticShift
    pairs: tuple[int, ...]


@dataclass(frozen=True)
class OpticsPlan(ImageFormation):
    """How the optics are computed; depends on the spec alone.

    Attributes
    ----------
    subdivision
        Nodes of the simulation grid per plane spacing and per pixel, (m_z, m, m).
    node_nm
        Pitch of the simulation grid, nm of expanded tissue.
    range_nm, radius_nm
        Axial range and lateral radius of the response, nm of expanded tissue.
    reach
        Node planes within the range.
    halo
        Pixels within the radius.
    whole_per_nm, band_per_nm
        Pass band and stop band of lateral frequencies; those between fade out.
    depths
        Depths at which responses are tabulated; None if the response is the same at all depths and even along z.
    signed
        Whether node planes above and below an image plane have weights of their own.
    haze
        The map that gives the light from beyond the axial range; None without it.
    field
        Shifts of channels, and curvature of the focus; None if nothing changes over the field.
    terms
        Decomposition of light that excites dyes by their place in the field; None if it does not.
    """

    subdivision: Triple
    node_nm: Spacing
    range_nm: float
    radius_nm: float
    reach: int
    halo: int
    whole_per_nm: float
    band_per_nm: float
    pairs: tuple[OpticsPair, ...]
    depths: Depths | None = None
    signed: bool = False
    haze: HazePlan | None = None
    field: FieldPlan | None = None
    terms: SheetTerms | None = None

    @property
    def cell_nm(self) -> Spacing:
        """Cell of the simulation grid."""
        return self.node_nm

    def dyes(self) -> tuple[str, ...]:
        """Dyes that a channel sees."""
        return tuple(dict.fromkeys(p.dye for p in self.pairs))

    def shift(self, pair: int) -> ChromaticShift:
        """Chromatic shift of a pair, by its number."""
        return IN_PLACE if self.field is None else self.field.shifts[pair]

    def looks(self) -> tuple[Look, ...]:
        """Dyes as channels show them: once each, unless channels are shifted against each other."""
        found: dict[tuple[str, ChromaticShift], list[int]] = {}
        for dye in self.dyes():
            for n, pair in enumerate(self.pairs):
                if pair.dye == dye:
                    found.setdefault((dye, self.shift(n)), []).append(n)
        return tuple(Look(dye, shift, tuple(pairs)) for (dye, shift), pairs in found.items())

    def layers(self) -> tuple[str, ...]:
        """Names of the looks: dyes, with a channel where there are several of a dye."""
        looks = self.looks()
        dyes = [look.dye for look in looks]
        return tuple(
            look.dye if dyes.count(look.dye) == 1 else f"{look.dye} in {self.pairs[look.pairs[0]].channel}"
            for look in looks
        )

    def parts(self, tile: Box) -> list[Part]:
        """The parts of a tile that lie in one frame each; the tile itself if frames do not matter."""
        return [Part(tile, (0.0, 0.0))] if self.field is None else self.field.parts(tile)

    @property
    def rank(self) -> int:
        """Terms of the light that excites dyes."""
        return 1 if self.terms is None else self.terms.rank

    @property
    def halo_nm(self) -> float:
        """Distance around a tile from which dyes are deposited, nm of expanded tissue."""
        return float(self.node_nm[1]) * (self.halo * self.subdivision[1] + NODES)

    @property
    def spread_nm(self) -> float:
        """Range along z from which a curved focus shows dyes in one plane, nm of expanded tissue."""
        if self.field is None:
            return 0.0
        low, high = self.field.depths_nm(*self.field.extent_nm(self.halo_nm))
        return high - low

    def lateral(self, tile: Triple) -> image.LateralGrid:
        """Lateral transforms of a tile of this shape."""
        m = self.subdivision[1]
        y, x = (image.fast_pixels(n + 2 * self.halo, m) for n in tile[1:])
        node = float(self.node_nm[1])
        band_y, band_x = (min(n * m // 2, math.floor(self.band_per_nm * n * m * node)) for n in (y, x))
        if band_y == y * m // 2 and (y * m) % 2 == 0:
            band_y -= 1  # the Nyquist frequency carries nothing and has no conjugate, so it would need a special case
        return image.LateralGrid((y, x), m, (band_y, band_x))

    def node_planes(self, tile: Box) -> tuple[int, int]:
        """First node plane that the planes of a tile see, and the end (exclusive)."""
        m = self.subdivision[0]
        return tile.start[0] * m - self.reach, (tile.stop[0] - 1) * m + self.reach + 1

    @property
    def per_cycle(self) -> float:
        """Samples of the radial transfer functions per 1 / nm; a table of radius R needs steps well below 1 / R."""
        return 16.0 * self.radius_nm

    @property
    def frequencies(self) -> int:
        """Samples of the radial transfer functions."""
        return math.ceil(self.band_per_nm * self.per_cycle) + 4

    def kept(self, frequency_per_nm: Array) -> Array:
        """Factor by which each lateral frequency is kept, 0 to 1."""
        return faded(frequency_per_nm, self.whole_per_nm, self.band_per_nm)

    def blend(self, planes: range) -> tuple[NDArray[np.int64], Array]:
        """See `Depths.at`; without depths, the only one."""
        if self.depths is None:
            return np.zeros(len(planes), np.int64), np.zeros(len(planes))
        return self.depths.at(planes)

    def tables(self, tile: Box) -> range:
        """Which of the depths the planes of a tile blend."""
        first, _ = self.blend(range(tile.start[0], tile.stop[0]))
        return range(int(first[0]), min(int(first[-1]) + 2, len(self.depths.foci) if self.depths else 1))

    @property
    def offsets(self) -> int:
        """Node planes in the table of a response."""
        return 2 * self.reach + 1 if self.signed else self.reach + 1

    def window(self, tile: Box) -> int:
        """Node planes whose spectra are held together."""
        low, high = self.node_planes(tile)
        return min(high - low, (image.AT_ONCE - 1) * self.subdivision[0] + 2 * self.reach + 1)


def faded(frequency_per_nm: Array, whole_per_nm: float, band_per_nm: float) -> Array:
    """Factor that falls from 1 at `whole_per_nm` to 0 at `band_per_nm`."""
    along = (frequency_per_nm - whole_per_nm) / max(band_per_nm - whole_per_nm, 1e-12)
    share: Array = np.cos(np.clip(along, 0, 1) * (math.pi / 2)) ** 2
    share[frequency_per_nm > band_per_nm] = 0
    return share


def ring_depth(plan: OpticsPlan, reach_nm: float) -> int:
    """Node planes that emitters can touch between two floors of the stream."""
    return math.ceil(reach_nm / float(plan.node_nm[0])) + NODES
