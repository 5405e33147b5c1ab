"""An sCMOS camera, each of whose pixels has an amplifier of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from simexm.geometry.grid import Box, triple
from simexm.kernels.detector.camera import PixelMaps
from simexm.kernels.numbers.detmath import exp_array, log, log_array
from simexm.kernels.numbers.fields import normal_field
from simexm.random import derive_key, philox_array, unit_double_array
from simexm.spectra.curves import CsvCurve, Curve, QuantumEfficiency
from simexm.stages.contract import RunContext
from simexm.stages.detector.map_file import MapFile
from simexm.stages.detector.sensor import Electronics, Sensor

Floats = NDArray[np.float64]
_REPLACED = {
    "gain_map": ("gain_spread",),
    "offset_map": ("offset_spread_e",),
    "read_noise_map": ("read_noise_median_e",),
}


class Scmos(Sensor):
    """A camera whose pixels differ in gain, offset and read noise, the same in every plane and frame.

    The maps are drawn by the seed and the pixel's place in the frame, or measured ones are read from files (Huang et al.,
    Nat. Methods 10, 653, 2013). The read noise of pixels is lognormal, with the long tail that such cameras have. The
    defaults are those of a Hamamatsu ORCA-Flash4.0 V3.

    Attributes
    ----------
    full_well_e
        Photo-electrons that a pixel holds, at most.
    read_noise_e
        Read noise, electrons, root mean square over all pixels.
    read_noise_median_e
        Read noise of the median pixel; at most `read_noise_e`. Empty: all pixels alike.
    gain_counts_per_e, offset_counts
        Mean gain and offset: counts = gain * electrons + offset.
    gain_spread
        Standard deviation of the pixels' gain relative to its mean (photo response non-uniformity).
    offset_spread_e
        Standard deviation of the pixels' offset, electrons (dark signal non-uniformity).
    hot_pixel_share, hot_pixel_e
        Share of hot pixels, and the mean of their further dark electrons per plane, exponentially distributed.
    gain_map, offset_map, read_noise_map
        Files of measured maps, TIFF or NPY, rows and columns as `frame_pixels`: counts per electron, counts, electrons.
        They replace what would be drawn.
    """

    stage: Literal["scmos"] = "scmos"
    quantum_efficiency: QuantumEfficiency = 0.82
    full_well_e: float = Field(default=30_000, gt=0, le=1e9)
    read_noise_e: float = Field(default=1.6, ge=0, le=1e4)
    read_noise_median_e: float | None = Field(default=1.0, gt=0, le=1e4)
    gain_counts_per_e: float = Field(default=2.2, gt=0, le=1e4)
    offset_counts: float = Field(default=100.0, ge=0, le=65535)
    gain_spread: float = Field(default=0.0006, ge=0, le=0.2)
    offset_spread_e: float = Field(default=0.3, ge=0, le=1e4)
    hot_pixel_share: float = Field(default=0.0, ge=0, le=0.5)
    hot_pixel_e: float = Field(default=0.0, ge=0, le=1e6)
    gain_map: MapFile | None = None
    offset_map: MapFile | None = None
    read_noise_map: MapFile | None = None

    @model_validator(mode="after")
    def _pixels(self) -> Self:
        median = self.read_noise_median_e
        if median is not None and self.read_noise_e < median and not self.read_noise_map:
            raise ValueError(
                f"read_noise_median_e {median:g} is above read_noise_e {self.read_noise_e:g}, the root mean square over the "
                "pixels, and a long tail has it the other way round; lower the median, or leave it empty for pixels alike"
            )
        if (self.hot_pixel_share > 0) != (self.hot_pixel_e > 0):
            raise ValueError(
                "hot_pixel_share and hot_pixel_e belong together: without the other one there would be no hot pixel; give both"
            )
        for name, drawn in _REPLACED.items():
            both = [key for key in drawn if key in self.model_fields_set and not self.preset]
            if getattr(self, name) is not None and both:
                raise ValueError(
                    f"{name} replaces the drawn map, so {both[0]} would have no effect; remove one of them"
                )
        return self

    def _electronics(self, pixel_time_s: float | None) -> Electronics:
        return Electronics(self.read_noise_e, self.gain_counts_per_e, self.offset_counts, self.full_well_e)

    def resolved(self, curves: Mapping[str, CsvCurve | Curve]) -> Self:
        """See `Stage`; its files are the maps and the curve."""
        files = {name: getattr(self, name) for name in _REPLACED}
        return (
            super()
            .resolved(curves)
            .model_copy(
                update={
                    name: file.resolved(f"{self.tag}.{name}", self.frame_pixels, positive=name == "gain_map")
                    for name, file in files.items()
                    if file is not None
                }
            )
        )

    def pixel_maps(self, pixels: Box, seed: int) -> PixelMaps:
        """See `Sensor`; drawn for the part of the frame that the box covers, then repeated."""
        part, rows, columns = self._part(pixels)

        def normal(what: str) -> Floats:
            field = normal_field((1, *part.shape[1:]), *part.start, derive_key(seed, "detector", what))
            return np.asarray(field[0])

        def mapped(file: MapFile | None, drawn: Callable[[], Floats | float]) -> NDArray[np.float32]:
            made = drawn() if file is None else file.read(self.frame_pixels)[part.slices[1:]]
            return np.broadcast_to(np.asarray(made, np.float32), part.shape[1:])[np.ix_(rows, columns)]

        return PixelMaps(
            mapped(None, lambda: self._hot_e(part, seed)),
            mapped(self.read_noise_map, lambda: self._read_noise_e(normal)),
            mapped(
                self.gain_map,
                lambda: self.gain_counts_per_e * (1.0 + self.gain_spread * np.clip(normal("gain"), -4.0, 4.0)),
            ),
            mapped(
                self.offset_map,
                lambda: self.offset_counts + self.gain_counts_per_e * self.offset_spread_e * normal("offset"),
            ),
        )

    def _part(self, pixels: Box) -> tuple[Box, NDArray[np.int64], NDArray[np.int64]]:
        """Part of the frame that a box covers, and the row and column in it of each of its pixels."""
        starts, ends, places = [0], [1], []
        for side, n in zip(pixels.slices[1:], self.frame_pixels, strict=True):
            place = np.arange(side.start, side.stop) % n
            starts.append(int(place.min()))
            ends.append(int(place.max()) + 1)
            places.append(place - starts[-1])
        return Box(triple(starts), triple(ends)), places[0], places[1]

    def _read_noise_e(self, normal: Callable[[str], Floats]) -> Floats | float:
        """Lognormal: median * exp(s * normal number), whose root mean square is median * exp(s**2)."""
        median = self.read_noise_median_e
        if median is None or median == self.read_noise_e:
            return self.read_noise_e
        spread = math.sqrt(log(self.read_noise_e / median))
        return np.asarray(median * exp_array(spread * normal("read noise")))

    def _hot_e(self, part: Box, seed: int) -> Floats | float:
        if not self.hot_pixel_share:
            return 0.0
        y, x = (np.arange(s.start, s.stop) for s in part.slices[1:])
        words = philox_array(0, y[:, None], x[None, :], 0, derive_key(seed, "detector", "hot"))
        hot = unit_double_array(words[0], words[1]) < self.hot_pixel_share
        return np.asarray(np.where(hot, -self.hot_pixel_e * log_array(unit_double_array(words[2], words[3])), 0.0))

    def tile_bytes(self, voxels: Box, context: RunContext) -> int:
        """The maps, the numbers from which they are drawn, and files as a whole."""
        g = context.geometry
        scale = float(g.transform.scale)
        sides = (
            n * float(v) * scale / float(p) + 2 for n, v, p in zip(voxels.shape, g.voxel_nm, g.pixel_nm, strict=True)
        )
        _, rows, columns = sides
        files = sum(getattr(self, name) is not None for name in _REPLACED)
        return int(160 * rows * columns) + 8 * files * math.prod(self.frame_pixels)
