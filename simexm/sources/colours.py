"""Pixels of several samples: grey stored as colour, ids packed into colours, and palettes."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from simexm.errors import SimexmWarning, SourceError

ColorIds = Literal["rgb", "bgr"]
"""The colour of an id's highest byte: red (VAST, QuPath, ImageJ: 65536 red + 256 green + blue), or blue.

Where it is None, colours are no ids, and only grey is read.
"""

_OPAQUE = (2, 4)
"""Samples per pixel of which the last one is opacity."""


def dtype_of(stored: np.dtype[Any], samples: int, ids: ColorIds | None) -> np.dtype[Any]:
    """Return the dtype of `merge_samples` for pixels of so many samples of dtype `stored`."""
    return np.dtype(np.uint32) if ids is not None and samples > 2 else stored


def merge_samples(where: str, pixels: NDArray[Any], ids: ColorIds | None) -> NDArray[Any]:
    """Return one number per pixel of (..., samples): grey, grey and opacity, colour, or colour and opacity.

    Raises SourceError if a pixel is not grey or not opaque, or there are more than 4 samples, or ids are packed into
    more than 8 bits each.
    """
    samples = pixels.shape[-1]
    if samples == 1:
        return pixels[..., 0]
    if samples > 4:
        raise SourceError(
            f"{where} has {samples} channels, and labels have one. Save the channel that holds the ids alone."
        )
    colours = samples - (samples in _OPAQUE)
    if samples in _OPAQUE:
        opaque = np.iinfo(pixels.dtype).max if pixels.dtype.kind in "ui" else 1
        if (pixels[..., colours] != opaque).any():
            raise SourceError(
                f"{where} is transparent in places, so it is unclear whether there is a cell. Save the slices without alpha."
            )
    if colours == 1:
        return pixels[..., 0]
    if ids is not None:
        if pixels.dtype != np.uint8:
            raise SourceError(
                f"{where} holds colours of {pixels.dtype}, and ids are packed into three times 8 bits. Leave --color-ids "
                "out, or name the image that the ids were exported to."
            )
        high, middle, low = (0, 1, 2) if ids == "rgb" else (2, 1, 0)
        out = pixels[..., high].astype(np.uint32) << 8
        out |= pixels[..., middle]
        out <<= 8
        out |= pixels[..., low]
        return out
    grey = pixels[..., 0]
    if any(not np.array_equal(grey, pixels[..., c]) for c in range(1, colours)):
        raise SourceError(
            f"{where} is in colour, and its colours may stand for any ids. If ids are packed into colours, type "
            "--color-ids rgb (65536 red + 256 green + blue: VAST, QuPath) or --color-ids bgr (red + 256 green + 65536 blue). "
            "Otherwise save grey values of 8, 16 or 32 bits, one number per cell."
        )
    return grey


def warn_of_palette(where: str, palette: NDArray[Any]) -> None:
    """Warn that an image's palette, (numbers, 3) of 8 bits, is ignored, unless it shows each number as its own grey."""
    numbers = np.arange(len(palette))[:, None]
    stretched = numbers * 255 // max(len(palette) - 1, 1)  # black and white, 4 or 16 greys
    if not any((palette == greys).all() for greys in (numbers, stretched)):
        warnings.warn(
            f"{where} shows its numbers in other colours (by a palette, or 0 as white), which are ignored: the stored numbers "
            "are read, and 0 is outside. If the colours are meant, save them as numbers",
            SimexmWarning,
            stacklevel=4,
        )
