"""Draw pairs of pictures, without and with an effect, on one scale of brightness."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from simexm.api import Simulation
from simexm.geometry.grid import Box
from simexm.run.in_memory import simulate
from simexm.sources.base import LabelSource
from simexm.sources.phantom import FIELDS

Picture = NDArray[Any]
FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Shown:
    """A picture (rows, columns) of grey values or (rows, columns, 3) of colours from 0 to 1, with its title.

    `pixel_um` are the height and the width of its pixels.
    """

    title: str
    picture: Picture
    pixel_um: tuple[float, float]


Pair = tuple[Shown, Shown]


@dataclass(frozen=True)
class Made:
    """What a simulation made of tissue.

    Attributes
    ----------
    light
        Expected photo-electrons, (channel, z, y, x).
    image
        Counts, (channel, z, y, x).
    spacing_um
        Distance of planes and pixels z, y, x in the expanded gel.
    """

    light: Picture
    image: Picture
    spacing_um: tuple[float, float, float]

    def section(self, title: str, channel: int = 0) -> Shown:
        """The light in the middle section along z and x."""
        return Shown(title, self.light[channel, :, self.light.shape[2] // 2], (self.spacing_um[0], self.spacing_um[2]))

    def plane(self, title: str, channel: int = 0) -> Shown:
        """The light in the middle plane."""
        return Shown(title, self.light[channel, self.light.shape[1] // 2], self.spacing_um[1:])


def made(
    tissue: LabelSource,
    box: Box,
    stages: Sequence[Mapping[str, Any]],
    regions: Sequence[str] = (),
    fields: Sequence[str] = (),
    dyes: Mapping[str, Any] | None = None,
) -> Made:
    """Simulate a box of tissue, with masks and further fields of a phantom; `dyes` are of the spec."""
    stages = [{"stage": "regions"}, *stages, {"stage": "truth"}]
    source = {"kind": "phantom", "shape": box.shape}
    given = {"name": "picture", "seed": 1, "stages": stages, "source": source, "dyes": dyes or {}, "keep": ["expected"]}
    spec = Simulation.model_validate(given)
    vz, vy, vx = tissue.voxel_size_nm
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        done = simulate(
            tissue.read(box),
            spec,
            voxel_size_nm=(float(vz), float(vy), float(vx)),
            regions={name: tissue.read_field(name, box) for name in regions},
            fields=[(FIELDS[name], tissue.read_field(name, box)) for name in fields],
        )
    z, y, x = (float(s) / 1000 for s in done.plan.geometry.pixel_nm)
    return Made(np.asarray(done.kept["expected"]), np.asarray(done.image), (z, y, x))


def draw(name: str, pairs: Sequence[Pair], bar_um: float, across: int = 2) -> None:
    """Write NAME.png with `across` pairs in each row; white is what is brightest in the pair, but for a few pixels."""
    figure, grid = _grid([one for pair in pairs for one in pair], 2 * across)
    for pair, places in zip(pairs, np.reshape(grid[: 2 * len(pairs)], (-1, 2)), strict=True):
        top = max(_brightest(one) for one in pair)
        for place, one in zip(places, pair, strict=True):
            show(place, one, top, bar_um)
    save(figure, name)


def draw_row(name: str, pictures: Sequence[Shown], bar_um: float, across: int) -> None:
    """Write NAME.png with `across` pictures in each row, each on a scale of its own."""
    figure, grid = _grid(pictures, across)
    for place, one in zip(grid, pictures, strict=False):
        show(place, one, _brightest(one), bar_um)
    save(figure, name)


def show(axes: Axes, one: Shown, top: float, bar_um: float) -> None:
    """Draw one picture with its scale bar."""
    high, wide = one.pixel_um
    axes.imshow(one.picture, cmap="gray", vmin=0, vmax=top, aspect=high / wide, interpolation="nearest")
    axes.set_title(one.title, fontsize=9)
    rows, columns = one.picture.shape[:2]
    right, low, length = 0.96 * columns, 0.93 * rows, bar_um / wide
    axes.plot([right - length, right], [low, low], color="white", linewidth=3, solid_capstyle="butt")


def save(figure: Figure, name: str) -> None:
    """Write the figure with 64 greys or 256 colours, so that it is small."""
    path = FOLDER / f"{name}.png"
    figure.savefig(path, dpi=100)
    drawn = Image.open(path).convert("RGB")
    red, green, blue = drawn.split()
    grey = red.tobytes() == green.tobytes() == blue.tobytes()
    drawn.quantize(64 if grey else 256).save(path, optimize=True)


def _brightest(one: Shown) -> float:
    return float(np.quantile(one.picture, 0.998))


def _grid(pictures: Sequence[Shown], across: int) -> tuple[Figure, NDArray[Any]]:
    """A figure with places for the pictures, row by row, as high as they need."""
    shapes = [(one.picture.shape[0] * one.pixel_um[0]) / (one.picture.shape[1] * one.pixel_um[1]) for one in pictures]
    heights = [max(shapes[n : n + across]) for n in range(0, len(shapes), across)]
    wide = 11 / across
    figure = Figure(figsize=(11, sum(wide * h + 0.35 for h in heights)), layout="constrained")
    grid = figure.subplots(len(heights), across, squeeze=False, height_ratios=heights).reshape(-1)
    for place in grid:
        place.axis("off")
    return figure, grid
