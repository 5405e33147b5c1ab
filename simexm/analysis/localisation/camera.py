"""Electrons from counts, and their noise, by the camera of a movie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from simexm.analysis.localisation.frames import Frames, Movie
from simexm.errors import OutputError
from simexm.geometry.grid import Box
from simexm.settings import Frozen
from simexm.stages.contract import RunContext
from simexm.stages.detector.map_file import MapFile
from simexm.stages.detector.sensor import Sensor


class FrameCamera(Frozen):
    """The camera that took the frames.

    Attributes
    ----------
    gain_counts_per_e, offset_counts
        counts = gain * photo-electrons + offset. Of a multiplying camera the gain of the register is included.
    read_noise_e
        Standard deviation of the read noise, photo-electrons: of a multiplying camera over the gain of its register.
    multiplies
        Whether electrons are multiplied (EMCCD), which doubles the variance.
    gain_map, offset_map, read_noise_map
        Files of measured maps, TIFF or NPY, as large as the frames, of an sCMOS.
    """

    gain_counts_per_e: float = Field(default=1.0, gt=0, le=1e5)
    offset_counts: float = Field(default=0.0, ge=-1e6, le=1e6)
    read_noise_e: float = Field(default=0.0, ge=0, le=1e4)
    multiplies: bool = False
    gain_map: MapFile | None = None
    offset_map: MapFile | None = None
    read_noise_map: MapFile | None = None

    def noise(self, pixels: tuple[int, int]) -> Noise:
        """For frames of so many rows and columns."""

        def mapped(name: str, value: float) -> NDArray[np.float64]:
            file: MapFile | None = getattr(self, name)
            if file is None:
                return np.full(pixels, value)
            return np.asarray(file.resolved(f"camera.{name}", pixels, positive=name == "gain_map").read(pixels), float)

        gain = mapped("gain_map", self.gain_counts_per_e)
        offset = mapped("offset_map", self.offset_counts)
        read = mapped("read_noise_map", self.read_noise_e).astype(np.float32) ** 2
        return Noise(_ByMaps(gain.astype(np.float32), offset.astype(np.float32)), read, 1.0 + self.multiplies)


class _ByMaps(NamedTuple):
    gain: NDArray[np.float32]
    offset: NDArray[np.float32]

    def __call__(self, counts: Frames) -> Frames:
        found: Frames = (counts - self.offset) / self.gain
        return found


@dataclass(frozen=True)
class _BySensor:
    """The camera of a simulation."""

    sensor: Sensor
    pixels: Box
    context: RunContext

    def __call__(self, counts: Frames) -> Frames:
        found = self.sensor.electrons(counts, self.pixels, self.context)
        return np.ascontiguousarray(found, np.float32)


class Noise(NamedTuple):
    """Conversion of counts to electrons; the variance of electrons is `excess` * mean + `read_variance` (y, x)."""

    electrons: _ByMaps | _BySensor
    read_variance: NDArray[np.float32]
    excess: float

    @classmethod
    def of(cls, movie: Movie, given: FrameCamera | None) -> Self:
        """Of the camera that was `given`, or of the simulation; raises OutputError if it is unknown, or known twice."""
        if movie.result is None:
            if given is None:
                raise OutputError(
                    f"{movie.path} does not say how its counts follow from photo-electrons, so photons and precision would be "
                    "guesses; set camera: {gain_counts_per_e: ..., offset_counts: ..., read_noise_e: ...} in --settings"
                )
            return cls(*given.noise((movie.shape[1], movie.shape[2])))
        if given is not None:
            raise OutputError(f"{movie.path} knows its own camera; leave the setting camera out")
        context, sensor = movie.plan.context, movie.plan.simulation.detector
        if movie.result.provenance["quantity"] != "image" or not isinstance(sensor, Sensor):
            raise OutputError(
                f"{movie.path} holds no counts of a camera, and the fit needs their noise; run the spec to its end"
            )
        pixels = Box((0, 0, 0), (1, movie.shape[1], movie.shape[2]))
        maps = sensor.pixel_maps(pixels, context.seed)
        base = sensor.noise_e(0.0, context) ** 2
        read = np.full(pixels.shape[1:], base, np.float32)
        if maps is not None:
            read = maps.read_noise_e.astype(np.float32) ** 2
        return cls(_BySensor(sensor, pixels, context), read, sensor.noise_e(1.0, context) ** 2 - base)
