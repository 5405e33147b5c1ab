"""The detector: from expected photo-electrons to counts, with shot and read noise."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from simexm.kernels.detector.camera import Detector, Profile
from simexm.kernels.numbers.detmath import exp_array, log
from simexm.random import derive_key
from simexm.settings import Frozen
from simexm.stages.contract import EXPECTED, IMAGE, ImageCounts, Quantity, RunContext, Stage, TileState
from simexm.stages.frames import AXES
from simexm.stages.products import Product, image


class Illumination(Frozen):
    """Gaussian fall-off of light towards the edges of the camera frame.

    Attributes
    ----------
    frame_pixels
        Rows and columns of the frame. A larger image is tiled with frames from its corner.
    edge
        Light at the middle of the frame's edges relative to its centre.
    """

    frame_pixels: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]
    edge: float = Field(gt=0, le=1)

    def profile(self, y: slice, x: slice) -> Profile:
        """Relative irradiance of a box of pixels."""
        axes = []
        for part, n in zip((y, x), self.frame_pixels, strict=True):
            place = (np.arange(part.start, part.stop) % n + 0.5) / n * 2 - 1
            axes.append(exp_array(log(self.edge) * place**2))
        return Profile(axes[0], axes[1])


class Camera(Stage):
    """Shot noise of signal and background, read noise, gain, offset, bits.

    Attributes
    ----------
    autofluorescence_e
        Photo-electrons of the tissue itself per pixel and plane; follows the illumination profile, like the signal.
    stray_light_e, dark_e
        Photo-electrons per pixel and plane from stray light and dark current; independent of the profile.
    illumination
        Illumination profile over the frame; even by default.
    read_noise_e
        Standard deviation of the read noise, electrons.
    excess_noise
        Variance of the multiplied signal over that of the electrons: 1 for a camera, about 1.2 for a photomultiplier, 2
        for an EMCCD. The excess is drawn as Gaussian.
    gain_counts_per_e, offset_counts, bits
        counts = gain * electrons + offset, clipped to 0 ... 2^bits - 1.
    """

    stage: Literal["camera"] = "camera"
    autofluorescence_e: float = Field(default=0.0, ge=0, le=1e6)
    stray_light_e: float = Field(default=0.0, ge=0, le=1e6)
    dark_e: float = Field(default=0.0, ge=0, le=1e6)
    illumination: Illumination | None = None
    read_noise_e: float = Field(default=1.5, ge=0, le=1e4)
    excess_noise: float = Field(default=1.0, ge=1, le=4)
    gain_counts_per_e: float = Field(default=1.0, gt=0, le=1e4)
    offset_counts: float = Field(default=100.0, ge=0, le=65535)
    bits: int = Field(default=16, ge=8, le=16)

    reads: ClassVar[tuple[Quantity, ...]] = (EXPECTED,)
    writes: ClassVar[tuple[Quantity, ...]] = (IMAGE,)

    @property
    def varies(self) -> frozenset[str]:
        """Every frame axis: noise differs in each frame."""
        return frozenset(AXES)

    def products(self, context: RunContext) -> tuple[Product, ...]:
        """The image."""
        return (image(IMAGE.name, context.channels, IMAGE.dtype, IMAGE.unit, float(2**self.bits - 1)),)

    def run(self, state: TileState) -> None:
        """Write the counts of the tile, uint16, (channel, z, y, x), and tally their histogram."""
        expected: Any = state.read(EXPECTED)
        device = state.device
        counts = device.zeros(expected.shape, np.uint16)
        rows, columns = expected.shape[2:]
        profile = Profile(np.ones(rows), np.ones(columns))
        if self.illumination is not None:
            profile = self.illumination.profile(*state.pixels.slices[1:])
        for c, name in enumerate(state.context.channels):
            found = device.draw_counts(
                expected[c, ...], state.pixels.start, self._detector(state, name), profile, counts[c, ...]
            )
            state.tally.images.append(ImageCounts(*found))
        state.write(IMAGE, counts)

    def _detector(self, state: TileState, channel: str) -> Detector:
        shot, read, excess = (
            derive_key(state.context.seed, "camera", channel, part, *state.frame.key)
            for part in ("shot", "read", "excess")
        )
        return Detector(
            self.autofluorescence_e,
            self.stray_light_e + self.dark_e,
            self.read_noise_e,
            self.excess_noise,
            self.gain_counts_per_e,
            self.offset_counts,
            float(2**self.bits - 1),
            shot,
            read,
            excess,
        )
