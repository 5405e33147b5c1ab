"""Drift of the microscope's stage during a movie, with its truth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from simexm.errors import SpecError
from simexm.geometry.grid import NmBox, exact3, three
from simexm.kernels.numbers.detmath import normal_quantile_array
from simexm.random import Key, derive_key, philox_array, unit_double_array
from simexm.stages.contract import EXPANDED, Chunk, EmitterStream, Quantity, RunContext, Stage, TileState
from simexm.stages.products import Product

TABLE = "shifts"
_MOST_NM = 20_000.0
Place = tuple[float, float, float]


class Drift(Stage):
    """Drift of the specimen under the objective, from frame to frame; it rests while a frame is exposed.

    Parts are added, in expanded nm. The table `shifts` has the shift of each frame, in um of tissue: a dye lies in a frame at
    its place plus the shift.

    Attributes
    ----------
    linear_nm_per_s
        Steady drift along z, y, x.
    walk_nm
        Standard deviation along z, y, x of a random walk after one second.
    given
        Times in s, and shifts z, y, x in nm, between which the shift is interpolated.
    """

    stage: Literal["drift"] = "drift"
    linear_nm_per_s: Place = (0.0, 0.0, 0.0)
    walk_nm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    given: tuple[tuple[float, float, float, float], ...] = Field(default=(), max_length=1_000_000)

    reads: ClassVar[tuple[Quantity, ...]] = (EXPANDED,)
    writes: ClassVar[tuple[Quantity, ...]] = (EXPANDED,)

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not (any(self.linear_nm_per_s) or any(self.walk_nm) or self.given):
            raise ValueError("drift moves nothing; give linear_nm_per_s, walk_nm or given, or remove the stage")
        if min(self.walk_nm) < 0:
            raise ValueError(f"walk_nm {list(self.walk_nm)} are standard deviations, which are not negative")
        times = [row[0] for row in self.given]
        if sorted(set(times)) != times:
            raise ValueError("the times of `given` must ascend; sort its rows, and leave out those of equal times")
        return self

    @property
    def varies(self) -> frozenset[str]:
        """Time."""
        return frozenset({"time"})

    def refuse(self, context: RunContext) -> None:
        """See `Stage`."""
        if context.acquisition.time is None:
            raise SpecError(
                "drift moves the specimen between frames of a movie, but there is none; add blinking, or remove it"
            )
        most = float(np.abs(self.shifts_nm(context)).max())
        if most > _MOST_NM:
            raise SpecError(
                f"the drift reaches {most / 1000:.3g} um, so the specimen would leave the image, and each tile reads as much "
                "around it; lower linear_nm_per_s or walk_nm"
            )

    def shifts_nm(self, context: RunContext) -> NDArray[np.float64]:
        """Shift of each frame, (frames, 3), z y x, nm of the image."""
        assert context.acquisition.time is not None
        key = derive_key(context.seed, self.stage, "walk")
        return _shifts(self, context.acquisition.time.coordinates, key)

    def needs(self, wanted: NmBox, context: RunContext) -> dict[str, NmBox]:
        """A halo of the largest shift."""
        if context.acquisition.time is None:
            return {"expanded": wanted}
        z, y, x = np.ceil(np.abs(self.shifts_nm(context)).max(axis=0)).tolist()
        return {"expanded": wanted.grown(exact3((z, y, x)))}

    def run(self, state: TileState) -> None:
        """Shift the dyes of a tile as they stream by."""
        before: EmitterStream = state.read(EXPANDED)
        shift = self.shifts_nm(state.context)[max(state.frame.time, 1) - 1]

        def chunks(dye: str) -> Iterator[Chunk]:
            for chunk in before.chunks(dye):
                for axis, by in zip(chunk.emitters[:3], shift, strict=True):
                    axis += by
                chunk.floor_nm += shift[0]
                yield chunk

        varying = frozenset(before.dyes.values())
        state.write(EXPANDED, replace(before, chunks=chunks, varying=varying))

    def products(self, context: RunContext) -> tuple[Product, ...]:
        """The table of shifts."""
        columns = {"time": "int64", **dict.fromkeys(("z_um", "y_um", "x_um"), "float64")}
        return (Product(TABLE, "table", columns=columns, each_frame=True),)

    def rows(self, product: Product, state: TileState) -> dict[str, NDArray[Any]]:
        """The frame's row, from the tile in the corner; none from others."""
        frames = [state.frame.time - 1] if state.pixels.start == (0, 0, 0) else []
        found = self.shifts_nm(state.context)[frames] / (1000 * float(state.context.geometry.transform.scale))
        return {"time": np.array(frames, np.int64), **{f"{a}_um": found[:, n] for n, a in enumerate("zyx")}}


@lru_cache(maxsize=8)
def _shifts(drift: Drift, seconds: tuple[float, ...], key: Key) -> NDArray[np.float64]:
    times = np.array(seconds)
    found = times[:, None] * np.array(drift.linear_nm_per_s)
    if any(drift.walk_nm):
        frames = np.arange(1, times.size)
        steps = np.zeros(found.shape)
        for axis, sigma in enumerate(drift.walk_nm):
            words = philox_array(frames, axis, 0, 0, key)
            normal = normal_quantile_array(unit_double_array(words[0].astype(np.float64), words[1]))
            steps[1:, axis] = sigma * np.sqrt(np.diff(times)) * normal
        found = found + np.cumsum(steps, axis=0)
    if drift.given:
        table = np.array(drift.given)
        z, y, x = three(np.interp(times, table[:, 0], table[:, n]) for n in (1, 2, 3))
        found = found + np.stack([z, y, x], axis=1)
    found = np.asarray(found)
    found.flags.writeable = False
    return found
