"""Check that the volumes of an analysis do not change between its first block and its last, however often it was stopped.

`Volume.identity` recognises a volume wherever it is stored, but reads a few of its planes only. So names, sizes and times of its
files are compared when a driver goes on and before the result is marked complete, as `simexm.run.same_source` does for labels.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from simexm.analysis.plan import AnalysisPlan
from simexm.analysis.volume import Volume
from simexm.errors import RunError
from simexm.geometry.grid import Box
from simexm.result.place import SOURCE, Place
from simexm.sources.stack import gone_error
from simexm.store.documents import read_mapping
from simexm.store.files import Files


@dataclass(frozen=True)
class SameInputs:
    """State of the files of an analysis's volumes when its driver began."""

    plan: AnalysisPlan
    states: dict[str, Any]

    @classmethod
    def begin(cls, plan: AnalysisPlan, where: Place) -> SameInputs:
        """List the files, and compare them with the list of an earlier driver; raises RunError if they have changed."""
        found = cls(plan, _states(plan))
        if (where.run / SOURCE).is_file():
            found._refuse_other(read_mapping(where.run / SOURCE))
        else:
            Files(where.run, where.scratch).put(SOURCE, (json.dumps(found.states) + "\n").encode())
        return found

    def end(self) -> None:
        """List the files again; raises RunError if they have changed."""
        SameInputs(self.plan, _states(self.plan))._refuse_other(self.states)

    def _refuse_other(self, earlier: dict[str, Any]) -> None:
        for name, now in self.states.items():
            before = earlier.get(name, now)
            same = [before.get(key) == now[key] for key in ("files", "names")]
            copied = before.get("written") != now["written"]  # then the times are new, too
            if not all(same) or (before.get("times") != now["times"] and not copied):
                raise RunError(
                    f"{name} was changed after the analysis began, so its blocks would be of two volumes; type the command again "
                    "with --overwrite"
                )


def _states(plan: AnalysisPlan) -> dict[str, Any]:
    """State of each volume's files, by its name in messages; without those whose files cannot be listed."""
    found: dict[str, Any] = {}
    for volume in (one for one in plan.inputs if isinstance(one, Volume)):
        try:
            state = volume.stack.state(Box.of_shape(volume.shape))
        except OSError as error:
            raise gone_error(volume.where, error) from error
        if state is not None:
            found[volume.where] = state.to_mapping()
    return found
