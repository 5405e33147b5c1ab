"""Activity: which cells carry a calcium indicator, when they spike, and how bright the indicator is in each frame."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from simexm.geometry.grid import Box
from simexm.kernels.activity import traces
from simexm.kernels.labels.cells import count_voxels, sum_indices
from simexm.kernels.numbers.detmath import exp_array, normal_quantile_array
from simexm.names import Name
from simexm.random import derive_key, id_uniform
from simexm.settings import Frozen
from simexm.stages.contract import (
    ACTIVITY,
    LABELS,
    Counted,
    CountPass,
    LabelPart,
    Quantity,
    RunContext,
    SeriesPass,
    TileState,
)
from simexm.stages.products import Product
from simexm.stages.roles import CELLS, Labeller
from simexm.stages.sample.indicators import INDICATORS, Indicator, NamedIndicator
from simexm.stages.sample.spike_trains import SpikeTrains

SEEN = "indicator_cells"
"""Count pass of the cells."""
SERIES = "activity"
WARM_UP = 12
"""Decay times of calcium before the first frame, so that a movie does not begin in silence."""
FASTEST_HZ = 500.0
"""No neuron is active at a higher rate."""
_FRAMES = 1024
_MOMENTS = ("voxels", "z", "y", "x", "r2")
"""Sums over a cell's voxels of 1, of each index, and of y^2 + x^2."""

Rate = Annotated[float, Field(gt=0, le=FASTEST_HZ)]


class Gate(Frozen):
    """A switch between an active and a quiet state, of each cell by itself.

    Attributes
    ----------
    active_s, quiet_s
        Mean time that a cell stays in each state.
    quiet_rate
        Rate while quiet, relative to that while active.
    """

    active_s: float = Field(default=2.0, gt=0, le=1e6)
    quiet_s: float = Field(default=8.0, gt=0, le=1e6)
    quiet_rate: float = Field(default=0.05, ge=0, lt=1)


class Activity(Labeller):
    """Spikes and fluorescence of the cells that carry a calcium indicator, frame by frame.

    Spikes are Poisson in each frame, at rates that are lognormal across cells; a cell's spikes are a function of the seed, its
    id and the frame. The series, (cell, t), are stored as `activity/spikes`, `activity/calcium` (nM) and
    `activity/brightness` (relative to the saturated indicator).

    Attributes
    ----------
    name
        Name of the layer of cells with the indicator.
    dye
        Dye with the spectra, the extinction and the quantum yield of the saturated indicator.
    indicator
        A preset's name, or its figures.
    cell_fraction
        Share of the cells that carry the indicator, chosen by seed and cell id.
    concentration_uM, concentration_cv
        Indicator in the cells, and its coefficient of variation across cells (lognormal).
    rate_hz, rate_sigma
        Mean rate over cells and time, and the standard deviation of the logarithm of the cells' rates.
    gate
        Active and quiet times; without it cells are always active.
    correlation
        Correlation of the spike counts of two cells of one group, of equal rates and both active.
    groups
        Number of groups of cells with shared input.
    burst_share, burst_spikes
        Share of the events that are bursts, and their spikes, all in one frame.
    spikes
        Spike trains to be played instead of drawn ones.
    """

    stage: Literal["activity"] = "activity"
    name: Name = "neurons"
    dye: str
    indicator: NamedIndicator = Indicator(preset="GCaMP6f")
    cell_fraction: float = Field(default=1.0, gt=0, le=1)
    concentration_uM: float = Field(default=10.0, gt=0, le=1e4)
    concentration_cv: float = Field(default=0.3, ge=0, le=5)
    rate_hz: Rate = 1.0
    rate_sigma: float = Field(default=1.0, ge=0, le=3)
    gate: Gate | None = Gate()
    correlation: float = Field(default=0.0, ge=0, le=1)
    groups: int = Field(default=1, ge=1, le=100_000)
    burst_share: float = Field(default=0.0, ge=0, le=1)
    burst_spikes: int = Field(default=3, ge=2, le=100)
    spikes: SpikeTrains | None = None

    reads: ClassVar[tuple[Quantity, ...]] = (LABELS,)
    writes: ClassVar[tuple[Quantity, ...]] = (ACTIVITY,)
    on_gpu: ClassVar[bool] = False

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if self.name == "cells":
            raise ValueError(
                "the layer cannot be named 'cells': the label image of all cells has that name; choose another"
            )
        if self.active_hz > FASTEST_HZ:
            raise ValueError(
                f"rate_hz {self.rate_hz:g} on average, in cells that are active for {self._active:.2g} of the time, "
                f"is {self.active_hz:.3g} Hz while active, more than the {FASTEST_HZ:g} Hz that a neuron can fire; lower "
                "rate_hz, or raise gate.active_s"
            )
        return self

    # ---------------------------------------------------------------- the role

    @property
    def region(self) -> str:
        """The region of the layer: cells as a whole."""
        return "cytosol"

    @property
    def named_layers(self) -> tuple[Activity, ...]:
        """The only layer, this stage."""
        return (self,)

    @property
    def regions_used(self) -> tuple[tuple[str, str], ...]:
        """None: cells carry the indicator as a whole."""
        return ()

    @property
    def varies(self) -> frozenset[str]:
        """Time."""
        return frozenset({"time"})

    def labelled(self, layer: str, ids: NDArray[np.uint64], seed: int, counted: Counted) -> NDArray[np.uint8]:
        """See `Labeller`."""
        chosen = id_uniform(ids, derive_key(seed, self.stage, layer, "cells")) < self.cell_fraction
        return np.asarray(chosen & (ids != 0), np.uint8)

    def resolved(self, curves: Mapping[str, Any]) -> Self:
        """See `Stage`: with a checksum of the spike trains."""
        return self if self.spikes is None else self.model_copy(update={"spikes": self.spikes.resolved()})

    def concentrations_uM(self, ids: NDArray[np.uint64], seed: int) -> NDArray[np.float64]:
        """Indicator in each cell; 0 in cells without."""
        sigma = round(math.sqrt(math.log1p(self.concentration_cv**2)), 12)
        spread = _lognormal(ids, sigma, derive_key(seed, self.stage, self.name, "concentration"))
        return np.where(self.labelled(self.name, ids, seed, Counted()), self.concentration_uM * spread, 0.0)

    # ---------------------------------------------------------------- rates

    @property
    def _active(self) -> float:
        """Share of the time that cells are active."""
        return 1.0 if self.gate is None else self.gate.active_s / (self.gate.active_s + self.gate.quiet_s)

    @property
    def active_hz(self) -> float:
        """Mean rate over cells while active."""
        quiet = self.gate.quiet_rate if self.gate else 1.0
        return self.rate_hz / (self._active + (1 - self._active) * quiet)

    def rates_hz(self, ids: NDArray[np.uint64], seed: int) -> NDArray[np.float64]:
        """Rate of each cell while active."""
        spread = _lognormal(ids, self.rate_sigma, derive_key(seed, self.stage, self.name, "rate"))
        return np.minimum(self.active_hz * spread, FASTEST_HZ)

    def _groups(self, ids: NDArray[np.uint64], seed: int) -> NDArray[np.int64]:
        """Group of each cell."""
        return np.asarray(id_uniform(ids, derive_key(seed, self.stage, self.name, "group")) * self.groups, np.int64)

    def law(self, frame_s: float) -> traces.Law:
        """What the kernels need."""
        gate, one, curve = self.gate, self.indicator.response, self.indicator.curve
        opens, closes = (1.0, 0.0)
        if gate:
            opens, closes = (float(-np.expm1(-frame_s / s)) for s in (gate.quiet_s, gate.active_s))
        return traces.Law(
            frame_s=frame_s,
            opens=round(opens, 12),
            closes=round(closes, 12),
            quiet=gate.quiet_rate if gate else 1.0,
            shared=self.correlation,
            burst_share=self.burst_share,
            burst_spikes=self.burst_spikes,
            rise_s=one.rise_s,
            decay_s=one.decay_s,
            scale_nM=round(one.spike_nM * one.scale, 9),
            rest_nM=self.indicator.rest_nM,
            kd_nM=curve.kd_nM,
            hill=curve.coefficient,
            dark=1 / curve.dynamic_range,
        )

    # ---------------------------------------------------------------- passes

    def passes(self) -> tuple[CountPass, ...]:
        """Count the voxels of each cell, and add up their indices, from which its centre and width follow."""
        return (CountPass(SEEN, _MOMENTS),)

    def count_box(self, name: str, own: Box, context: RunContext) -> Box:
        """The voxels themselves."""
        return own

    def count(self, name: str, own: Box, part: LabelPart, state: TileState) -> dict[str, NDArray[np.int64]]:
        """Count one box."""
        mine = own.relative_to(part.box.start)
        n = len(part.cells.ids)
        columns = {column: np.zeros(n, np.int64) for column in _MOMENTS}
        count_voxels(part.index, mine.start, mine.stop, columns["voxels"])
        sum_indices(part.index, mine.start, mine.stop, own.start, *(columns[c] for c in _MOMENTS[1:]))
        return columns

    def series(self, context: RunContext) -> tuple[SeriesPass, ...]:
        """Spikes, calcium and brightness of all cells."""
        columns = {"spikes": "uint16", "calcium": "float32", "brightness": "float32"}
        return (SeriesPass(SERIES, SEEN, columns),) if context.acquisition.time else ()

    def follow(
        self, wanted: SeriesPass, ids: NDArray[np.uint64], context: RunContext
    ) -> Iterator[dict[str, NDArray[Any]]]:
        """Yield the columns of some cells, (cells, frames), some frames at a time, from the states before the movie on."""
        assert context.acquisition.time is not None
        seconds = context.acquisition.time.coordinates
        frame_s = seconds[1] - seconds[0] if len(seconds) > 1 else 1.0
        law = self.law(frame_s)
        before = math.ceil(WARM_UP * law.decay_s / frame_s)
        base = derive_key(context.seed, self.stage, self.name)
        u = id_uniform(ids, derive_key(context.seed, self.stage, self.name, "gate"))
        on = np.asarray(u < self._active, np.uint8)
        states = traces.States(on, np.zeros(ids.size), np.zeros(ids.size))
        means = self.rates_hz(ids, context.seed) * frame_s
        means[self.labelled(self.name, ids, context.seed, Counted()) == 0] = 0.0
        groups = self._groups(ids, context.seed)
        played = None if self.spikes is None else self.spikes.counts(ids, frame_s, len(seconds))

        def run(first: int, frames: int, given: NDArray[np.int64] | None) -> dict[str, NDArray[Any]]:
            return traces.run(ids, first, frames, means, groups, law, base, states, given)

        if played is None:
            run(0, before, None)
        for first in range(0, len(seconds), _FRAMES):
            frames = min(_FRAMES, len(seconds) - first)
            yield run(before + first, frames, None if played is None else played[:, first : first + frames])

    # ---------------------------------------------------------------- tables

    def products(self, context: RunContext) -> tuple[Product, ...]:
        """The table of cells."""
        return (Product(CELLS, "table", columns={"voxels": "int64"}, key="id", merge="sum"),)

    def rows(self, product: Product, state: TileState) -> dict[str, NDArray[Any]]:
        """Voxels of the cells of the tile."""
        ids, voxels = state.cell_ids, state.tally.voxels.at(state.cell_ids)
        here = (voxels > 0) & (ids != 0)
        return {"id": ids[here], "voxels": voxels[here]}

    def table(
        self, product: Product, sums: Mapping[str, NDArray[Any]], context: RunContext, counted: Counted
    ) -> dict[str, NDArray[Any]]:
        """Columns of the table of cells.

        `id`; `voxels`; `layers`, the stage's name for cells with the indicator; `z_um`, `y_um`, `x_um`, centre in the coordinates
        of the source; `concentration_uM`; `rate_hz` while active; `group` with shared input.
        """
        ids, moments = sums["id"], counted[SEEN].look_up(sums["id"])
        flags = self.labelled(self.name, ids, context.seed, counted) != 0
        layers = np.where(flags, self.name, "").astype(object)
        n, g = np.maximum(moments["voxels"], 1), context.geometry
        places = {
            f"{axis}_um": (float(o) + (moments[axis] / n + 0.5) * float(v)) / 1000
            for axis, o, v in zip("zyx", g.origin_nm, g.voxel_nm, strict=True)
        }
        own = {
            "concentration_uM": self.concentrations_uM(ids, context.seed),
            "rate_hz": np.where(flags, self.rates_hz(ids, context.seed), 0.0),
            "group": self._groups(ids, context.seed),
        }
        return {"id": ids, "voxels": sums["voxels"], "layers": layers, **places, **own}

    def sums(self, product: Product, sums: Mapping[str, NDArray[Any]]) -> dict[str, int]:
        """Cells."""
        return {f"cells_{self.name}": int(sums["id"].size)}

    def end_warnings(self, sums: Mapping[str, int]) -> list[str]:
        """None."""
        return []

    def provenance(self, sums: Mapping[str, int]) -> dict[str, Any]:
        """Number of cells, and the indicator with its figures and their source."""
        about = {"indicator": self.indicator.model_dump(mode="json")}
        if self.indicator.preset:
            known = INDICATORS[self.indicator.preset]
            about["indicator"] |= {"source": known.source, "unchecked": list(known.unchecked)}
        return {"cells": sums.get(f"cells_{self.name}", 0), "dyes": {}, **about}

    # ---------------------------------------------------------------- a tile

    def run(self, state: TileState) -> None:
        """Write the series' reader."""
        state.write(ACTIVITY, state.series.get(SERIES))

    def tile_bytes(self, voxels: Box, context: RunContext) -> int:
        """A few columns of all cells, of which there is at most one in a hundred voxels."""
        return voxels.size // 8


def _lognormal(ids: NDArray[np.uint64], sigma: float, key: tuple[int, int]) -> NDArray[np.float64]:
    """Lognormal number of each cell, of mean 1."""
    g = normal_quantile_array(id_uniform(ids, key))
    return np.asarray(exp_array(sigma * g - sigma * sigma / 2))
