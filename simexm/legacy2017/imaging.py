"""Imaging of the 2017 program: photons per voxel, kernel, background, camera.

It reproduces that program's images, not physics: noise is drawn before the blur, brightness depends on the voxel size, and
spacings are rounded to whole voxels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from fractions import Fraction
from functools import lru_cache
from typing import ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from simexm.errors import SpecError
from simexm.geometry.geometry import Geometry
from simexm.geometry.grid import Box, NmBox, Spacing, Triple, exact, exact3, three
from simexm.geometry.transform import Transform, UniformExpansion
from simexm.kernels.detector.camera import cut, quarter_octaves
from simexm.legacy2017 import spectra
from simexm.legacy2017.imaging_plan import Cost2017, Description2017, Formation2017
from simexm.legacy2017.kernels import blur as simexm2017_blur
from simexm.legacy2017.kernels import frame as simexm2017_frame
from simexm.legacy2017.kernels import light, psf
from simexm.legacy2017.labelling import FLUOROPHORES
from simexm.random import derive_key
from simexm.spectra.efficiency import Efficiency
from simexm.spectra.fluorophores import Fluorophore
from simexm.stages.contract import ImageCounts, Quantity, RunContext, TileState
from simexm.stages.frames import AXES
from simexm.stages.microscope.optics_plan import Channel
from simexm.stages.products import Product, image
from simexm.stages.roles import MOST_CHANNELS, ImagingPlan, Microscope, Pair

COUNTS = Quantity("image", "czyx", "counts before scaling to 8 bits", "uint32")
LARGEST_COUNT = 2**32 - 1


class Channel2017(Channel):
    """A channel of the 2017 program.

    Attributes
    ----------
    laser_power_W, laser_percentage
        Power of the laser, and the share that is used.
    """

    laser_power_W: float = Field(default=50.0, gt=0)
    laser_percentage: float = Field(default=0.25, ge=0, le=1)

    @model_validator(mode="after")
    def _simple(self) -> Self:
        for key in ("source", "excitation_filter", "emission_filter", "dichroic"):
            if getattr(self, key) is not None:
                raise ValueError(
                    f"channel {self.name!r} has {key}, but the program of 2017 knew lasers and bands only; give "
                    "laser_wavelength_nm and band_nm"
                )
        return self


class Imaging2017(Microscope):
    """The microscope and camera of the 2017 program; the image holds its counts before scaling to 8 bits.

    Attributes
    ----------
    microscope
        Kernel of the `psf` package: confocal, widefield (a scanner with an open pinhole), two_photon.
    expansion_factor
        Linear expansion.
    numerical_aperture, refractive_index
        Of the objective and of the gel.
    focal_plane_depth_nm
        Spacing of the focal planes in expanded space, rounded to whole planes of voxels.
    objective_back_aperture_m, objective_factor
        Their ratio is the laser's radius; the factor is also the magnification.
    exposure_s, objective_efficiency, detector_efficiency
        Exposure time, and the shares of the light that the objective transmits and the detector counts.
    camera_pixel_nm
        Pixel of the camera; divided by `objective_factor`, the pixel in expanded space.
    pinhole_radius_um
        Radius of the pinhole on the camera's side.
    baseline_photons
        Mean background of a voxel in the middle of the frame.
    channels
        Lasers and bands.
    """

    stage: Literal["simexm2017_imaging"] = "simexm2017_imaging"
    microscope: Literal["confocal", "widefield", "two_photon"] = "confocal"
    expansion_factor: float = Field(default=4.0, ge=1, le=100)
    numerical_aperture: float = Field(gt=0, le=2)
    refractive_index: float = Field(gt=0, le=3)
    focal_plane_depth_nm: float = Field(gt=0)
    objective_back_aperture_m: float = Field(default=1.0, gt=0)
    objective_factor: float = Field(gt=0)
    exposure_s: float = Field(gt=0)
    objective_efficiency: float = Field(ge=0, le=1)
    detector_efficiency: float = Field(ge=0, le=1)
    camera_pixel_nm: float = Field(gt=0)
    pinhole_radius_um: float = Field(default=50.0, ge=0)
    baseline_photons: float = Field(default=0.0, ge=0)
    channels: tuple[Channel2017, ...] = Field(min_length=1, max_length=MOST_CHANNELS)

    reads: ClassVar[tuple[Quantity, ...]] = (FLUOROPHORES,)
    writes: ClassVar[tuple[Quantity, ...]] = (COUNTS,)

    @model_validator(mode="after")
    def _sane(self) -> Self:
        if self.numerical_aperture >= self.refractive_index:
            raise ValueError(
                f"numerical_aperture {self.numerical_aperture:g} is not below refractive_index {self.refractive_index:g}: "
                "no light leaves the gel at such an angle; lower the aperture, or correct the index"
            )
        names = [c.name.lower() for c in self.channels]
        double = sorted(n for n, count in Counter(names).items() if count > 1)
        if double:
            raise ValueError(f"two channels are named {', '.join(double)}; give each its own name")
        return self

    def transform(self, frame: Mapping[str, int] | None = None) -> UniformExpansion:
        """Expansion by the exact decimal factor."""
        return UniformExpansion(exact(self.expansion_factor))

    @property
    def varies(self) -> frozenset[str]:
        """Noise differs from frame to frame."""
        return frozenset(AXES)

    def products(self, context: RunContext) -> tuple[Product, ...]:
        """The image."""
        return (image(COUNTS.name, context.channels, COUNTS.dtype, COUNTS.unit, float(LARGEST_COUNT)),)

    @property
    def all_channels(self) -> tuple[Channel2017, ...]:
        """The channels, in order."""
        return self.channels

    def mean_photons(self, channel: Channel2017, dye: str) -> float:
        """Mean photons of one fluorophore in one channel, by the 2017 program's formula."""
        return spectra.mean_photons(
            spectra.find(dye),
            channel.excitation_nm,
            channel.laser_power_W * channel.laser_percentage,
            channel.passes_nm,
            self.exposure_s,
            self.objective_back_aperture_m / self.objective_factor,
            self.objective_efficiency,
            self.detector_efficiency,
        )

    @property
    def _kind(self) -> spectra.Microscope:
        """Name of the microscope in the kernels."""
        return "two photon" if self.microscope == "two_photon" else self.microscope

    def check(self, dyes: Mapping[str, Fluorophore], factor: float, efficiency: Efficiency) -> None:
        """Refuse pairs for which the `psf` package has no kernel."""
        for channel in self.channels:
            for dye in dyes:
                if self.mean_photons(channel, dye) > 0:
                    spectra.check_pair(self._kind, channel.name, channel.excitation_nm, spectra.find(dye))

    def geometry(
        self, volume: Triple, crop: Box, voxel_nm: Spacing, origin_nm: Spacing, transform: Transform
    ) -> Geometry:
        """The image's grid: bins of whole voxels, or whole fractions of them; plane j is voxel plane j * step."""
        factor = transform.scale
        frame = self._frame(voxel_nm)
        z, y, x = voxel_nm
        lateral = Fraction(frame.bin, frame.scatter)
        pixel = exact3((z * frame.step * factor, y * lateral * factor, x * lateral * factor))
        phase = exact3((z * Fraction(1 - frame.step, 2), Fraction(0), Fraction(0)))
        return Geometry(volume, crop, voxel_nm, origin_nm, transform, pixel, phase, frame.shape(crop.shape))

    def _frame(self, voxel_nm: Spacing) -> simexm2017_frame.Frame:
        spacings = self.camera_pixel_nm, self.objective_factor, self.focal_plane_depth_nm
        return simexm2017_frame.frame(three(map(float, voxel_nm)), self.expansion_factor, *spacings)

    def resolve(self, dyes: Mapping[str, Fluorophore], geometry: Geometry, efficiency: Efficiency) -> ImagingPlan:
        """Find the pairs of dye and channel with any light; `detector_efficiency` is the model's own."""
        means = {(c.name, d): self.mean_photons(c, d) for c in self.channels for d in dyes}
        pairs = tuple(Pair(c, d, spectra.find(d).emission_peak_nm, m) for (c, d), m in means.items() if m > 0)
        if not pairs:
            raise SpecError(
                "no channel detects any of the dyes in use, so the image would be only background; match laser_wavelength and "
                f"laser_filter of {', '.join(c.name for c in self.channels)} to {', '.join(dyes)}"
            )
        formation = Formation2017(self._frame(geometry.voxel_nm), pairs)
        return ImagingPlan(formation, Cost2017(formation), Description2017(formation))

    # ---------------------------------------------------------------- a tile

    def needs(self, wanted: NmBox, context: RunContext) -> dict[str, NmBox]:
        """The voxels within the kernel's reach; at the border, those that are reflected there."""
        g = context.geometry
        box = self._voxels(_pixels_of(wanted, g), context)
        return {"fluorophores": g.voxels_nm(box)}

    def _voxels(self, pixels: Box, context: RunContext) -> Box:
        """Voxels that the pixels depend on, counted from the specimen's corner."""
        frame = _formation(context).frame
        depth, height, width = context.geometry.crop.shape
        z = (pixels.start[0] * frame.step, (pixels.stop[0] - 1) * frame.step + 1)
        y = frame.voxels(pixels.start[1], pixels.stop[1], height)
        x = frame.voxels(pixels.start[2], pixels.stop[2], width)
        (z0, z1), (y0, y1), (x0, x1) = (
            simexm2017_blur.source_range(*axis, n) for axis, n in zip((z, y, x), (depth, height, width), strict=True)
        )
        return Box((z0, y0, x0), (z1, y1, x1))

    def run(self, state: TileState) -> None:
        """Write the tile's counts, uint32, (channel, z, y, x), and their histogram."""
        box, volumes = state.read(FLUOROPHORES)
        counts = np.empty((len(self.channels), *state.pixels.shape), np.uint32)
        for c, channel in enumerate(self.channels):
            clipped = 0
            for plane, photons in enumerate(self._planes(channel, box, volumes, state)):
                clipped += int(cut(photons, LARGEST_COUNT, counts[c, plane]))
            state.tally.images.append(ImageCounts(clipped, quarter_octaves(counts[c])))
        state.write(COUNTS, counts)

    def _planes(
        self, channel: Channel2017, box: Box, volumes: Mapping[str, NDArray[np.int32]], state: TileState
    ) -> Iterator[NDArray[np.int64]]:
        """The tile's planes of pixels in one channel."""
        context, pixels = state.context, state.pixels
        formation, crop = _formation(context), context.geometry.crop
        frame = formation.frame
        depth, height, width = crop.shape
        wanted = range(pixels.start[0] * frame.step, (pixels.stop[0] - 1) * frame.step + 1, frame.step)
        rows = frame.voxels(pixels.start[1], pixels.stop[1], height)
        columns = frame.voxels(pixels.start[2], pixels.stop[2], width)
        inner = (rows[1] - rows[0], columns[1] - columns[0])

        def key(*purpose: str) -> tuple[int, int]:
            return derive_key(context.seed, self.stage, channel.name, *purpose, *state.frame.key)

        def blurred(pair: Pair) -> Iterator[tuple[int, NDArray[np.int64]]]:
            blur = simexm2017_blur.Blur(self._kernel(pair, context), (*rows, height), (*columns, width))
            (y0, y1), (x0, x1) = blur.source
            y_from, x_from = crop.start[1] + y0 - box.start[1], crop.start[2] + x0 - box.start[2]
            part = volumes[pair.dye][:, y_from : y_from + y1 - y0, x_from : x_from + x1 - x0]
            stream = key(pair.dye, "photons")

            def photons(z: int) -> NDArray[np.int64]:
                at = crop.start[0] + z
                origin = (at, crop.start[1] + y0, crop.start[2] + x0)
                return light.photons(np.ascontiguousarray(part[at - box.start[0]]), origin, pair.in_focus, stream)

            return blur.planes(photons, depth, wanted)

        streams = [blurred(pair) for pair in formation.pairs if pair.channel == channel.name]
        spans = (pixels.start[1], pixels.stop[1]), (pixels.start[2], pixels.stop[2])
        by_row = light.vignette(height, *rows)
        by_column = light.vignette(width, *columns)
        for z in wanted:
            image = np.zeros(inner, np.int64)
            for stream in streams:
                image += next(stream)[1]
            origin = (crop.start[0] + z, crop.start[1] + rows[0], crop.start[2] + columns[0])
            light.add_background(self.baseline_photons, by_row, by_column, origin, key("background"), image)
            yield simexm2017_frame.sample(image, origin, (*crop.start[1:], height, width), frame, *spans, key("camera"))

    def _kernel(self, pair: Pair, context: RunContext) -> psf.Kernel:
        channel = next(c for c in self.channels if c.name == pair.channel)
        wavelengths_nm = channel.excitation_nm, pair.emission_nm
        optics = self.numerical_aperture, self.refractive_index, self.pinhole_radius_um / self.objective_factor
        voxel_nm = three(map(float, context.geometry.voxel_nm))
        return _kernel(self._kind, voxel_nm, self.expansion_factor, *wavelengths_nm, *optics)


@lru_cache(maxsize=64)
def _kernel(
    microscope: spectra.Microscope,
    voxel_nm: tuple[float, float, float],
    factor: float,
    excitation_nm: float,
    emission_nm: float,
    na: float,
    n: float,
    pinhole_um: float,
) -> psf.Kernel:
    volume = psf.kernel_volume(microscope, voxel_nm, factor, excitation_nm, emission_nm, na, n, pinhole_um)
    return psf.quantised(volume)


def _formation(context: RunContext) -> Formation2017:
    assert context.imaging is not None
    assert isinstance(context.imaging.formation, Formation2017)
    return context.imaging.formation


def _pixels_of(wanted: NmBox, g: Geometry) -> Box:
    """The pixels of a box in expanded space."""
    start, stop = (
        three(
            int((place / g.transform.scale - phase) * g.transform.scale / pixel)
            for place, phase, pixel in zip(corner, g.phase_nm, g.pixel_nm, strict=True)
        )
        for corner in (wanted.start, wanted.stop)
    )
    return Box(start, stop)
