"""Base of stages that move tissue, and the dyes in it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

from simexm.geometry.grid import NmBox, exact, exact3
from simexm.geometry.transform import Specimen, Transform
from simexm.stages.contract import EMITTERS, EXPANDED, Chunk, EmitterStream, Quantity, RunContext, Stage, TileState
from simexm.stages.frames import NO_FRAME, Frame


class Moving(Stage):
    """A stage that moves tissue to where it lies after expansion, by its `transform`."""

    reads: ClassVar[tuple[Quantity, ...]] = (EMITTERS,)
    writes: ClassVar[tuple[Quantity, ...]] = (EXPANDED,)

    @abstractmethod
    def transform(self, specimen: Specimen | None = None, frame: Frame = NO_FRAME) -> Transform:
        """Displacement of tissue; see `Stage.transform`."""

    def needs(self, wanted: NmBox, context: RunContext) -> dict[str, NmBox]:
        """The tissue that is moved into the box."""
        transform = self.transform(context.specimen, context.frame)
        return {"emitters": (transform.rough() if context.rough else transform).bound_inverse(wanted)}

    def run(self, state: TileState) -> None:
        """Move the emitters of the stream."""
        before: EmitterStream = state.read(EMITTERS)
        transform = self.transform(state.context.specimen, state.frame)
        # emitters come from voxels that touch the needed box, so they lie within the reach and a voxel of it
        reach = exact3((exact(before.reach_nm),) * 3)
        within = state.boxes["emitters"].grown(reach).grown(state.context.geometry.voxel_nm)

        def chunks(dye: str) -> Iterator[Chunk]:
            for chunk in before.chunks(dye):
                if chunk.layer is not None:
                    chunk.emitters = self.remaining(chunk.emitters, chunk.layer, state)
                transform.move(chunk.emitters[:3])
                chunk.floor_nm = transform.lowest_z(chunk.floor_nm, within)
                yield chunk

        depth = float(transform.depth(before.reach_nm, within))
        state.write(EXPANDED, replace(before, reach_nm=depth, chunks=chunks))
