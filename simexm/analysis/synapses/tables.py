"""Tables of synapses, by our names or CAVE's, and tables that say to which cell a fragment belongs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.analysis.stored_table import Columns, StoredTable
from simexm.errors import OutputError

SYNAPSES = "synapses"
_SYNONYMS = {
    "pre": "pre_pt_root_id",
    "post": "post_pt_root_id",
    **{f"{axis}_nm": f"ctr_pt_position_{axis}" for axis in "zyx"},
}


def synapse_table(one: Any) -> StoredTable:
    """Open a table of synapses, by our names or those of CAVE; raises OutputError if columns are missing."""
    found = StoredTable.of(one, SYNAPSES, ("id",))
    for name, other in _SYNONYMS.items():
        if not {name, other} & {*found.columns}:
            raise OutputError(
                f"{found.path} has no column {name} (or {other}), but {', '.join(found.columns)}; name a table of synapses"
            )
    return found


def synapse_columns(columns: Columns) -> Columns:
    """A piece of a table of synapses by our names; `first` and `second` are the two cells where `pre` is 0, unknown."""
    found = {next((n for n, other in _SYNONYMS.items() if other == name), name): c for name, c in columns.items()}
    for name in ("id", "pre", "post"):
        found[name] = found[name].astype(np.uint64)
    return {"first": found["pre"], "second": found["post"], **found}


class MergeTable:
    """Which cell each fragment belongs to: a table with the columns fragment and cell, or id and owner.

    Raises OutputError if a fragment has two cells.
    """

    NAMES = (("fragment", "cell"), ("id", "owner"))

    def __init__(self, table: StoredTable) -> None:
        names = next((pair for pair in self.NAMES if {*pair} <= {*table.columns}), None)
        if names is None:
            raise OutputError(
                f"{table.path} has the columns {', '.join(table.columns)}, so it does not say to which cell a fragment belongs; "
                "name them fragment and cell"
            )
        columns = table.whole()
        fragments, cells = (columns[name].astype(np.uint64) for name in names)
        order = np.lexsort((cells, fragments))
        self._path, self._fragments, self._cells = table.path, fragments[order], cells[order]
        twice = np.flatnonzero((np.diff(self._fragments) == 0) & (np.diff(self._cells) != 0))
        if twice.size:
            raise OutputError(
                f"{table.path} gives fragment {self._fragments[twice[0]]} to the cells {self._cells[twice[0]]} and "
                f"{self._cells[twice[0] + 1]}, and its synapses would belong to both; leave one row for each fragment"
            )

    def cells_of(self, ids: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """The cell of each id; 0 remains 0. Raises OutputError for an id that the table does not have."""
        if not self._fragments.size:
            at, known = np.zeros(ids.shape, np.int64), ids == 0
        else:
            at = np.minimum(np.searchsorted(self._fragments, ids), self._fragments.size - 1)
            known = (self._fragments[at] == ids) | (ids == 0)
        if not known.all():
            raise OutputError(
                f"the id {ids[~known][0]} of a synapse is not in {self._path}, so its cell is unknown; add the row, with the id "
                "itself as cell if it was not merged"
            )
        found: NDArray[np.uint64] = np.where(
            ids == 0, np.uint64(0), self._cells[at] if self._cells.size else np.uint64(0)
        )
        return found
