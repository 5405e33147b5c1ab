"""Draw the middle plane and section of an image, its channels in their colours, with the truth beside it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from simexm.errors import OutputError, RunError, SimexmWarning
from simexm.result.place import Place
from simexm.result.result import Result, elements
from simexm.store.files import outgoing

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

LARGEST = 1024
"""Most pixels a side of the level that is drawn."""

PANEL, MARGIN, CAPTION, TITLE = 590, 6, 26, 34
"""Width of a panel, space between panels, and heights of a caption and of the title, in pixels of the picture."""


@dataclass(frozen=True)
class Picture:
    """Data of a picture; `colors`, `windows` and `names` are those of the channels."""

    title: str
    across: NDArray[Any]  # middle plane (channels, y, x)
    along: NDArray[Any]  # middle section (channels, z, x)
    truth: NDArray[Any]  # ids of the plane
    truth_along: NDArray[Any]  # ids of the section
    colors: list[str]
    windows: list[tuple[float, float]]
    names: list[str]
    pixel_um: tuple[float, float, float]  # in tissue
    factor: float


def level_for_screen(result: Result, largest: int) -> int:
    """Return the finest level with at most `largest` rows and columns, or else the coarsest."""
    level = 0
    while max(result.array(level).shape[2:]) > largest and level + 1 < result.levels():
        level += 1
    return level


def picture_of(result: Result) -> Picture:
    """Read the middle of a finished result, from the finest level with at most `LARGEST` pixels a side."""
    level = level_for_screen(result, LARGEST)
    image = result.array(level)
    _, nz, ny, _ = image.shape
    across, along = elements(image, np.s_[:, nz // 2]), elements(image, np.s_[:, :, ny // 2])
    cells = result.array(level, "labels/cells")
    channels = result.channels
    windows = result.windows if result.provenance["quantity"] == "image" else [window(a) for a in across]
    return Picture(
        title=result.attributes["ome"]["multiscales"][0]["name"],
        across=across,
        along=along,
        truth=elements(cells, nz // 2),
        truth_along=elements(cells, np.s_[:, ny // 2]),
        colors=[c["color"] for c in channels],
        windows=windows,
        names=[c["label"] for c in channels],
        pixel_um=result.pixel_um(level),
        factor=result.provenance["expansion_factor"],
    )


def merged(channels: NDArray[Any], colors: list[str], windows: list[tuple[float, float]]) -> NDArray[np.float64]:
    """Add channels in their colours; returns (rows, columns, 3), 0 to 1."""
    total = np.zeros((*channels.shape[1:], 3))
    for data, color, (low, high) in zip(channels, colors, windows, strict=True):
        rgb = np.array([int(color[i : i + 2], 16) / 255 for i in (0, 2, 4)])
        total += np.clip((data.astype(np.float64) - low) / max(high - low, 1e-9), 0, 1)[..., None] * rgb
    return np.clip(total, 0, 1)


def id_colors(ids: NDArray[Any]) -> NDArray[np.float64]:
    """Colour each id differently, 0 black; returns (rows, columns, 3), 0 to 1."""
    hashed = ids.astype(np.uint64)
    # splitmix64, since ids may differ in high bits alone
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        hashed = (hashed ^ (hashed >> np.uint64(shift))) * np.uint64(factor)
    rgb = np.stack([(hashed >> np.uint64(s)) & np.uint64(255) for s in (56, 40, 24)], axis=-1).astype(np.float64) / 255
    return np.where(ids[..., None] == 0, 0.0, 0.25 + 0.75 * rgb)


def draw(picture: Picture) -> Image.Image:
    """Draw image and truth side by side, the plane above, the section below, in true proportions."""
    from PIL import Image, ImageDraw

    z, y, x = picture.pixel_um
    columns = picture.across.shape[2]
    across = max(1, round(PANEL * picture.across.shape[1] * y / (columns * x)))
    along = max(24, round(PANEL * picture.along.shape[1] * z / (columns * x)))
    panels = (
        (merged(picture.across, picture.colors, picture.windows), 0, across, "image, middle plane"),
        (id_colors(picture.truth), 1, across, "truth, the same plane"),
        (merged(picture.along, picture.colors, picture.windows), 0, along, "image, middle section (z down)"),
        (id_colors(picture.truth_along), 1, along, "truth, the same section"),
    )
    sheet = Image.new("RGB", (2 * PANEL + 3 * MARGIN, across + along + 2 * CAPTION + TITLE + MARGIN))
    pen = ImageDraw.Draw(sheet)
    pen.text((sheet.width / 2, TITLE / 2), picture.title, fill="white", font=_font(18), anchor="mm")
    top = TITLE
    for n, (data, column, height, caption) in enumerate(panels):
        if n == 2:
            top += CAPTION + across
        left = MARGIN + column * (PANEL + MARGIN)
        pen.text((left + PANEL / 2, top + CAPTION / 2), caption, fill=(204, 204, 204), font=_font(14), anchor="mm")
        part = Image.fromarray(np.rint(data * 255).astype(np.uint8)).resize((PANEL, height), Image.Resampling.NEAREST)
        sheet.paste(part, (left, top + CAPTION))
    _mark(pen, picture, across)
    return sheet


def save(picture: Picture, path: Path) -> None:
    """Draw a picture and write it as a PNG."""
    draw(picture).save(path, format="PNG")


def _mark(pen: ImageDraw.ImageDraw, picture: Picture, height: int) -> None:
    """Write the names of the channels and a scale bar into the first panel."""
    left, top = MARGIN, TITLE + CAPTION
    for i, (name, color) in enumerate(zip(picture.names, picture.colors, strict=True)):
        place = (left + 16, top + 14 + 26 * i)
        pen.rectangle(pen.textbbox(place, name, font=_font(17)), fill="black")
        pen.text(place, name, fill=f"#{color}", font=_font(17))
    width = picture.across.shape[2] * picture.pixel_um[2]
    bar = round_down(width / 5)
    expanded = f" ({bar * picture.factor:g} expanded)" if picture.factor != 1 else ""
    low = top + height - 18
    pen.rectangle((left + 24, low - 7, left + 24 + round(PANEL * bar / width), low), fill="white")
    place = (left + 24, low - 14)
    text = f"{bar:g} um of tissue{expanded}"
    pen.rectangle(pen.textbbox(place, text, font=_font(15), anchor="ls"), fill="black")
    pen.text(place, text, fill="white", font=_font(15), anchor="ls")


def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size)


def window(data: NDArray[Any]) -> tuple[float, float]:
    """Return a display window for a channel, from its pixels."""
    low, high = np.quantile(data, (0.02, 0.998))
    return float(low), float(max(high, low + 1e-9))


def round_down(value: float) -> float:
    """Round down to 1, 2 or 5 times a power of ten."""
    power = 10.0 ** np.floor(np.log10(value))
    return float(next(power * f for f in (5, 2, 1) if power * f <= value * (1 + 1e-9)))


def keep_picture(where: Place) -> None:
    """Draw a finished result as `preview.png`. Warn if the disk refuses; raise RunError if the image cannot be read."""
    path = where.run / "preview.png"
    try:
        with outgoing(path) as partial:
            save(picture_of(Result.open(where.zarr)), partial)
    except OutputError as error:
        raise RunError(f"all blocks are done, but {error}") from error
    except OSError as error:
        text = f"the result is complete, but its picture {path} cannot be written: {error.strerror}"
        warnings.warn(text, SimexmWarning, stacklevel=2)
