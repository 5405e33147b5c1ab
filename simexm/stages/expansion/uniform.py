"""Expansion: the gel swells and carries its dyes along."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import ClassVar, Literal

from pydantic import Field

from simexm.geometry.grid import NmBox, exact
from simexm.stages.contract import EMITTERS, EXPANDED, Chunk, EmitterStream, Quantity, RunContext, Stage, TileState


class Expansion(Stage):
    """Uniform expansion about the specimen's corner.

    Attributes
    ----------
    factor
        Linear factor; 4 to 4.5 for the first protocol (Chen, Tillberg & Boyden, Science 2015), up to 20 for iterated ones.
    """

    stage: Literal["expansion"] = "expansion"
    factor: float = Field(default=4.0, ge=1, le=100)

    reads: ClassVar[tuple[Quantity, ...]] = (EMITTERS,)
    writes: ClassVar[tuple[Quantity, ...]] = (EXPANDED,)

    @property
    def magnifies(self) -> Fraction:
        """The factor as it was written."""
        return exact(self.factor)

    def needs(self, wanted: NmBox, context: RunContext) -> dict[str, NmBox]:
        """The same box before expansion."""
        return {"emitters": wanted.scaled(1 / self.magnifies)}

    def run(self, state: TileState) -> None:
        """Scale the positions of the stream."""
        before: EmitterStream = state.read(EMITTERS)
        factor = float(self.magnifies)

        def chunks(dye: str) -> Iterator[Chunk]:
            for chunk in before.chunks(dye):
                for axis in chunk.emitters[:3]:
                    axis *= factor
                chunk.floor_nm *= factor
                yield chunk

        state.write(EXPANDED, EmitterStream(before.dyes, before.reach_nm * factor, chunks, before.varying))
