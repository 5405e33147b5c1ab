"""Check that the labels of a run do not change between its first block and its last, however often it was stopped.

`LabelSource.identity` recognises labels wherever they are stored, but does not read all of their files. So the names,
sizes and times of all chunk files that the run reads are summed up when a driver begins, and again before the result is
marked complete. The sums are stored in `OUT.run/source.json` for the next driver of a stopped run. The labels may be moved
or copied meanwhile: a copy has the same names and sizes, and new times for chunks and metadata. If only the times of chunks
are new, chunks were edited.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
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

_AGAIN = "compute it again with --overwrite once they are correct"


@dataclass(frozen=True)
class SameSource:
    """State of the files of a run's labels and masks when its driver began."""

    plan: Plan
    where: Place
    states: Mapping[str, FilesState]  # by name of the mask; of the labels as ""

    @classmethod
    def begin(cls, plan: Plan, where: Place) -> SameSource:
        """List all files, and compare them with the list of an earlier driver of the same run.

        Raises RunError if they have changed, SourceError if they cannot be listed.
        """
        states = _list_files(plan)
        earlier = _read(where)
        if earlier.get("changed"):
            raise RunError(f"{earlier['changed']}: {_AGAIN}")
        for name, state in states.items():
            _refuse_changed(where, state, earlier.get("volumes", {}).get(name))
        found = cls(plan, where, states)
        if found._mapping() != earlier.get("volumes", {}):
            found._write()
        return found

    @property
    def listed(self) -> dict[str, ShardList]:
        """Lists of chunk files by name of the volume."""
        return {name: state.listed for name, state in self.states.items() if state.listed is not None}

    def end(self) -> None:
        """Compare again before the result is marked complete; raise RunError if the labels are gone or have changed."""
        try:
            same, states = self.plan.simulation.source.open().identity == self.plan.identity, _list_files(self.plan)
        except SourceError as error:
            raise RunError(
                f"all blocks are done, but the labels cannot be read any more ({error}), so it is unknown whether all blocks "
                f"read the same labels. {self.where.zarr} is not marked complete. Restore the labels, then type the same "
                "command again"
            ) from error
        if same and states == self.states:
            return
        changed = next((s.where for n, s in self.states.items() if states.get(n) != s), "the source")
        text = (
            f"the labels ({changed}) were changed while the run read them, so blocks of {self.where.zarr.name} may come from two "
            "different volumes and it is not marked complete"
        )
        self._write(changed=text)
        raise RunError(f"{text}: {_AGAIN}")

    def _write(self, **more: str) -> None:
        content = {"volumes": self._mapping(), **more}
        if content["volumes"] or more:
            Files(self.where.run, self.where.scratch).put(SOURCE, json.dumps(content, indent=2).encode())

    def _mapping(self) -> dict[str, Any]:
        return {name: state.to_mapping() for name, state in self.states.items()}


def _list_files(plan: Plan) -> Mapping[str, FilesState]:
    return plan.simulation.source.open().state(_voxels_read(plan), plan.context.read_beside)


def _voxels_read(plan: Plan) -> Box:
    """Return the box of all voxels that the run reads."""
    whole = Box.of_shape(plan.shape)
    frames = plan.context.transforms or plan.frames[:1]
    boxes = [plan.geometry.voxels(plan.boxes(whole, frame)["labels"]).grown((1, 1, 1)) for frame in frames]
    box = reduce(Box.hull, boxes)
    own = plan.geometry.own_voxels(whole)
    for stage, wanted in all_passes(plan):
        counted = stage.count_box(wanted.name, own, plan.context)
        box = box if counted is None else box.hull(counted)
    return box.intersect(Box.of_shape(plan.geometry.volume))


def _read(where: Place) -> dict[str, Any]:
    """Read the file of an earlier driver; empty if it is missing or damaged."""
    try:
        found = read_mapping(where.run / SOURCE)
    except (FileNotFoundError, ValueError):
        return {}
    valid = isinstance(found.get("volumes"), dict) and isinstance(found.get("changed", ""), str)
    return found if valid else {}


def _refuse_changed(where: Place, now: FilesState, then: Any) -> None:
    """Raise if the labels' files differ from those of an earlier driver."""
    if not isinstance(then, dict):
        return
    remedy = f"Restore them, then type the same command again; or {_AGAIN}"
    if (now.files, now.names) != (then.get("files"), then.get("names")):
        raise RunError(
            f"{now.where} has {now.files} chunk files; their number, names or sizes have changed since the run to {where.zarr} "
            f"began with {then.get('files')}, so the other blocks would come from another volume. {remedy}"
        )
    if now.written == then.get("written") and now.times != then.get("times"):
        raise RunError(
            f"chunk files of {now.where} were written again since the run to {where.zarr} began, so the other blocks would come "
            f"from another volume. {remedy}"
        )
