"""A layer of labels: what it labels, how densely, and the law by which its dyes are drawn."""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from simexm.geometry.grid import Triple
from simexm.kernels.emission.points import BINOMIAL, POISSON, UNSPECIFIC, EmissionLaw
from simexm.names import Name
from simexm.settings import Frozen
from simexm.stages.contract import RunContext
from simexm.stages.sample.density import Brightness, GreyDensity, Penetration

EVERYWHERE = "everywhere"
"""Region of all voxels of the tissue, inside cells and outside."""


class DyesPerProtein(Frozen):
    """How many dyes a labelled protein carries.

    Attributes
    ----------
    distribution
        `poisson`: mean `mean`. `binomial`: `sites` sites, each filled with `probability`. `fixed`: exactly `sites`.
    mean
        Mean number of dyes, for `poisson`.
    sites
        Binding sites, for `binomial`; number of dyes, for `fixed`.
    probability
        Probability that a site is filled, for `binomial`.
    """

    distribution: Literal["poisson", "binomial", "fixed"] = "poisson"
    mean: float | None = Field(default=None, gt=0, le=1000)
    sites: int | None = Field(default=None, ge=1, le=1000)
    probability: float | None = Field(default=None, gt=0, le=1)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        wanted = {"poisson": {"mean"}, "binomial": {"sites", "probability"}, "fixed": {"sites"}}[self.distribution]
        given = {k for k in ("mean", "sites", "probability") if getattr(self, k) is not None}
        if wanted != given:
            raise ValueError(
                f"a {self.distribution} number of dyes needs {' and '.join(sorted(wanted))}, "
                f"not {' and '.join(sorted(given)) or 'nothing'}"
            )
        return self

    def law(self, retention: float) -> tuple[int, float, float]:
        """(kind, dyes, kept) of `EmissionLaw` if each dye is retained with probability `retention`."""
        if self.distribution == "poisson":
            return POISSON, float(self.mean or 0), retention
        return BINOMIAL, float(self.sites or 0), retention * (self.probability or 1.0)

    @property
    def average(self) -> float:
        """Mean number of dyes before any is lost."""
        return float(self.mean) if self.mean is not None else (self.sites or 0) * (self.probability or 1.0)


class Layer(Frozen):
    """One kind of label: a dye on the proteins of one region.

    Attributes
    ----------
    name
        Name of the layer, its label image and its random streams: letters, digits, - and _.
    dye
        Name of a dye.
    region
        `membrane`, `cytosol`, a mask of the source, or `everywhere`: all tissue, inside cells and outside.
    cell_fraction
        Share of the cells that are labelled; chosen by seed and cell id, so a cell is labelled alike everywhere.
    density_per_um2, density_per_um3, density_from
        Labelled proteins per um^2 of cell surface (membrane only) or per um^3 of the region, or dyes per um^3 by a grey
        value; give one of the three.
    brightness
        How the density varies from cell to cell.
    penetration
        How the density falls with depth, of unspecific dyes too; by default it does not.
    dyes_per_protein
        Distribution of dyes on a protein.
    retention
        Probability that a dye survives anchoring, digestion and polymerisation.
    linker_nm
        Standard deviation along each axis of the distance from protein to dye, truncated at 4 standard deviations.
    stained
        `before_expansion`: the linker expands with the tissue. `after_expansion`: it keeps its length.
    unspecific_per_um3
        Dyes bound unspecifically per um^3 of tissue, inside cells and outside.
    """

    name: Name
    dye: str
    region: str = "membrane"
    cell_fraction: float = Field(default=1.0, gt=0, le=1)
    density_per_um2: float | None = Field(default=None, gt=0, le=1e6)
    density_per_um3: float | None = Field(default=None, gt=0, le=1e9)
    density_from: GreyDensity | None = None
    brightness: Brightness = Brightness()
    penetration: Penetration | None = None
    dyes_per_protein: DyesPerProtein = DyesPerProtein(mean=4.0)
    retention: float = Field(default=1.0, gt=0, le=1)
    linker_nm: float = Field(default=0.0, ge=0, le=200)
    stained: Literal["before_expansion", "after_expansion"] = "before_expansion"
    unspecific_per_um3: float = Field(default=0.0, ge=0, le=1e6)

    @model_validator(mode="after")
    def _one_density(self) -> Self:
        if self.name == "cells":
            raise ValueError(
                "a layer cannot be named 'cells': the label image of all cells has that name; choose another"
            )
        if [self.density_per_um2, self.density_per_um3, self.density_from].count(None) != 2:
            raise ValueError(
                f"layer {self.name!r} needs exactly one of density_per_um2, density_per_um3 and density_from"
            )
        if self.density_per_um2 is not None and self.region != "membrane":
            raise ValueError(
                f"layer {self.name!r} gives density_per_um2, which is per surface of membrane, but labels region "
                f"{self.region!r}; give density_per_um3"
            )
        return self

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if self.density_from is not None and self.dyes_per_protein != DyesPerProtein(mean=4.0):
            raise ValueError(
                f"layer {self.name!r} counts dyes, not proteins, by density_from; leave dyes_per_protein out"
            )
        if self.region == EVERYWHERE and (self.cell_fraction < 1 or self.brightness.distribution != "fixed"):
            raise ValueError(
                f"layer {self.name!r} labels all tissue, where cells make no difference, so cell_fraction and brightness would "
                "have no effect; leave them out, or label a region of cells"
            )
        return self

    def sigma_nm(self, factor: float) -> float:
        """Standard deviation of the linker in nm of tissue."""
        return self.linker_nm / factor if self.stained == "after_expansion" else self.linker_nm

    def law(self, context: RunContext) -> EmissionLaw:
        """The emission law of a voxel."""
        kind, dyes, kept = self.dyes_per_protein.law(self.retention)
        volume = math.prod(float(v) for v in context.geometry.voxel_nm) * 1e-9
        by_surface = self.density_per_um2 is not None
        mean = self.density_per_um2 if self.density_per_um2 is not None else (self.density_per_um3 or 0.0) * volume
        grey = EmissionLaw._field_defaults["grey"]
        if self.density_from is not None:
            kind, dyes, kept = BINOMIAL, 1.0, self.retention
            mean, grey = self.density_from.most_per_um3 * volume, self.density_from.share
        full = mean * _largest_surface_um2(context) if by_surface else mean
        subcells, clumped = subdivide(context, full * dyes * kept, full, self.brightness.largest)
        sigma = self.sigma_nm(float(context.geometry.transform.scale))
        bits = 0 if self.region == EVERYWHERE else context.region_bits[self.region]
        return EmissionLaw(
            mean, by_surface, bits, kind, dyes, kept, (sigma, sigma, sigma), subcells, clumped, grey=grey
        )

    def unspecific_law(self, context: RunContext) -> EmissionLaw:
        """The emission law of unspecific binding, dye by dye."""
        volume = math.prod(float(v) for v in context.geometry.voxel_nm) * 1e-9
        mean = self.unspecific_per_um3 * volume * self.retention
        subcells, clumped = subdivide(context, mean, mean)
        return EmissionLaw(mean, False, 0, BINOMIAL, 1.0, 1.0, (0.0, 0.0, 0.0), subcells, clumped, UNSPECIFIC)


def _largest_surface_um2(context: RunContext) -> float:
    """Upper bound of the surface in one voxel: its six faces."""
    z, y, x = (float(v) * 1e-3 for v in context.geometry.voxel_nm)
    return 2 * (z * y + y * x + z * x)


def subdivide(
    context: RunContext, dyes_per_voxel: float, proteins_per_voxel: float, brightest: float = 1.0
) -> tuple[Triple, bool]:
    """Sub-cells of a voxel (z, y, x), and whether each draws its number of dyes at once.

    Numbers are means over cells, the brightest of which has `brightest` times as many.

    If a cell of `context.clump_cell_nm` would hold more than `context.clump_above` dyes on average, the voxel is
    divided into sub-cells no larger than that, which draw at once. Otherwise dyes are drawn protein by protein, in
    sub-cells of at most a few thousand dyes and proteins, because the number of either is part of the counter of a
    draw.
    """
    voxel = [float(v) for v in context.geometry.voxel_nm]
    if context.clump_cell_nm is not None:
        cell = context.clump_cell_nm
        share = math.prod(min(1.0, c / v) for c, v in zip(cell, voxel, strict=True))
        if dyes_per_voxel * share > context.clump_above:
            z, y, x = (math.ceil(v / c - 1e-9) for v, c in zip(voxel, cell, strict=True))
            return (max(1, z), max(1, y), max(1, x)), True
    most = brightest * max(dyes_per_voxel, proteins_per_voxel)
    parts = max(1, math.ceil((most / 4096) ** (1 / 3)))
    return (parts, parts, parts), False
