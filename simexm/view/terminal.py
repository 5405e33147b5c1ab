"""A picture in the terminal: each character cell shows two pixels, the upper one as its ink and the lower one as its ground."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.text import Text

from simexm.view.picture import Picture, merged

UPPER_HALF = "▀"


def print_picture(picture: Picture, console: Console | None = None) -> None:
    """Print the image of the middle plane as wide as the terminal is, or a cell for each pixel where there is room.

    Nothing is printed where there is no terminal, or one without colours.
    """
    console = console or Console()
    if console.is_terminal and console.color_system is not None and not console.no_color:
        console.print(in_cells(picture, console.width), soft_wrap=True)


def in_cells(picture: Picture, columns: int) -> Text:
    """The image of the middle plane in its colours, at most so many columns wide."""
    shown = np.rint(_shrunk(merged(picture.across, picture.colors, picture.windows), picture, columns) * 255).astype(
        int
    )
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
    """The image in square pixels, each the mean of what it covers; itself where there is room for it."""
    from PIL import Image

    _, y, x = picture.pixel_um
    rows, width = image.shape[:2]
    wide = min(columns, width)
    high = max(1, round(rows * y / x * wide / width))
    if (high, wide) == (rows, width):
        return image
    planes = (Image.fromarray(image[..., c].astype(np.float32)) for c in range(3))
    return np.stack([np.asarray(p.resize((wide, high), Image.Resampling.BOX)) for p in planes], axis=-1).clip(0, 1)
