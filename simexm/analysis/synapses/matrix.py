"""The matrix of who contacts whom: synapses by pair of cells, after fragments were merged to cells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
from numpy.typing import NDArray
from pydantic import Field

from simexm.analysis.contract import Analysis, Bench, Conclusion, Score
from simexm.analysis.stored_table import Columns, StoredTable, hashes
from simexm.analysis.synapses.inputs import VALUES
from simexm.analysis.synapses.tables import SYNAPSES, MergeTable, synapse_columns, synapse_table
from simexm.errors import OutputError
from simexm.jobs.keyed_rows import Keyed, MergedRows
from simexm.store.location import Location

TABLE, CELLS, TYPES = "matrix", "cells", "types"
PAIRS = Keyed(("pre", "post"), dict.fromkeys(("synapses", "area_nm2", "voxels", "excitatory", "inhibitory"), "sum"))
ENDS = Keyed(("id",), dict.fromkeys(("outgoing", "incoming", "area_out_nm2", "area_in_nm2"), "sum"))
VOTES = Keyed(("id", "cell_type"), {"synapses": "sum"})
MERGE, HEADS = "merge", "spine_heads"
SECONDS_PER_ROW, COPIES = 2e-6, 6
"""Rough work of a synapse; and copies of a piece of the table in memory."""


@dataclass(frozen=True)
class _Inputs:
    """The tables that are read."""

    synapses: StoredTable
    merge: StoredTable | None
    heads: StoredTable | None

    @property
    def places(self) -> list[Location]:
        """Where they are stored."""
        return [place for table in (self.synapses, self.merge, self.heads) if table for place in table.places]

    def refuse_unknown_ids(self) -> None:
        """Raise OutputError if a synapse has an id that the tables beside it do not know."""
        merge = MergeTable(self.merge) if self.merge else None
        heads = _Volumes(self.heads) if self.heads else None
        for piece in self.synapses if merge or heads else ():
            some = synapse_columns(piece)
            for side in ("pre", "post", "first", "second"):
                if merge:
                    merge.cells_of(some[side].astype(np.uint64))
                if heads and f"{side}_{HEADS}" in some:
                    heads.of(some[f"{side}_{HEADS}"])


class Matrix(Analysis):
    """Count the synapses from each cell to each other, with their areas and what is known of both partners.

    It reads SYNAPSES, a table of `simexm synapses` or one like CAVE's; then, as merge=PATH, which cell each fragment belongs
    to (fragment, cell; or the owners of `simexm overlaps`), and, as spine_heads=PATH, the objects whose ids the synapses noted.
    It writes the tables `matrix`, a row for each pair; `cells`, a row for each cell; and `synapses`, with the columns of CAVE.

    Attributes
    ----------
    undirected
        Synapses whose direction is unknown: leave_out, or both, counted once in each direction.
    smallest_certainty
        Synapses whose direction is less certain are undirected.
    self_synapses
        Whether synapses of a cell with itself count. Contacts of fragments that were merged are such.
    """

    analysis: Literal["matrix"] = "matrix"
    undirected: Literal["leave_out", "both"] = "leave_out"
    smallest_certainty: float = Field(default=0.0, ge=0, le=1)
    self_synapses: bool = True

    def opened(self, inputs: Sequence[Any]) -> tuple[Any, ...]:
        """Open SYNAPSES and further tables, NAME=PATH."""
        if inputs and isinstance(inputs[0], _Inputs):
            return tuple(inputs)
        if not inputs:
            raise OutputError("matrix reads a table of synapses; type: simexm matrix SYNAPSES")
        further: dict[str, StoredTable] = {}
        for one in inputs[1:]:
            name, equals, path = str(one).partition("=")
            if not equals or name not in (MERGE, HEADS) or name in further:
                raise OutputError(
                    f"{one}: the tables beside the synapses are given once each, as {MERGE}=PATH and {HEADS}=PATH"
                )
            further[name] = StoredTable.of(path, "owners" if name == MERGE else "objects", ())
        found = _Inputs(synapse_table(inputs[0]), further.get(MERGE), further.get(HEADS))
        found.refuse_unknown_ids()
        return (found,)

    def open(self, inputs: tuple[Any, ...]) -> Bench:
        """Open the tables; raises OutputError if columns are missing, or a fragment has two cells."""
        return _MatrixBench(self, inputs[0])


class _MatrixBench(Bench):
    """The table of synapses, piece by piece."""

    def __init__(self, settings: Matrix, inputs: _Inputs) -> None:
        self.settings, self.synapses = settings, inputs.synapses
        self.merge = MergeTable(inputs.merge) if inputs.merge else None
        self.heads = _Volumes(inputs.heads) if inputs.heads else None
        self.keyed = {TABLE: PAIRS, CELLS: ENDS, TYPES: VOTES}
        self.inputs = hashes({SYNAPSES: inputs.synapses, MERGE: inputs.merge, HEADS: inputs.heads})
        rows = self.synapses.rows
        self.blocks, self.voxels = self.synapses.pieces, rows
        self.core_seconds = SECONDS_PER_ROW * rows
        held = sum(16 * table.rows for table in (inputs.merge, inputs.heads) if table)
        self.block_bytes = held + COPIES * 8 * len(self.synapses.columns) * self.synapses.largest_piece

    def measure(self, number: int) -> Mapping[str, Any]:
        """Count the synapses of one piece by pair and by cell."""
        some = self._directed(self.synapses.piece(number))
        sums = {name: some[name] for name in PAIRS.columns}
        ends = [
            {"id": some["pre"], "outgoing": some["synapses"], "area_out_nm2": some["area_nm2"]},
            {"id": some["post"], "incoming": some["synapses"], "area_in_nm2": some["area_nm2"]},
        ]
        zeros = np.zeros(len(some["pre"]), np.int64)
        joined = {name: np.concatenate([end.get(name, zeros) for end in ends]) for name in ENDS.names}
        votes = {name: np.zeros(0, np.int64) for name in VOTES.names}
        if "pre_cell_type" in some:
            types = np.concatenate([some["pre_cell_type"], some["post_cell_type"]])
            votes = {"id": joined["id"], "cell_type": types, "synapses": np.ones(types.size, np.int64)}
        return {TABLE: {"pre": some["pre"], "post": some["post"], **sums}, CELLS: joined, TYPES: votes}

    def _cells(self, piece: Columns) -> Columns:
        """Synapses by our names, with cells instead of fragments; `pre` and `post` are 0 where the direction is unknown."""
        some = synapse_columns(piece)
        if "certainty" in some:
            for side in ("pre", "post"):
                some[side] = np.where(some["certainty"] < self.settings.smallest_certainty, np.uint64(0), some[side])
        some["forth"] = some["pre"] == some["first"]
        if self.merge is not None:
            some |= {side: self.merge.cells_of(some[side]) for side in ("pre", "post", "first", "second")}
        return some

    def _directed(self, piece: Columns) -> Columns:
        """Columns of synapses that count, those without direction left out or in both directions."""
        some = self._cells(piece)
        known = (some["pre"] != 0) & (some["post"] != 0)
        found = self._sides(some, known, some["pre"], some["post"], some["forth"])
        if self.settings.undirected == "both":
            rest = (some["pre"] == 0) & (some["post"] == 0) & (some["first"] != 0) & (some["second"] != 0)
            forth = np.ones(rest.size, np.bool_)
            more = [self._sides(some, rest, some["first"], some["second"], forth)]
            more += [self._sides(some, rest, some["second"], some["first"], ~forth)]
            found = {name: np.concatenate([found[name], *(one[name] for one in more)]) for name in found}
            order = np.argsort(np.concatenate([np.flatnonzero(known), *[np.flatnonzero(rest)] * 2]), kind="stable")
            found = {name: column[order] for name, column in found.items()}
        kept = np.ones(found["pre"].size, np.bool_) if self.settings.self_synapses else found["pre"] != found["post"]
        return {name: column[kept] for name, column in found.items()}

    def _sides(
        self, some: Columns, kept: NDArray[np.bool_], pre: NDArray[Any], post: NDArray[Any], forth: NDArray[np.bool_]
    ) -> Columns:
        number = pre.size
        sign = some.get("sign", np.zeros(number, np.int8))
        area = some.get("area_um2", np.zeros(number))
        made: Columns = {
            "id": some["id"],
            "pre": pre,
            "post": post,
            "synapses": np.ones(number, np.int64),
            "area_nm2": np.rint(area * 1e6).astype(np.int64),
            "voxels": some.get("voxels", some.get("size", np.zeros(number))).astype(np.int64),
            "excitatory": (sign > 0).astype(np.int64),
            "inhibitory": (sign < 0).astype(np.int64),
            "sign": sign,
            **{f"{axis}_nm": some[f"{axis}_nm"] for axis in "zyx"},
        }
        for name in VALUES:
            if f"first_{name}" in some:
                one, other = some[f"first_{name}"], some[f"second_{name}"]
                made |= {f"pre_{name}": np.where(forth, one, other), f"post_{name}": np.where(forth, other, one)}
        return {name: column[kept] for name, column in made.items()}

    def conclude(self, sums: Mapping[str, Any]) -> Conclusion:
        """Write pairs and cells, and the synapses with their partners."""
        rows: MergedRows = sums[TABLE]
        synapses = sum(int(piece["synapses"].sum()) for piece in rows)
        pairs = sum(piece["pre"].size for piece in rows)
        cells = sum(piece["id"].size for piece in sums[CELLS])
        left = self.synapses.rows - sum(np.unique(one["id"]).size for one in map(self._directed, self.synapses))
        scores = (
            Score("synapses", float(synapses), "synapses", "synapses that count"),
            Score(
                "left_out",
                float(left),
                "synapses",
                "synapses of unknown direction, without a cell, or of a cell with itself",
            ),
            Score("pairs", float(pairs), "pairs", "pairs of cells, in this direction, with a synapse"),
            Score("cells", float(cells), "cells", "cells with a synapse"),
        )
        tables = {TABLE: self._pairs(rows), CELLS: self._ends(sums[CELLS], sums[TYPES]), SYNAPSES: self._rows()}
        return Conclusion(tables, scores)

    @staticmethod
    def _pairs(rows: MergedRows) -> Iterator[pa.Table]:
        for piece in rows:
            area = piece["area_nm2"] * 1e-6
            names = ("pre", "post", "synapses", "voxels", "excitatory", "inhibitory")
            yield pa.table({**{name: piece[name] for name in names}, "area_um2": area})

    @staticmethod
    def _ends(rows: MergedRows, votes: MergedRows) -> Iterator[pa.Table]:
        types = _most(votes)
        for piece in rows:
            made = {"id": piece["id"], "outgoing": piece["outgoing"], "incoming": piece["incoming"]}
            made |= {f"area_{way}_um2": piece[f"area_{way}_nm2"] * 1e-6 for way in ("out", "in")}
            if types[0].size:
                made["cell_type"] = types[1][np.searchsorted(types[0], piece["id"])]
            yield pa.table(made)

    def _rows(self) -> Iterator[pa.Table]:
        """Synapses with the columns of CAVE, positions in nm, and their partners' properties."""
        for piece in self.synapses:
            some = self._directed(piece)
            made: Columns = {"id": some["id"], "pre_pt_root_id": some["pre"], "post_pt_root_id": some["post"]}
            made |= {f"ctr_pt_position_{axis}": some[f"{axis}_nm"] for axis in "xyz"}
            made |= {"size": some["voxels"], "area_um2": some["area_nm2"] * 1e-6, "sign": some["sign"]}
            for side in ("pre", "post"):
                made |= {f"{side}_{name}": some[f"{side}_{name}"] for name in VALUES if f"{side}_{name}" in some}
                if (heads := some.get(f"{side}_{HEADS}")) is not None:
                    made[f"{side}_spine"] = (heads != 0).astype(np.uint8)
                    if self.heads is not None:
                        made[f"{side}_spine_head_um3"] = self.heads.of(heads)
            yield pa.table(made)


def _most(votes: MergedRows) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Ids, and the type that most synapses of each give it, of equally frequent ones the smallest; 16 bytes for each cell."""
    ids, types = [np.zeros(0, np.uint64)], [np.zeros(0, np.uint64)]
    best: dict[int, tuple[int, int]] = {}
    for piece in votes:
        for cell, kind, times in zip(*(piece[n].tolist() for n in VOTES.names), strict=True):
            best[cell] = max(best.get(cell, (0, 0)), (times, -kind))
    if best:
        ids.append(np.array(list(best), np.uint64))
        types.append(np.array([-kind for _, kind in best.values()], np.uint64))
    return np.concatenate(ids), np.concatenate(types)


class _Volumes:
    """Volume of each spine head by its id."""

    def __init__(self, table: StoredTable) -> None:
        if not {"id", "volume_um3"} <= {*table.columns}:
            raise OutputError(
                f"{table.path} has no columns id and volume_um3, so it does not say how large a spine head is; name the result "
                "of `simexm objects` that the synapses were found with"
            )
        columns = table.whole()
        order = np.argsort(columns["id"])
        self._path, self._ids, self._volumes = table.path, columns["id"][order], columns["volume_um3"][order]

    def of(self, ids: NDArray[np.uint64]) -> NDArray[np.float64]:
        """Volume of each, um^3, 0 for id 0; raises OutputError for an unknown id."""
        if not self._ids.size:
            at, known = np.zeros(ids.shape, np.int64), ids == 0
        else:
            at = np.minimum(np.searchsorted(self._ids, ids), self._ids.size - 1)
            known = (self._ids[at] == ids) | (ids == 0)
        if not known.all():
            raise OutputError(
                f"the spine head {ids[~known][0]} of a synapse is not in {self._path}; name the objects that the synapses were "
                "found with"
            )
        return np.where(ids == 0, 0.0, self._volumes[at] if self._ids.size else 0.0)
