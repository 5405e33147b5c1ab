"""The labels that a run reads are the same from its first block to its last, however often it was stopped.

Identity (`LabelSource.identity`) tells other labels from these wherever they stand, but does not look into all of their files.
So the names, sizes and times of all chunk files that the run reads are added up when a driver begins, and again before the
result is marked complete. What was found is kept in `OUT.run/source.json` for the next driver of a run that was
stopped. The labels may have been moved or copied meanwhile: a copy has the same names and sizes, and its metadata are of
another time, too. Where these are of the same time but chunks are not, chunks were edited.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from simexm.errors import RunError, SourceError
from simexm.geometry.grid import Box
from simexm.planning.plan import Plan
from simexm.result.place import SOURCE, Place
from simexm.run.passes import all_passes
from simexm.sources.state import FilesState
from simexm.store.documents import read_mapping
from simexm.store.files import Files
from simexm.store.shard_list import ShardList

_ANEW = "make it again with --overwrite once they are as they should be"


@dataclass(frozen=True)
class SameSource:
    """How the files of a run's labels and masks were when its driver began.

    Attributes
    ----------
    states
        By the mask's name, that of the labels as "".
    """

    plan: Plan
    where: Place
    states: Mapping[str, FilesState]

    @classmethod
    def begin(cls, plan: Plan, where: Place) -> SameSource:
        """Look at all files, and compare them with what an earlier driver of the same run found.

        Raises
        ------
        RunError
            If they are others.
        SourceError
            If they cannot be looked at.
        """
        states = _look(plan)
        kept = _kept(where)
        if kept.get("changed"):
            raise RunError(f"{kept['changed']}: {_ANEW}")
        for name, state in states.items():
            _refuse_other(where, state, kept.get("volumes", {}).get(name))
        found = cls(plan, where, states)
        if found._mapping() != kept.get("volumes", {}):
            found._keep()
        return found

    @property
    def listed(self) -> dict[str, ShardList]:
        """Which chunk files exist, by name of the volume."""
        return {name: state.listed for name, state in self.states.items() if state.listed is not None}

    def end(self) -> None:
        """Look again, before the result is marked complete.

        Raises
        ------
        RunError
            If the labels are gone or were changed meanwhile.
        """
        try:
            same, states = self.plan.simulation.source.open().identity == self.plan.identity, _look(self.plan)
        except SourceError as error:
            raise RunError(
                f"all blocks are done, but at the end the labels cannot be read any more ({error}), so it is not known whether "
                f"all blocks read the same. {self.where.zarr} is not marked complete. Bring the labels back, then type the same "
                "command again"
            ) from error
        if same and states == self.states:
            return
        odd = next((s.where for n, s in self.states.items() if states.get(n) != s), "the source")
        text = (
            f"the labels ({odd}) were changed while the run read them, so blocks of {self.where.zarr.name} may come from two "
            "different volumes and it is not marked complete"
        )
        self._keep(changed=text)
        raise RunError(f"{text}: {_ANEW}")

    def _keep(self, **more: str) -> None:
        told = {"volumes": self._mapping(), **more}
        if told["volumes"] or more:
            Files(self.where.run, self.where.scratch).put(SOURCE, json.dumps(told, indent=2).encode())

    def _mapping(self) -> dict[str, Any]:
        return {name: state.to_mapping() for name, state in self.states.items()}


def _look(plan: Plan) -> Mapping[str, FilesState]:
    return plan.simulation.source.open().state(_voxels_read(plan), plan.context.masks)


def _voxels_read(plan: Plan) -> Box:
    """All voxels that some block reads."""
    whole = Box.of_shape(plan.shape)
    box = plan.geometry.voxels(plan.boxes(whole)["labels"]).grown((1, 1, 1))
    own = plan.geometry.own_voxels(whole)
    for stage, wanted in all_passes(plan):
        counted = stage.count_box(wanted.name, own, plan.context)
        box = box if counted is None else box.hull(counted)
    return box.intersect(Box.of_shape(plan.geometry.volume))


def _kept(where: Place) -> dict[str, Any]:
    """What an earlier driver kept; nothing where there was none, or its file is damaged."""
    try:
        found = read_mapping(where.run / SOURCE)
    except (FileNotFoundError, ValueError):
        return {}
    sensible = isinstance(found.get("volumes"), dict) and isinstance(found.get("changed", ""), str)
    return found if sensible else {}


def _refuse_other(where: Place, now: FilesState, then: Any) -> None:
    """Refuse labels whose files are not those that an earlier driver found."""
    if not isinstance(then, dict):
        return
    remedy = f"Bring them back as they were, then type the same command again; or {_ANEW}"
    if (now.files, now.names) != (then.get("files"), then.get("names")):
        raise RunError(
            f"{now.where} has {now.files} chunk files, not the {then.get('files')} of the same names and sizes that it had when "
            f"the run to {where.zarr} began, so its other blocks would come from another volume. {remedy}"
        )
    if now.written == then.get("written") and now.times != then.get("times"):
        raise RunError(
            f"chunk files of {now.where} were written anew since the run to {where.zarr} began, so its other blocks would come "
            f"from another volume. {remedy}"
        )
