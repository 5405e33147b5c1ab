"""Derive from the stages' inputs and declarations what a run computes once, and what for each frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

from simexm.errors import SpecError
from simexm.stages.contract import EMITTERS, EXPANDED, LABELLED, Stage
from simexm.stages.frames import AXES, Acquisition, FrameAxis


def main_quantity(stage: Stage) -> str | None:
    """Return the quantity that a stage writes on the image's grid: image, expected, labelled, or None."""
    names = {q.name for q in stage.writes}
    if names & {EMITTERS.name, EXPANDED.name}:
        return LABELLED.name
    return next(iter(names & {"image", "expected"}), None)


def main_of(stages: Sequence[Stage]) -> str:
    """Return the quantity of the main image: that of the last stage with one."""
    return next(m for m in (main_quantity(s) for s in reversed(stages)) if m)


@dataclass(frozen=True)
class Variation:
    """Frame axes with which the outputs of each stage vary, and each quantity."""

    stages: tuple[frozenset[str], ...]
    quantities: Mapping[str, frozenset[str]]

    @classmethod
    def of(cls, stages: Sequence[Stage], axes: Set[str]) -> Variation:
        """Join the axes of each stage, out of `axes`, with those of its inputs."""
        quantities: dict[str, frozenset[str]] = {}
        found = []
        moved = frozenset[str]().union(*(stage.moves for stage in stages)).intersection(axes)
        for stage in stages:
            inputs = (quantities.get(q.name, frozenset()) for q in stage.inputs)
            varies = stage.varies.intersection(axes).union(*inputs, moved if stage.on_grid else ())
            quantities |= {q.name: varies for q in stage.writes}
            found.append(varies)
        # dyes per pixel vary as the emitters do, from which they are counted, and as they move
        return cls(tuple(found), {LABELLED.name: moved | quantities.get(EMITTERS.name, frozenset()), **quantities})


def acquisition(stages: Sequence[Stage]) -> Acquisition:
    """Make the frames of imaging: along each axis that a stage adds and with which the main image varies.

    Raises SpecError if two stages add different axes of one name.
    """
    added: dict[str, tuple[FrameAxis, Stage]] = {}
    for stage in stages:
        for axis in stage.frame_axes:
            known, by = added.setdefault(axis.name, (axis, stage))
            if known != axis:
                raise SpecError(
                    f"the stage {by.tag!r} has {len(known.coordinates)} frames along the axis {axis.name!r}, and the stage "
                    f"{stage.tag!r} {len(axis.coordinates)}, so it is unknown what is imaged; give both the same"
                )
    varies = Variation.of(stages, added.keys()).quantities[main_of(stages)]
    return Acquisition.of(axis for axis, _ in added.values() if axis.name in varies)


def once_and_each(stages: Sequence[Stage], frames: Acquisition) -> tuple[tuple[Stage, ...], tuple[Stage, ...]]:
    """Return the stages that run once for all frames, and those that run for each; with one frame all are of the latter.

    A stage that replaces an input of an earlier one, needed again in the next frame, runs for each, too.
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
    """Return the dyes that the stage `until` (the microscope) must compute again in each frame."""
    each = once_and_each(stages, frames)[1] if frames.axes else ()
    if until not in each:
        return set()
    dyes = dyes - frozenset().union(*(s.flashes for s in stages))
    before = [s for s in each[: each.index(until)] if s.varies & frames.names]
    return {dye for s in before for dye in s.emits.values()} & dyes if all(s.emits for s in before) else dyes


GROUP_AXES = AXES[:-1]
"""Axes with a group for each coordinate; time is an axis of the arrays instead."""
