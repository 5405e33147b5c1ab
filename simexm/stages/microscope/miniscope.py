"""Miniscope: a one-photon microscope on scattering tissue, which images one plane frame after frame.

An image is the sum over cells of their footprint times their brightness. Footprints are made once for each tile.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from simexm.errors import SpecError
from simexm.geometry.geometry import Geometry
from simexm.geometry.grid import Box, NmBox, Spacing, Triple, exact
from simexm.geometry.transform import Transform
from simexm.kernels.emission import photophysics
from simexm.sources.base import SourceModel
from simexm.sources.tissue import TissueSource
from simexm.spectra.curves import CsvCurve, Curve
from simexm.spectra.efficiency import Efficiency, counted_nm, mean_efficiency
from simexm.spectra.fluorophores import Fluorophore
from simexm.spectra.lightpath import detected_share
from simexm.stages.contract import (
    ACTIVITY,
    EXPECTED,
    LABELS,
    Counted,
    CountPass,
    LabelPart,
    Quantity,
    RunContext,
    TileState,
)
from simexm.stages.frames import FrameAxis
from simexm.stages.microscope import miniscope_truth as truth
from simexm.stages.microscope.light import SEEN_SHARE
from simexm.stages.microscope.miniscope_image import Footprints
from simexm.stages.microscope.miniscope_plan import Light, MiniscopeCost, MiniscopeDescription, MiniscopePlan, reach_um
from simexm.stages.microscope.widefield import CameraChannel
from simexm.stages.products import Product
from simexm.stages.roles import MOST_CHANNELS, ImagingPlan, Microscope, Pair

MOLECULES_PER_UM_UM3 = 602.214076
"""Molecules of 1 uM in 1 um^3."""
_AIRY_SIGMA = 0.21
Pixels = Annotated[int, Field(ge=1, le=100_000)]
Length = Annotated[float, Field(gt=0, le=1e6)]


class Miniscope(Microscope):
    """A one-photon microscope on the surface of tissue.

    Attributes
    ----------
    numerical_aperture, refractive_index
        Aperture of the objective, and index of the tissue.
    pixel_size_nm
        Camera pixel over magnification, nm of tissue.
    field_pixels
        Rows and columns of the image, in the middle of the tissue; by default as many as the tissue holds. What lies around
        sends its light into the image, too.
    channels
        Light source and filters; the irradiance is that at the surface of the tissue on the optical axis.
    frames_per_s, duration_s
        Frame rate and length of the movie.
    exposure_s
        Exposure of a frame; by default all of its time.
    focus_um
        Depth of the focus on the optical axis. `auto`: the depth at which most cells of a tissue are in focus.
    depth_of_field_um
        Full depth within which a cell counts as in focus. `auto`: n lambda / NA^2.
    field_curvature_um
        Radius of the surface of best focus, which is shallower off the axis; flat by default.
    scattering_length_um, anisotropy
        Mean free path of the emitted light, and the mean cosine of its scattering angle.
    absorption_length_um
        Depth over which 1/e of the emitted light, scattered or not, is left.
    excitation_length_um
        Depth over which 1/e of the exciting light is left; it is diffuse and excites evenly within a plane.
    illumination_edge, vignette_edge
        Irradiance and collected light in the corners of the field relative to the axis, along parabolas.
    leakage_e
        Electrons per pixel and frame of exciting light that reaches the sensor.
    objective_transmission
        Transmission of the objective and its optics.
    detectable_snr
        Signal over noise from which a cell counts as detectable in the table of units.
    """

    stage: Literal["miniscope"] = "miniscope"
    numerical_aperture: float = Field(gt=0, le=1.3)
    refractive_index: float = Field(default=1.36, ge=1, le=2)
    pixel_size_nm: float = Field(ge=100, le=1e5)
    field_pixels: tuple[Pixels, Pixels] | None = None
    channels: tuple[CameraChannel, ...] = Field(min_length=1, max_length=MOST_CHANNELS)
    frames_per_s: float = Field(default=20.0, gt=0, le=10_000)
    duration_s: float = Field(default=10.0, gt=0, le=1e6)
    exposure_s: float | None = Field(default=None, gt=0, le=3600)
    focus_um: float | Literal["auto"] = "auto"
    depth_of_field_um: Length | Literal["auto"] = "auto"
    field_curvature_um: Length | None = None
    scattering_length_um: Length = 38.0
    anisotropy: float = Field(default=0.88, ge=0, lt=1)
    absorption_length_um: Length = 1000.0
    excitation_length_um: Length = 600.0
    illumination_edge: float = Field(default=1.0, gt=0, le=1)
    vignette_edge: float = Field(default=1.0, gt=0, le=1)
    leakage_e: float = Field(default=0.0, ge=0, le=1e6)
    objective_transmission: float = Field(default=0.8, gt=0, le=1)
    detectable_snr: float = Field(default=3.0, gt=0, le=1e6)

    reads: ClassVar[tuple[Quantity, ...]] = (LABELS, ACTIVITY)
    writes: ClassVar[tuple[Quantity, ...]] = (EXPECTED,)
    on_gpu: ClassVar[bool] = False

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.numerical_aperture >= self.refractive_index:
            raise ValueError(
                f"numerical_aperture {self.numerical_aperture:g} is not below the refractive_index {self.refractive_index:g}, so "
                "no light would enter at that angle; lower it"
            )
        if self.exposure_s is not None and self.exposure_s > 1 / self.frames_per_s:
            raise ValueError(
                f"exposure_s {self.exposure_s:g} is longer than a frame of {1 / self.frames_per_s:.4g} s, so frames would "
                "overlap; lower exposure_s or frames_per_s"
            )
        if self.frames < 1:
            raise ValueError(
                f"duration_s {self.duration_s:g} at {self.frames_per_s:g} frames per second holds no frame; raise duration_s"
            )
        return self

    @property
    def frames(self) -> int:
        """Number of frames."""
        return math.floor(exact(self.duration_s) * exact(self.frames_per_s))

    @property
    def frame_axes(self) -> tuple[FrameAxis, ...]:
        """Time."""
        rate = exact(self.frames_per_s)
        return (FrameAxis("time", tuple(float(n / rate) for n in map(Fraction, range(self.frames))), "second"),)

    # ---------------------------------------------------------------- the role

    @property
    def all_channels(self) -> tuple[CameraChannel, ...]:
        return self.channels

    @property
    def frame_rate_hz(self) -> float:
        """Frames per second."""
        return self.frames_per_s

    @property
    def pixel_time_s(self) -> float:
        """The exposure."""
        return 1 / self.frames_per_s if self.exposure_s is None else self.exposure_s

    def resolved(self, curves: Mapping[str, CsvCurve | Curve]) -> Self:
        """See `Stage`: with the curves of its channels."""
        return self.model_copy(update={"channels": tuple(c.resolved(curves) for c in self.channels)})

    def fitted(self, source: SourceModel) -> Self:
        """See `Stage`: with the depth of the focus."""
        if self.focus_um != "auto":
            return self
        if not isinstance(source, TissueSource):
            raise SpecError(
                "miniscope: focus_um auto needs to know how deep the cells lie, which only a source of kind tissue tells; give "
                "focus_um"
            )
        return self.model_copy(update={"focus_um": self._best_focus(source)})

    def _best_focus(self, tissue: TissueSource) -> float:
        """The depth, in whole um, at which most cells of the field are in focus; of several the middle one."""
        centres = tissue.cells().centres_um
        field = self.field_pixels or self._field_of(tissue.size_um[1:])
        light = replace(self._light(field, (1.0, 1.0, 1.0), 525.0, 0.0))
        half = np.array(field) * light.pixel_um / 2
        offset = centres[:, 1:] - np.array(tissue.size_um[1:]) / 2
        seen = (np.abs(offset) <= half).all(axis=1)
        chosen = centres[seen] if seen.any() else centres
        near = offset[seen] if seen.any() else offset
        best_at = chosen[:, 0] - light.focus_at((near * near).sum(axis=1))  # focus on the axis that is sharpest there
        depths = np.arange(math.floor(tissue.size_um[0]) + 1, dtype=np.float64)
        counts = [int((np.abs(best_at - d) <= light.depth_of_field_um / 2).sum()) for d in depths]
        best = np.flatnonzero(np.array(counts) == max(counts))
        return float(depths[best[len(best) // 2]])

    def _field_of(self, size_um: tuple[float, ...]) -> tuple[int, int]:
        rows, columns = (max(1, math.floor(exact(n) * 1000 / exact(self.pixel_size_nm))) for n in size_um)
        return rows, columns

    def check(self, dyes: Mapping[str, Fluorophore], factor: float, efficiency: Efficiency) -> None:
        """See `Microscope`."""
        if factor != 1:
            raise SpecError(
                f"a miniscope images living tissue, but a stage expands it {factor:g} times; remove the stage that expands"
            )
        for dye in dyes.values():
            if not any(
                detected_share(dye, c.detection) > SEEN_SHARE and c.excitation.absorbed(dye) > 0 for c in self.channels
            ):
                raise SpecError(
                    f"no channel of the miniscope excites {dye.name} and passes its light, so its cells would stay dark; it "
                    f"absorbs most at {dye.peak_excitation_nm:g} nm and emits most at {dye.peak_emission_nm:g} nm"
                )

    def geometry(
        self, volume: Triple, crop: Box, voxel_nm: Spacing, origin_nm: Spacing, transform: Transform
    ) -> Geometry:
        """One plane at the depth of the focus, whose thickness is the depth of field."""
        extent = [n * v for n, v in zip(crop.shape, voxel_nm, strict=True)]
        pixel = exact(self.pixel_size_nm)
        most = tuple(max(1, math.floor(n / pixel)) for n in extent[1:])
        rows, columns = self.field_pixels or most
        if rows > most[0] or columns > most[1]:
            raise SpecError(
                f"the field of {rows} x {columns} pixels of {self.pixel_size_nm:g} nm is larger than the tissue, which holds "
                f"{most[0]} x {most[1]}, so its border would be empty; lower field_pixels or take a larger piece of tissue"
            )
        assert self.focus_um != "auto"
        focus, thick = exact(self.focus_um) * 1000, exact(round(self._depth_of_field_um(525.0), 3)) * 1000
        if not 0 <= focus <= extent[0]:
            raise SpecError(
                f"focus_um {self.focus_um:g} lies outside the tissue, which is {float(extent[0]) / 1000:g} um deep, so no cell "
                "would be in focus; choose a depth inside"
            )
        phase = (focus - thick / 2, (extent[1] - rows * pixel) / 2, (extent[2] - columns * pixel) / 2)
        return Geometry(
            volume, crop, voxel_nm, origin_nm, transform, (thick, pixel, pixel), phase, fixed_shape=(1, rows, columns)
        )

    def _depth_of_field_um(self, emission_nm: float) -> float:
        if self.depth_of_field_um != "auto":
            return self.depth_of_field_um
        return self.refractive_index * emission_nm / 1000 / self.numerical_aperture**2

    def _light(
        self, field: tuple[int, int], voxel_um: tuple[float, float, float], emission_nm: float, focus_um: float
    ) -> Light:
        return Light(
            pixel_um=self.pixel_size_nm / 1000,
            voxel_um=voxel_um,
            field=field,
            focus_um=focus_um,
            curvature_um=self.field_curvature_um,
            aperture_ratio=self.numerical_aperture / self.refractive_index,
            depth_of_field_um=self._depth_of_field_um(emission_nm),
            diffraction_um=_AIRY_SIGMA * emission_nm / 1000 / self.numerical_aperture,
            scattering_um=self.scattering_length_um,
            anisotropy=self.anisotropy,
            absorption_um=self.absorption_length_um,
            excitation_um=self.excitation_length_um,
            illumination_edge=self.illumination_edge,
            vignette_edge=self.vignette_edge,
            leakage_e=self.leakage_e,
        )

    def resolve(self, dyes: Mapping[str, Fluorophore], geometry: Geometry, efficiency: Efficiency) -> ImagingPlan:
        """See `Microscope`."""
        collected = (1 - math.sqrt(1 - (self.numerical_aperture / self.refractive_index) ** 2)) / 2
        pairs, electrons = [], []
        for channel in self.channels:
            for dye in dyes.values():
                absorbed, share = channel.excitation.absorbed(dye), detected_share(dye, channel.detection)
                if absorbed <= 0 or share <= 0:
                    continue
                photons = photophysics.emitted_photons(
                    photophysics.cross_section_m2(dye.extinction_per_M_per_cm) * absorbed,
                    channel.irradiance_W_per_cm2 * 1e4,
                    channel.excitation_nm,
                    exposure_s=self.pixel_time_s,
                    quantum_yield=dye.quantum_yield,
                    lifetime_ns=dye.lifetime_ns,
                )
                counted = collected * self.objective_transmission * share
                counted *= mean_efficiency(efficiency, dye, channel.detection)
                nm = counted_nm(efficiency, dye, channel.detection)
                pairs.append(Pair(channel.name, dye.name, nm, photons * counted))
                electrons.append(photons * counted * MOLECULES_PER_UM_UM3)
        assert self.focus_um != "auto"
        _, rows, columns = geometry.shape
        z, y, x = (float(v) / 1000 for v in geometry.voxel_nm)
        light = self._light((rows, columns), (z, y, x), pairs[0].emission_nm, float(self.focus_um))
        plan = MiniscopePlan(tuple(pairs), light, tuple(electrons), geometry.crop.shape[0] * z)
        return ImagingPlan(plan, MiniscopeCost(plan, self.frames), MiniscopeDescription(plan))

    def refuse(self, context: RunContext) -> None:
        """See `Stage`: a path on which the field looks beyond the tissue, or beyond the margin."""
        if context.motion is None:
            return
        light, tissue = _plan(context).light, context.geometry.crop.shape
        size = (n * light.pixel_um for n in light.field)
        for axis, far in zip((1, 2), context.motion.moved(context).margin_um(*size), strict=True):
            room = (tissue[axis] * light.voxel_um[axis] - light.field[axis - 1] * light.pixel_um) / 2
            asked = context.motion.margin_um
            if asked is not None and far > asked:
                raise SpecError(
                    f"motion.margin_um {asked:g} is too small: the tissue moves so far that the field looks {far:.4g} um beyond "
                    f"its place along {'zyx'[axis]}, where nothing would be simulated; raise margin_um, or lower the motion"
                )
            if far > room:
                raise SpecError(
                    f"the tissue moves so far that the field looks {far:.4g} um beyond its place along {'zyx'[axis]}, but the "
                    f"tissue ends {room:.4g} um beyond it, so the border of the movie would be empty; enlarge source.size_um by "
                    f"{2 * (far - room):.4g} um, or lower field_pixels or the motion"
                )

    # ---------------------------------------------------------------- the truth

    def passes(self) -> tuple[CountPass, ...]:
        """Add up the sharp light of each cell, by which footprints are shares."""
        return (truth.LIGHT,)

    def count_box(self, name: str, own: Box, context: RunContext) -> Box:
        """The voxels themselves."""
        return own

    def count(self, name: str, own: Box, part: LabelPart, state: TileState) -> dict[str, NDArray[np.int64]]:
        """Count one box."""
        return truth.count_light(_plan(state.context), own, part, state.context)

    def products(self, context: RunContext) -> tuple[Product, ...]:
        """The expected image, footprints, and the table of units."""
        return (*super().products(context), *truth.products())

    def rows(self, product: Product, state: TileState) -> dict[str, NDArray[Any]]:
        """See `Stage`."""
        make = {truth.OBSERVED: truth.observed_rows, truth.PLANTED: truth.planted_rows, truth.UNITS: truth.unit_rows}
        return make[product.name](state.scratch["footprints"], _plan(state.context), state)

    def table(
        self, product: Product, sums: Mapping[str, NDArray[Any]], context: RunContext, counted: Counted
    ) -> dict[str, NDArray[Any]]:
        """Columns of the table of units."""
        return truth.unit_table(_plan(context), sums, context, counted, self.detectable_snr)

    def sums(self, product: Product, sums: Mapping[str, NDArray[Any]]) -> dict[str, int]:
        """None."""
        return {}

    # ---------------------------------------------------------------- a tile

    def needs(self, wanted: NmBox, context: RunContext) -> dict[str, NmBox]:
        """The voxels of all depths whose sharp images reach the pixels."""
        plan = _plan(context)
        reach = exact(math.ceil(plan.light.reach_um(plan.deepest_um) * 1000))
        down, across = (reach + exact(math.ceil(n * 1000)) for n in reach_um(context, plan.light))
        grown = wanted.grown((Fraction(0), down, across))
        depth = context.geometry.voxels_nm(Box.of_shape(context.geometry.crop.shape))
        start = (depth.start[0], *grown.start[1:])
        stop = (depth.stop[0], *grown.stop[1:])
        return {"labels": NmBox(start, stop), "activity": wanted}

    def visit(self, part: LabelPart, state: TileState) -> None:
        """Collect the voxels of cells."""
        if not part.again:
            state.scratch.setdefault("footprints", Footprints(_plan(state.context))).collect(part, state)

    def run(self, state: TileState) -> None:
        """Write the expected image of a frame, (channel, 1, y, x)."""
        state.labels.survey()
        footprints: Footprints = state.scratch["footprints"]
        state.write(EXPECTED, footprints.image(state, state.read(ACTIVITY), max(state.frame.time - 1, 0)))

    def tile_bytes(self, voxels: Box, context: RunContext) -> int:
        """Voxels of cells: cell, and place along three axes."""
        return voxels.size * 8


def _plan(context: RunContext) -> MiniscopePlan:
    assert context.imaging is not None
    assert isinstance(context.imaging.formation, MiniscopePlan)
    return context.imaging.formation
