"""Render tables of localisations as pictures, block by block, or as one PNG with z in colour."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from simexm.analysis.contract import Analysis, Bench, Conclusion, Score
from simexm.analysis.grid import Grid
from simexm.analysis.localisation.tables import LocalisationTable
from simexm.analysis.stored_table import Columns, StoredTable
from simexm.errors import OutputError
from simexm.geometry.grid import Box, exact3, triple
from simexm.kernels.localisation.splat import splat
from simexm.sources.localisations import Dialects
from simexm.stages.products import image

DENSITY = "density"
_MOST_PNG = 8192
_COLOURS = 24
_SATURATED = 0.995
"""Share of the lit pixels of a PNG that are not of full brightness."""


class Render(Analysis):
    """Render a table of localisations as an image of their density.

    The table has the columns y_nm and x_nm and, for Gaussians, y_precision_nm and x_precision_nm: a result, Parquet or
    CSV. Or it is a file of ThunderSTORM, Picasso, SMAP or the SMLM challenge.

    Attributes
    ----------
    method
        gaussian: each localisation is a Gaussian as wide as its precision. histogram: each counts in its pixel.
    pixel_nm
        Side of a pixel.
    least_sigma_nm
        Least standard deviation of a Gaussian.
    plane_nm
        Thickness of planes along z. Default: all z in one plane, in a PNG as colour.
    field_nm
        Lower and upper end along y, then along x, so that several tables have one grid. Default: what the table covers.
    dialect
        Program that wrote the table: thunderstorm, picasso, smlm-challenge or smap. Default: the only one
        that the file can be of.
    table_pixel_nm
        Side of a pixel, for dialects that count from the first pixel's centre and do not state it.
    block_pixels
        Side of a block. It changes speed and memory, no number.
    """

    analysis: Literal["render"] = "render"
    method: Literal["gaussian", "histogram"] = "gaussian"
    pixel_nm: float = Field(default=10.0, gt=0, le=1e5)
    least_sigma_nm: float = Field(default=2.0, gt=0, le=1e5)
    plane_nm: float | None = Field(default=None, gt=0, le=1e6)
    field_nm: tuple[float, float, float, float] | None = None
    dialect: Dialects | None = None
    table_pixel_nm: float | None = Field(default=None, gt=0, le=1e5)
    block_pixels: int = Field(default=512, ge=64, le=4096)

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        f = self.field_nm
        if f is not None and (f[0] >= f[1] or f[2] >= f[3]):
            raise ValueError(f"field_nm {list(f)} is no field; give y0, y1, x0, x1 with y0 < y1 and x0 < x1")
        return self

    def opened(self, inputs: Sequence[Any]) -> tuple[Any, ...]:
        """Open the table."""
        if len(inputs) != 1:
            raise OutputError(f"render reads one table, not {len(inputs)}; type: simexm render TABLE")
        needed = ["y_nm", "x_nm"]
        if self.method == "gaussian":
            needed += ["y_precision_nm", "x_precision_nm"]
        if self.plane_nm is not None:
            needed.append("z_nm")
        try:
            return (LocalisationTable.opened(inputs[0], needed, self.dialect, self.table_pixel_nm),)
        except OutputError as error:
            if "_precision_nm" in str(error):
                raise OutputError(f"{error}; or set method to histogram, which needs no precision") from error
            raise

    def open(self, inputs: tuple[StoredTable, ...]) -> Bench:
        """Find the field."""
        return RenderBench(self, *inputs)

    def in_memory(self, table: Any) -> NDArray[np.float32]:
        """Render in this process; return the density, (z, y, x)."""
        bench = RenderBench(self, *self.opened((table,)))
        assert bench.grid is not None
        return bench.picture(Box.of_shape(bench.grid.shape))

    def png(self, path: Path, table: Any) -> None:
        """Write one picture: brightness is density, and colour z where the table has it."""
        from simexm.store.atomic_file import atomic_file

        (opened,) = self.opened((table,))
        picture = _coloured(self, opened)
        import imagecodecs  # late: it takes a while to load

        with atomic_file(path) as partial:
            partial.write_bytes(imagecodecs.png_encode(picture))


class RenderBench(Bench):
    """A table, and the grid of its picture."""

    def __init__(self, settings: Render, table: StoredTable) -> None:
        self.settings, self.table = settings, table
        low, high = _extent(table, settings.plane_nm is not None)
        if settings.field_nm is not None:
            y0, y1, x0, x1 = settings.field_nm
            low[1:], high[1:] = (y0, x0), (y1, x1)
        self.step = np.array([settings.plane_nm or settings.pixel_nm, settings.pixel_nm, settings.pixel_nm])
        if settings.field_nm is None:
            low[1:] = np.floor(low[1:] / self.step[1:]) * self.step[1:]
        low[0] = math.floor(low[0] / self.step[0]) * self.step[0] if settings.plane_nm else 0.0
        self.low = low
        sides = np.maximum(1, np.ceil((high - low) / self.step - 1e-9).astype(np.int64))
        if settings.plane_nm is None:
            sides[0] = 1
        self.grid = Grid(
            triple(sides), exact3(self.step.tolist()), exact3(low.tolist()), largest_shard=settings.block_pixels
        )
        self.products = (image(DENSITY, ("density",), "float32", "localisations per pixel"),)
        self.inputs = {"table": table.identity}
        self.blocks, self.voxels = len(self.grid.blocks), int(np.prod(sides))
        self.core_seconds = 1e-8 * self.voxels + 1e-6 * table.rows * self.blocks
        self.block_bytes = 12 * math.prod(self.grid.blocks.cell) + 200 * table.largest_piece

    def picture(self, box: Box) -> NDArray[np.float32]:
        """Density in a part of the grid, (z, y, x)."""
        found = np.zeros(box.shape)
        for piece in self.table:
            self._add(piece, box, found)
        return found.astype(np.float32)

    def _add(self, piece: Columns, box: Box, found: NDArray[np.float64]) -> None:
        s = self.settings
        places = np.stack([np.asarray(piece[f"{a}_nm"], np.float64) for a in "yx"], axis=1)
        sigma = np.zeros_like(places)
        if s.method == "gaussian":
            known = np.stack([np.asarray(piece[f"{a}_precision_nm"], np.float64) for a in "yx"], axis=1)
            if not np.isfinite(known).all():
                raise OutputError(
                    f"{self.table.path} holds precisions that are not finite, so their Gaussians have no width; set method to "
                    "histogram"
                )
            sigma = np.maximum(known, s.least_sigma_nm) / s.pixel_nm
        planes = np.zeros(len(places), np.int64)
        if s.plane_nm is not None:
            planes = np.floor((np.asarray(piece["z_nm"], np.float64) - self.low[0]) / s.plane_nm).astype(np.int64)
        splat((places - self.low[1:]) / s.pixel_nm, sigma, planes, np.array(box.start), found)

    def measure(self, number: int) -> Mapping[str, Any]:
        """Render one block."""
        assert self.grid is not None
        return {DENSITY: self.picture(self.grid.blocks[number])[None]}

    def conclude(self, sums: Mapping[str, Any]) -> Conclusion:
        """Say how many there are."""
        return Conclusion({}, (Score("localisations", float(self.table.rows), "", "rows of the table"),))


def _extent(table: StoredTable, with_z: bool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lower and upper ends of a table along z, y, x; raises OutputError if it is empty or holds places that are unknown."""
    low, high = np.full(3, np.inf), np.full(3, -np.inf)
    for piece in table:
        for n, axis in enumerate("zyx"):
            if len(piece["y_nm"]) and (n or with_z):
                values = np.asarray(piece[f"{axis}_nm"], np.float64)
                if not np.isfinite(values).all():
                    raise OutputError(
                        f"{table.path} holds values of {axis}_nm that are not finite, which lie nowhere"
                        + ("; leave plane_nm out" if axis == "z" else "; remove these rows")
                    )
                low[n], high[n] = min(low[n], values.min()), max(high[n], values.max())
    if not with_z:
        low[0], high[0] = 0.0, 0.0
    if not np.isfinite(low).all():
        raise OutputError(f"{table.path} holds no localisation, so there is nothing to render; name another table")
    return low, high


def _coloured(settings: Render, table: StoredTable) -> NDArray[np.uint8]:
    """8 bits of red, green and blue."""
    from matplotlib import colormaps

    z = (
        next((np.asarray(p["z_nm"], np.float64) for p in table if len(p["y_nm"])), np.zeros(0))
        if "z_nm" in table.columns
        else ()
    )
    deep = len(z) > 0 and bool(np.isfinite(z).all())
    if deep:
        low, high = (float(v[0]) for v in _extent(table, True))
        thick = max((high - low) * (1 + 1e-9) / _COLOURS, 1e-3)
        settings = settings.model_copy(update={"plane_nm": thick})
    bench = RenderBench(settings, table)
    assert bench.grid is not None
    height, width = bench.grid.shape[1:]
    if max(height, width) > _MOST_PNG:
        raise OutputError(
            f"the picture would have {height} x {width} pixels, and a PNG has at most {_MOST_PNG} a side; raise pixel_nm, give "
            "field_nm, or write a NAME.zarr, which has no limit"
        )
    planes = bench.picture(Box.of_shape(bench.grid.shape)) if not deep else None
    if planes is not None:
        return (colormaps["inferno"](_bright(planes[0]))[..., :3] * 255 + 0.5).astype(np.uint8)
    total, colour = np.zeros((height, width)), np.zeros((height, width, 3))
    depth = bench.grid.shape[0]
    for k in range(depth):
        one = bench.picture(Box((k, 0, 0), (k + 1, height, width)))[0]
        total += one
        colour += one[..., None] * np.array(colormaps["turbo"]((k + 0.5) / depth)[:3])
    with np.errstate(invalid="ignore", divide="ignore"):
        hue = np.where(total[..., None] > 0, colour / total[..., None], 0.0)
    return (hue * _bright(total)[..., None] * 255 + 0.5).astype(np.uint8)


def _bright(density: NDArray[Any]) -> NDArray[np.float64]:
    """Square root of the density, of which few pixels are saturated."""
    lit = density[density > density.max() * 1e-3]
    top = float(np.quantile(lit, _SATURATED)) if lit.size else 1.0
    found: NDArray[np.float64] = np.sqrt(np.clip(density / top, 0, 1))
    return found
