"""Tissue: populations of cells at random or given places, a source of labels without files.

Positions are in um: depth z below the surface, then y and x from the corner. Ids count the cells from 1 on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from simexm.errors import SourceError
from simexm.geometry.grid import Box, Spacing, Triple, exact3
from simexm.kernels.numbers.detmath import exp_array, normal_quantile_array
from simexm.kernels.populations import fill, place, trees
from simexm.names import Name
from simexm.random import derive_key, id_uniform
from simexm.sources.base import VoxelSizeNm
from simexm.sources.body import Body
from simexm.sources.fields import Field as SourceField
from simexm.sources.made import MadeVolume

Array = NDArray[np.float64]
Micrometres = Annotated[float, Field(gt=0, le=1e5, allow_inf_nan=False)]
MOST_CELLS = 5_000_000
_STRETCH = 2.0
"""Largest ratio of a half axis to the mean radius."""


class Dendrites(BaseModel):
    """Branching dendrites of a population that fills its whole cytosol.

    Attributes
    ----------
    stems
        Fewest and most stems of a cell.
    length_um
        From the soma to a tip.
    radius_um
        Of a stem; it tapers, and shrinks by Murray's law where it divides.
    orders
        Pieces from the soma to a tip; a process divides in two after each.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    stems: tuple[Annotated[int, Field(ge=1, le=30)], Annotated[int, Field(ge=1, le=30)]] = (2, 9)
    length_um: Micrometres = 60.0
    radius_um: Micrometres = 1.5
    orders: int = Field(default=3, ge=1, le=6)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.stems[0] > self.stems[1]:
            raise ValueError(
                f"stems {list(self.stems)}: the fewest are more than the most; write them in ascending order"
            )
        return self


class Population(BaseModel):
    """Cells of one kind.

    Attributes
    ----------
    name
        Name of the population and its random streams.
    density_per_mm3
        Cells per mm^3 within the depth range; or give `positions_um`.
    positions_um
        Centres z, y, x instead of random ones.
    depth_um
        Depths of the centres, from and to; by default all.
    radius_um, radius_cv, stretch
        Mean radius of a soma, its coefficient of variation across cells, and the standard deviation of the logarithm of its
        half axes.
    min_distance_um
        Least distance of two centres; by default two radii.
    dendrites
        Dendrites, if the indicator fills them, too; by default only somata carry it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name = "neurons"
    density_per_mm3: float | None = Field(default=None, gt=0, le=1e8)
    positions_um: tuple[tuple[float, float, float], ...] | None = Field(
        default=None, min_length=1, max_length=MOST_CELLS
    )
    depth_um: tuple[float, float] | None = None
    radius_um: Micrometres = 5.0
    radius_cv: float = Field(default=0.1, ge=0, le=0.5)
    stretch: float = Field(default=0.1, ge=0, le=0.5)
    min_distance_um: float | None = Field(default=None, ge=0, le=1e4)
    dendrites: Dendrites | None = None

    @property
    def distance_um(self) -> float:
        """Least distance of two centres."""
        return 2 * self.radius_um if self.min_distance_um is None else self.min_distance_um

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.density_per_mm3 is None) == (self.positions_um is None):
            raise ValueError(
                f"population {self.name!r} needs either density_per_mm3 or positions_um, so its number of cells is unknown; "
                "give one of them"
            )
        if self.depth_um and self.depth_um[0] >= self.depth_um[1]:
            raise ValueError(
                f"population {self.name!r}: depth_um {list(self.depth_um)} is empty, so there would be no cell; give the lower "
                "depth first"
            )
        if self.density_per_mm3 and math.isinf(place.tried_per_um3(self.density_per_mm3 * 1e-9, self.distance_um)):
            most = 1e9 / place.ball_um3(self.distance_um)
            raise ValueError(
                f"population {self.name!r} does not fit: with {self.distance_um:g} um between centres there is room for fewer "
                f"than {most:,.0f} cells per mm^3 at random places, not {self.density_per_mm3:,.0f}; lower density_per_mm3 or "
                "min_distance_um"
            )
        return self


class TissueSource(BaseModel):
    """A box of tissue with populations of cells.

    Attributes
    ----------
    size_um
        Depth, height and width.
    voxel_size_nm
        Voxel size along z, y, x; it decides how finely cells are sampled, not where they are.
    populations
        The kinds of cells. Where two would overlap, the cell of the earlier population stays.
    seed
        Seed of the tissue, independent of the simulation's seed.
    body
        Body of an animal; cells at random places lie in it. Default: they lie everywhere.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["tissue"] = "tissue"
    size_um: tuple[Micrometres, Micrometres, Micrometres]
    voxel_size_nm: VoxelSizeNm = (2000.0, 2000.0, 2000.0)
    populations: tuple[Population, ...] = Field(min_length=1, max_length=100)
    seed: int = Field(default=1, ge=0, lt=2**63)
    body: Body | None = None

    @model_validator(mode="after")
    def _inside(self) -> Self:
        if len({p.name for p in self.populations}) < len(self.populations):
            raise ValueError("two populations have one name, which keys their random numbers; rename one")
        for p in self.populations:
            low, high = p.depth_um or (0.0, self.size_um[0])
            if low < 0 or high > self.size_um[0]:
                raise ValueError(
                    f"population {p.name!r}: depth_um {low:g} to {high:g} reaches outside the tissue, which is "
                    f"{self.size_um[0]:g} um deep, so cells would be missing; raise size_um or change depth_um"
                )
            for at in p.positions_um or ():
                if not all(0 <= v < n for v, n in zip(at, self.size_um, strict=True)):
                    raise ValueError(
                        f"population {p.name!r}: the position {list(at)} lies outside the tissue of {list(self.size_um)} um, so "
                        "the cell would be missing; raise size_um or move it"
                    )
            expected = (p.density_per_mm3 or 0) * 1e-9 * (high - low) * self.size_um[1] * self.size_um[2]
            if expected > MOST_CELLS:
                raise ValueError(
                    f"population {p.name!r} would have {expected:,.0f} cells, but a tissue holds at most {MOST_CELLS:,}; lower "
                    "size_um or density_per_mm3"
                )
        return self

    def offered(self) -> Mapping[str, SourceField]:
        """Return its fields: none."""
        return {}

    def open(self) -> TissueVolume:
        """Open it for reading; raises SourceError if cells overlap or there is none."""
        return TissueVolume(self)

    def cells(self) -> Cells:
        """Place the cells; raises SourceError if given positions are too near to others, or if there is no cell."""
        return _placed(self)


@dataclass(frozen=True)
class Cells:
    """Placed cells, a row for each id from 1 on; lengths in um."""

    centres_um: Array
    """z, y, x of the somata, (n, 3)."""
    radii_um: Array
    """Half axes of the somata, (n, 3)."""
    population: NDArray[np.int64]
    """Number of each cell's population."""
    pieces: Array
    """Pieces of dendrites, (m, 8); see `simexm.kernels.populations.trees.grow`."""
    owners: NDArray[np.int64]
    """Row of each piece's cell."""

    @property
    def ids(self) -> NDArray[np.uint32]:
        """Ids by row."""
        return np.arange(1, len(self.centres_um) + 1, dtype=np.uint32)


@lru_cache(maxsize=4)
def _placed(tissue: TissueSource) -> Cells:
    centres, radii, kinds = np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0, np.int64)
    pieces, owners = [np.zeros((0, 8))], [np.zeros(0, np.int64)]
    for number, p in enumerate(tissue.populations):
        found = _centres(tissue, p)
        free = np.ones(len(found), np.bool_)
        for other, q in enumerate(tissue.populations[:number]):
            near = (p.distance_um + q.distance_um) / 2
            free &= place.apart(found, centres[kinds == other], near)
        if p.positions_um is not None and not free.all():
            at = found[~free][0].tolist()
            raise SourceError(
                f"population {p.name!r} does not fit: the cell at {at} um overlaps one of an earlier population; move it, or "
                "lower min_distance_um"
            )
        found = found[free]
        ids = np.arange(len(centres) + 1, len(centres) + 1 + len(found), dtype=np.uint64)
        if p.dendrites is not None and ids.size:
            d = p.dendrites
            shape = trees.Shape(*d.stems, d.length_um, d.radius_um, d.orders)
            grown, rows = trees.grow(ids, found, shape, derive_key(tissue.seed, "tissue", p.name, "dendrites"))
            pieces.append(grown)
            owners.append(rows + len(centres))
        centres = np.concatenate([centres, found])
        radii = np.concatenate([radii, _half_axes(tissue, p, ids)])
        kinds = np.concatenate([kinds, np.full(len(found), number)])
    if not len(centres):
        raise SourceError(
            "the tissue holds no cell, so the movie would be only noise; raise density_per_mm3 or size_um"
        )
    order = np.argsort(np.concatenate(owners), kind="stable")
    return Cells(centres, radii, kinds, np.concatenate(pieces)[order], np.concatenate(owners)[order])


def _centres(tissue: TissueSource, p: Population) -> Array:
    if p.positions_um is None:
        low, high = p.depth_um or (0.0, tissue.size_um[0])
        box = (low, 0.0, 0.0), (high, *tissue.size_um[1:])
        assert p.density_per_mm3 is not None
        found = place.places(p.density_per_mm3 * 1e-9, p.distance_um, *box, derive_key(tissue.seed, "tissue", p.name))
        return found if tissue.body is None else found[tissue.body.holds(found, tissue.size_um)]
    found = np.array(p.positions_um, np.float64)
    for n in range(1, len(found)):
        if not place.apart(found[n : n + 1], found[:n], p.distance_um).all():
            raise SourceError(
                f"population {p.name!r} does not fit: the cell at {found[n].tolist()} um lies within {p.distance_um:g} um of "
                "another; move it, or lower min_distance_um"
            )
    return found


def _half_axes(tissue: TissueSource, p: Population, ids: NDArray[np.uint64]) -> Array:
    """Half axes of ellipsoids, whose volume is that of a ball of the cell's radius."""
    draws = [normal_quantile_array(id_uniform(ids, derive_key(tissue.seed, "tissue", p.name, axis))) for axis in "rzyx"]
    radius = p.radius_um * exp_array(p.radius_cv * draws[0] - p.radius_cv**2 / 2)
    mean = sum(draws[1:]) / 3
    ratios = np.stack([exp_array(p.stretch * (d - mean)) for d in draws[1:]], -1)
    return np.asarray(radius[:, None] * np.clip(ratios, 1 / _STRETCH, _STRETCH))


@dataclass(frozen=True)
class TissueVolume(MadeVolume):
    """A tissue that is read box by box."""

    tissue: TissueSource

    @property
    def cells(self) -> Cells:
        """Its cells."""
        return self.tissue.cells()

    @property
    def shape(self) -> Triple:
        z, y, x = (
            max(1, math.floor(Fraction(str(n)) * 1000 / v))
            for n, v in zip(self.tissue.size_um, self.voxel_size_nm, strict=True)
        )
        return z, y, x

    @property
    def voxel_size_nm(self) -> Spacing:
        return exact3(self.tissue.voxel_size_nm)

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.uint32)

    @property
    def fields(self) -> Mapping[str, SourceField]:
        return {}

    @property
    def identity(self) -> str:
        """Its spec, which decides every id."""
        without = {"body"} if self.tissue.body is None else set()
        return f"tissue {self.tissue.model_dump_json(exclude=without)}"

    def read(self, box: Box, time: int = 0) -> NDArray[np.uint32]:
        """Return the ids in a box inside the volume, (z, y, x)."""
        if not Box.of_shape(self.shape).contains(box):
            raise SourceError(
                f"the box {box.start} to {box.stop} leaves the tissue of shape {self.shape}: ask for a box inside"
            )
        out = np.zeros(box.shape, np.uint32)
        voxel = np.array([float(v) / 1000 for v in self.voxel_size_nm])
        low, high = np.array(box.start) * voxel, np.array(box.stop) * voxel
        cells, start = self.cells, np.array(box.start)
        near = ((cells.centres_um + cells.radii_um >= low) & (cells.centres_um - cells.radii_um <= high)).all(axis=1)
        if near.any():
            fill.fill_somata(cells.ids[near], cells.centres_um[near], cells.radii_um[near], start, voxel, out)
        if len(cells.pieces):
            a, b, thick = cells.pieces[:, :3], cells.pieces[:, 3:6], cells.pieces[:, 6:].max(axis=1)[:, None]
            met = ((np.maximum(a, b) + thick >= low) & (np.minimum(a, b) - thick <= high)).all(axis=1)
            if met.any():
                fill.fill_pieces(cells.ids[cells.owners[met]], cells.pieces[met], start, voxel, out)
        return out

    def read_field(self, name: str, box: Box, time: int = 0) -> NDArray[Any]:
        """Raise SourceError: a tissue has no fields."""
        raise SourceError(
            f"a tissue has no region {name!r}, so nothing could be labelled there; use membrane or cytosol"
        )

    def reading_bytes(self, shape: Triple, regions: Sequence[str]) -> int:
        """Columns of the cells of a box."""
        return 64 * (len(self.cells.centres_um) + len(self.cells.pieces))
