"""Draw three orthogonal views through the middle of an image, in true proportions, with a scale bar."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.geometry.grid import Triple, three, triple
from simexm.result.result import Result, elements
from simexm.view.picture import id_colors, merged, round_down
from simexm.view.report.ink import png

LARGEST = 640
"""Most elements along an axis of the level that is drawn, and pixels of the picture's longest side."""
_GAP = 6
_OVERLAY = 0.45

Sections = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]
"""Of channels, or of ids: the plane (y, x), the section along x (z, x), the section along y (y, z)."""


@dataclass(frozen=True)
class Drawn:
    """A picture of three views."""

    name: str
    href: str  # data URI
    width: int
    height: int
    rows: int  # of the plane
    bar: float  # length of the scale bar, pixels
    bar_um: float  # the same in tissue
    expanded_um: float  # the same in expanded tissue
    color: str = ""  # of the channel, RRGGBB


@dataclass(frozen=True)
class Sheet:
    """Layout of three views: the plane, below it the section along x, to its right the section along y."""

    shape: Triple  # elements along z, y, x
    element_um: tuple[float, float, float]  # size of an element in tissue
    factor: float = 1.0  # of expansion

    def _pixels(self) -> tuple[int, int, int]:
        """Pixels of the picture along z, y, x."""
        extent = [n * e for n, e in zip(self.shape, self.element_um, strict=True)]
        return three(max(1, round(LARGEST * e / max(extent))) for e in extent)

    def drawn(self, name: str, part: Callable[[int], NDArray[np.float64]], color: str = "") -> Drawn:
        """Draw the sections that `part` returns, RGB, by their number in `Sections`."""
        z, y, x = self._pixels()
        sheet = np.zeros((y + _GAP + z, x + _GAP + z, 4))  # transparent between the views and in the corner
        sheet[:y, :x] = _opaque(_stretched(part(0), (y, x)))
        sheet[y + _GAP :, :x] = _opaque(_stretched(part(1), (z, x)))
        sheet[:y, x + _GAP :] = _opaque(_stretched(part(2), (y, z)))
        return self._finished(name, sheet, color)

    def plane(self, name: str, image: NDArray[np.float64]) -> Drawn:
        """Draw the plane alone."""
        return self._finished(name, _stretched(image, self._pixels()[1:]), "")

    def _finished(self, name: str, sheet: NDArray[np.float64], color: str) -> Drawn:
        width_um = self.shape[2] * self.element_um[2]
        bar = round_down(width_um / 4)
        _, rows, columns = self._pixels()
        pixels = columns * bar / width_um
        return Drawn(name, png(sheet), sheet.shape[1], sheet.shape[0], rows, pixels, bar, bar * self.factor, color)


@dataclass(frozen=True)
class Views:
    """A level of a result, to be drawn."""

    result: Result
    level: int
    element_um: tuple[float, float, float]  # size of the level's elements in tissue
    windows: Sequence[tuple[float, float]]  # display window of each channel

    @classmethod
    def of(cls, result: Result, largest: int = LARGEST) -> Views:
        """Choose the finest level that is no larger than the page needs."""
        level = 0
        while max(result.array(level).shape[1:]) > largest and level + 1 < result.levels():
            level += 1
        return cls(result, level, result.pixel_um(level), result.windows)

    def image(self, channel: int) -> Sections:
        """Read the three sections of a channel."""
        return _sections(self.result.array(self.level), channel)

    def all(self) -> list[Drawn]:
        """Draw all channels together, the same under the true cells, and each channel."""
        channels = self.result.channels
        data = [self.image(c) for c in range(len(channels))]
        colors = [c["color"] for c in channels]

        def together(part: int) -> NDArray[np.float64]:
            return merged(np.stack([d[part] for d in data]), colors, list(self.windows))

        truth = _sections(self.result.array(self.level, "labels/cells"))

        def over(part: int) -> NDArray[np.float64]:
            grey = together(part).max(axis=-1, keepdims=True)
            return np.asarray(np.clip(grey * 0.9 + _OVERLAY * id_colors(truth[part]), 0, 1))

        def alone(channel: int) -> Callable[[int], NDArray[np.float64]]:
            return lambda part: merged(data[channel][part][None], [colors[channel]], [self.windows[channel]])

        drawn = [self.sheet.drawn("All channels" if len(channels) > 1 else channels[0]["label"], together)]
        drawn.append(self.sheet.drawn("True cells over the image", over))
        if len(channels) > 1:
            drawn += [self.sheet.drawn(c["label"], alone(n), c["color"]) for n, c in enumerate(channels)]
        return drawn

    def plane(self, name: str) -> Drawn:
        """Draw all channels together, only the plane."""
        channels = self.result.channels
        data = np.stack([self.image(c)[0] for c in range(len(channels))])
        return self.sheet.plane(name, merged(data, [c["color"] for c in channels], list(self.windows)))

    @property
    def sheet(self) -> Sheet:
        """Its layout."""
        shape = triple(self.result.array(self.level).shape[1:])
        return Sheet(shape, self.element_um, float(self.result.provenance["expansion_factor"]))


def _opaque(image: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([image, np.ones((*image.shape[:2], 1))], axis=-1)


def _stretched(image: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.float64]:
    """Scale an image by repeating elements."""
    rows, columns = (
        np.minimum((np.arange(n) + 0.5) * size / n, size - 1).astype(int)
        for n, size in zip(shape, image.shape[:2], strict=True)
    )
    found: NDArray[np.float64] = image[rows[:, None], columns]
    return found


def _sections(stored: Any, *channel: int) -> Sections:
    z, y, x = (n // 2 for n in stored.shape[-3:])
    plane, along_x, along_y = (elements(stored, (*channel, *at)) for at in ((z,), (slice(None), y), (..., x)))
    return plane, along_x, along_y.T
