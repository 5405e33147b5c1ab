"""What of a run is made once, and what for each frame of the acquisition: it follows from what stages read and declare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

from simexm.errors import SpecError
from simexm.stages.contract import EMITTERS, EXPANDED, LABELLED, Stage
from simexm.stages.frames import AXES, Acquisition, FrameAxis


def main_quantity(stage: Stage) -> str | None:
    """What a stage leaves on the image's grid: image, expected, labelled, or None."""
    names = {q.name for q in stage.writes}
    if names & {EMITTERS.name, EXPANDED.name}:
        return LABELLED.name
    return next(iter(names & {"image", "expected"}), None)


def main_of(stages: Sequence[Stage]) -> str:
    """The quantity of the main image: that of the last stage which leaves one."""
    return next(m for m in (main_quantity(s) for s in reversed(stages)) if m)


@dataclass(frozen=True)
class Variation:
    """With which frame axes things vary.

    Attributes
    ----------
    stages
        Axes with which what each stage writes varies, in the order of the stages.
    quantities
        The same by quantity.
    """

    stages: tuple[frozenset[str], ...]
    quantities: Mapping[str, frozenset[str]]

    @classmethod
    def of(cls, stages: Sequence[Stage], axes: Set[str]) -> Variation:
        """What varies with which of these axes: what a stage itself varies with, and what its inputs do."""
        quantities: dict[str, frozenset[str]] = {}
        found = []
        for stage in stages:
            inputs = (quantities.get(q.name, frozenset()) for q in stage.inputs)
            varies = stage.varies.intersection(axes).union(*inputs)
            quantities |= {q.name: varies for q in stage.writes}
            found.append(varies)
        # dyes per pixel are counted as the emitters come by
        return cls(tuple(found), {LABELLED.name: quantities.get(EMITTERS.name, frozenset()), **quantities})


def acquisition(stages: Sequence[Stage]) -> Acquisition:
    """The frames of imaging: along each axis that a stage adds and with which the main image varies.

    Raises
    ------
    SpecError
        If two stages add the same axis.
    """
    added: dict[str, tuple[FrameAxis, Stage]] = {}
    for stage in stages:
        for axis in stage.frame_axes:
            if axis.name in added:
                raise SpecError(
                    f"the stages {added[axis.name][1].tag!r} and {stage.tag!r} both add the frame axis {axis.name!r}, so how "
                    "often the specimen is imaged is not known; take one of them out"
                )
            added[axis.name] = axis, stage
    varies = Variation.of(stages, added.keys()).quantities[main_of(stages)]
    return Acquisition.of(axis for axis, _ in added.values() if axis.name in varies)


def once_and_each(stages: Sequence[Stage], frames: Acquisition) -> tuple[tuple[Stage, ...], tuple[Stage, ...]]:
    """The stages that run once for all frames, and those that run for each; all of the latter where there is one frame.

    A stage that replaces what an earlier one still needs for the next frame runs for each, too.
    """
    if not frames.axes:
        return (), tuple(stages)
    once, each, used = [], [], set[str]()
    for stage, varies in zip(stages, Variation.of(stages, frames.names).stages, strict=True):
        if varies or used & {q.name for q in stage.writes}:
            each.append(stage)
            used |= {q.name for q in (*stage.inputs, *stage.writes)}
        else:
            once.append(stage)
    return tuple(once), tuple(each)


def varying_dyes(stages: Sequence[Stage], frames: Acquisition, dyes: Set[str], until: Stage) -> Set[str]:
    """Those dyes that the stage `until` (the microscope) must follow anew in each frame."""
    each = once_and_each(stages, frames)[1] if frames.axes else ()
    if until not in each:
        return set()
    before = [s for s in each[: each.index(until)] if s.varies & frames.names]
    return {dye for s in before for dye in s.emits.values()} & dyes if all(s.emits for s in before) else dyes


GROUP_AXES = AXES[:-1]
"""Axes of which each place has a group of its own; time is an axis of the arrays."""
