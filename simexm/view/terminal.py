"""Print a picture in the terminal; each character shows two pixels, in its foreground and background colours."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.text import Text

from simexm.view.picture import Picture, merged

UPPER_HALF = "▀"


def print_picture(picture: Picture, console: Console | None = None) -> None:
    """Print the middle plane as wide as the terminal, at most a character for each pixel; nothing without a colour terminal."""
    console = console or Console()
    if console.is_terminal and console.color_system is not None and not console.no_color:
        console.print(in_cells(picture, console.width), soft_wrap=True)


def in_cells(picture: Picture, columns: int) -> Text:
    """Return the middle plane as coloured text, at most so many columns wide."""
    image = _shrunk(merged(picture.across, picture.colors, picture.windows), picture, columns)
    shown = np.rint(image * 255).astype(int)
    if len(shown) % 2:
        shown = np.concatenate([shown, np.zeros_like(shown[:1])])
    text = Text(no_wrap=True, end="")
    for upper, lower in zip(shown[::2], shown[1::2], strict=True):
        for ink, ground in zip(upper, lower, strict=True):
            text.append(UPPER_HALF, f"rgb({_numbers(ink)}) on rgb({_numbers(ground)})")
        text.append("\n")
    return text


def _numbers(color: NDArray[Any]) -> str:
    return ",".join(map(str, color))


def _shrunk(image: NDArray[np.float64], picture: Picture, columns: int) -> NDArray[np.float64]:
    """Average the image to square pixels; unchanged if it fits."""
    from PIL import Image

    _, y, x = picture.pixel_um
    rows, width = image.shape[:2]
    wide = min(columns, width)
    high = max(1, round(rows * y / x * wide / width))
    if (high, wide) == (rows, width):
        return image
    planes = (Image.fromarray(image[..., c].astype(np.float32)) for c in range(3))
    return np.stack([np.asarray(p.resize((wide, high), Image.Resampling.BOX)) for p in planes], axis=-1).clip(0, 1)
