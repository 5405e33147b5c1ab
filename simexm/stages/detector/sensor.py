"""What all detectors share: background, illumination, quantum efficiency, digitisation, and presets."""

from __future__ import annotations

import difflib
import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from simexm.errors import SpecError
from simexm.geometry.grid import Box
from simexm.kernels.detector.camera import DetectorLaw, PixelMaps, Profile
from simexm.kernels.numbers.detmath import exp_array, log
from simexm.random import derive_key
from simexm.settings import Frozen
from simexm.spectra.curves import CsvCurve, Curve, QuantumEfficiency, resolved_efficiency
from simexm.spectra.efficiency import ConstantEfficiency, CurveEfficiency, Efficiency
from simexm.stages.contract import EXPECTED, IMAGE, ImageCounts, Quantity, RunContext, TileState
from simexm.stages.detector.presets import PRESETS
from simexm.stages.frames import AXES
from simexm.stages.products import Product, image
from simexm.stages.roles import Detector, Microscope

Pixels = Annotated[int, Field(ge=1, le=100_000)]


class Illumination(Frozen):
    """Gaussian fall-off of light towards the edges of the detector's frame.

    Attributes
    ----------
    edge
        Light at the middle of the frame's edges relative to its centre.
    """

    edge: float = Field(gt=0, le=1)

    def profile(self, y: slice, x: slice, frame_pixels: tuple[int, int]) -> Profile:
        """Relative irradiance of a box of pixels."""
        axes = []
        for part, n in zip((y, x), frame_pixels, strict=True):
            place = (np.arange(part.start, part.stop) % n + 0.5) / n * 2 - 1
            axes.append(exp_array(log(self.edge) * place**2))
        return Profile(axes[0], axes[1])


class Electronics(NamedTuple):
    """How a detector amplifies and digitises; see `DetectorLaw`."""

    read_noise_e: float
    gain: float
    offset: float
    full_well_e: float = math.inf
    dead_share: float = 0.0
    pulse_variance: float = 0.0
    multiplication: float = 1.0
    register_e: float = math.inf


class Sensor(Detector):
    """A detector with a frame of pixels.

    Attributes
    ----------
    preset
        Name of a real device; its data-sheet figures are the defaults of all keys that are not given.
    quantum_efficiency
        Photo-electrons per photon that reaches the detector, a number or a curve over wavelength.
    autofluorescence_e
        Photo-electrons of the tissue itself per pixel and plane; follows the illumination profile, like the signal.
    stray_light_e, dark_e
        Photo-electrons per pixel and plane from stray light and dark current; independent of the profile.
    frame_pixels
        Rows and columns of the sensor, or of the scan. A larger image is tiled with frames from its corner.
    illumination
        Illumination profile over the frame; even by default.
    bits
        Counts end at 2^bits - 1.
    """

    preset: str | None = None
    quantum_efficiency: QuantumEfficiency = 0.7
    autofluorescence_e: float = Field(default=0.0, ge=0, le=1e6)
    stray_light_e: float = Field(default=0.0, ge=0, le=1e6)
    dark_e: float = Field(default=0.0, ge=0, le=1e6)
    frame_pixels: tuple[Pixels, Pixels] = (2048, 2048)
    illumination: Illumination | None = None
    bits: int = Field(default=16, ge=8, le=16)

    reads: ClassVar[tuple[Quantity, ...]] = (EXPECTED,)
    writes: ClassVar[tuple[Quantity, ...]] = (IMAGE,)

    # ---------------------------------------------------------------- presets and checks

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or not isinstance(data.get("preset"), str):
            return data
        return {**cls._preset(data["preset"], data), **data}

    @classmethod
    def _preset(cls, name: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """Figures of a preset of this kind of detector; ValueError if there is none."""
        kind = str(cls.model_fields["stage"].default)
        own = [n for n, preset in PRESETS.items() if preset.stage == kind]
        if name in own:
            return dict(PRESETS[name].figures)
        if name in PRESETS:
            raise ValueError(f"the preset {name!r} is no {kind}; write `stage: {PRESETS[name].stage}` for it")
        folded = {n.casefold(): n for n in own}
        near = [folded[n] for n in difflib.get_close_matches(name.casefold(), folded, n=2, cutoff=0.4)]
        hint = f"did you mean {' or '.join(near)}? All of them" if near else "they are"
        raise ValueError(
            f"there is no preset {name!r} of the stage {kind}; {hint}: {', '.join(own)}; or give its figures yourself"
        )

    @model_serializer(mode="wrap")
    def _with_figures(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Keep the figures of a preset even where they are the defaults, so that they outlive the preset."""
        data: dict[str, Any] = handler(self)
        for name in PRESETS[self.preset].figures if self.preset else ():
            value = getattr(self, name)
            data[name] = list(value) if isinstance(value, tuple) else value
        return data

    @model_validator(mode="after")
    def _range(self) -> Self:
        top, e = 2**self.bits - 1, self._electronics(None)
        if e.offset >= top:
            raise ValueError(
                f"offset_counts {e.offset:g} is not below {top}, the largest count of {self.bits} bits, so every pixel would "
                "be saturated; lower offset_counts or raise bits"
            )
        if e.full_well_e <= self.background_e:
            raise ValueError(
                f"full_well_e {e.full_well_e:g} is not above the background of {self.background_e:g} electrons, so every pixel "
                "would be saturated without any signal; raise full_well_e, or lower autofluorescence_e, stray_light_e, dark_e"
            )
        return self

    # ---------------------------------------------------------------- the role

    @abstractmethod
    def _electronics(self, pixel_time_s: float | None) -> Electronics:
        """Amplification and digitisation of a pixel that collects light for this time (None if unknown)."""

    @property
    def unlit_e(self) -> float:
        """Mean photo-electrons per pixel and plane that do not follow the illumination profile."""
        return self.stray_light_e + self.dark_e

    @property
    def efficiency(self) -> Efficiency:
        """See `Detector`."""
        given = self.quantum_efficiency
        if isinstance(given, float | int):
            return ConstantEfficiency(given)
        assert isinstance(given, Curve), "the curve has not been read"
        return CurveEfficiency(given)

    def curves_read(self, curves: Mapping[str, CsvCurve | Curve]) -> Self:
        """See `Detector`: that of the quantum efficiency."""
        if isinstance(self.quantum_efficiency, float | int):
            return self
        return self.model_copy(update={"quantum_efficiency": resolved_efficiency(self.quantum_efficiency, curves)})

    def resolved(self, curves: Mapping[str, CsvCurve | Curve]) -> Self:
        """See `Stage`."""
        return self.curves_read(curves)

    @property
    def frame(self) -> tuple[int, int]:
        """See `Detector`."""
        return self.frame_pixels

    @property
    def background_e(self) -> float:
        """See `Detector`."""
        return self.autofluorescence_e + self.unlit_e

    @property
    def saturation_e(self) -> float:
        """See `Detector`."""
        e = self._electronics(None)
        digital = (2**self.bits - 1 - e.offset) / e.gain
        return float(min(e.full_well_e, min(e.register_e, digital) / e.multiplication))

    def electrons(self, counts: NDArray[Any], pixels: Box, context: RunContext) -> NDArray[np.float64]:
        """See `Detector`."""
        e, maps = self._electronics(context.pixel_time_s), self.pixel_maps(pixels, context.seed)
        gain, offset = (maps.gain, maps.offset) if maps else (e.gain, e.offset)
        found = (counts.astype(np.float64) - offset) / gain / e.multiplication
        return np.asarray(found / np.maximum(1.0 - found * e.dead_share, 1e-3))

    def noise_e(self, mean_e: float, context: RunContext) -> float:
        """See `Detector`; with a dead time, that of the corrected counts (Feller's renewal law, many pulses)."""
        e, mean = self._electronics(context.pixel_time_s), max(mean_e, 0.0)
        shot = mean * (1.0 + e.pulse_variance) * (1.0 + mean * e.dead_share)
        return math.sqrt(shot + (e.read_noise_e / e.multiplication) ** 2)

    def describe(self) -> dict[str, Any]:
        """See `Detector`."""
        return {key: value for key, value in self.model_dump(mode="json").items() if value is not None}

    def check(self, microscope: Microscope) -> None:
        """See `Detector`."""
        most = PRESETS[self.preset].frames_per_s if self.preset else None
        if most is not None and microscope.frame_rate_hz is not None and microscope.frame_rate_hz > most:
            raise SpecError(
                f"{self.tag}: the sensor of {self.preset} gives at most {most:g} frames per second, not "
                f"{microscope.frame_rate_hz:g}; lower frames_per_s"
            )
        e = self._electronics(microscope.pixel_time_s)
        if e.dead_share >= 1:
            raise SpecError(
                f"{self.tag}: a dead time of {e.dead_share:.3g} times the time of a pixel would let at most one pulse through; "
                "lower dead_time_ns, or raise the microscope's dwell_us"
            )

    # ---------------------------------------------------------------- the stage

    @property
    def varies(self) -> frozenset[str]:
        """Every frame axis: noise differs in each frame."""
        return frozenset(AXES)

    def products(self, context: RunContext) -> tuple[Product, ...]:
        """The image."""
        return (image(IMAGE.name, context.channels, IMAGE.dtype, IMAGE.unit, float(2**self.bits - 1)),)

    def pixel_maps(self, pixels: Box, seed: int) -> PixelMaps | None:
        """Properties of each pixel of a box; None if all are alike."""
        return None

    def run(self, state: TileState) -> None:
        """Write the counts of the tile, uint16, (channel, z, y, x), and tally their histogram."""
        expected: Any = state.read(EXPECTED)
        device = state.device
        counts = device.zeros(expected.shape, np.uint16)
        rows, columns = expected.shape[2:]
        profile = Profile(np.ones(rows), np.ones(columns))
        if self.illumination is not None:
            profile = self.illumination.profile(*state.pixels.slices[1:], self.frame_pixels)
        if "maps" not in state.scratch:
            state.scratch["maps"] = self.pixel_maps(state.pixels, state.context.seed)
        for c, name in enumerate(state.context.channels):
            found = device.draw_counts(
                expected[c, ...],
                state.pixels.start,
                self._law(state, name),
                profile,
                state.scratch["maps"],
                counts[c, ...],
            )
            state.tally.images.append(ImageCounts(*found))
        state.write(IMAGE, counts)

    def _law(self, state: TileState, channel: str) -> DetectorLaw:
        shot, multiply, read = (
            derive_key(state.context.seed, "camera", channel, part, *state.frame.key)
            for part in ("shot", "multiply", "read")
        )
        e = self._electronics(state.context.pixel_time_s)
        return DetectorLaw(
            lit_e=self.autofluorescence_e,
            dark_e=self.unlit_e,
            full_well_e=e.full_well_e,
            dead_share=e.dead_share,
            pulse_variance=e.pulse_variance,
            multiplication=e.multiplication,
            register_e=e.register_e,
            read_noise_e=e.read_noise_e,
            gain=e.gain,
            offset=e.offset,
            top=float(2**self.bits - 1),
            shot=shot,
            multiply=multiply,
            read=read,
        )
