"""The table of synapses: sums that blocks add up exactly, and the properties that follow from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
from numpy.typing import NDArray

from simexm.analysis.contract import Conclusion, Score
from simexm.analysis.objects.contacts import face_properties
from simexm.analysis.stored_table import StoredTable
from simexm.analysis.volume import Volume
from simexm.jobs.keyed_rows import Columns, Keyed, MergedRows, place_of
from simexm.kernels.objects.contacts import CROSSINGS, areas_um2, face_areas_um2
from simexm.kernels.objects.patches import PATCH_COLUMNS

if TYPE_CHECKING:
    from simexm.analysis.synapses.synapses import Synapses

TABLE, CONTACTS, VOTES = "synapses", "contacts", "votes"
KEYS = ("first", "second", "junction", "synapse")
COUNTS = ("first", "second")
"""Sides of a synapse, by smaller and larger id."""


def synapse_keys(masks: Sequence[str]) -> Keyed:
    """Sums by synapse."""
    sides = [f"{side}_{what}" for side in COUNTS for what in ("around", *masks)]
    return Keyed(KEYS, dict.fromkeys((*PATCH_COLUMNS, "voxels", *sides), "sum"))


def contact_keys() -> Keyed:
    """Faces of each pair of cells."""
    return Keyed(("first", "second"), dict.fromkeys(CROSSINGS[:3], "sum"))


def vote_keys() -> Keyed:
    """How many faces of a synapse have a value on a side; `role` is 2 * the number of the volume + the side."""
    return Keyed((*KEYS, "role", "value"), {"times": "sum"})


class Following:
    """Rows of a sorted table, read along with the pieces of another whose keys are the same, or the first of them."""

    def __init__(self, rows: MergedRows, keys: Sequence[str]) -> None:
        self._pieces, self._keys = iter(rows), keys
        self._held: Columns | None = None

    def up_to(self, last: tuple[int, ...]) -> Columns:
        """Return the rows whose keys are not beyond `last`, and forget those before it at the next call."""
        held = [self._held] if self._held is not None else []
        while not held or self._place(held[-1], last, after=True) == len(held[-1][self._keys[0]]):
            piece = next(self._pieces, None)
            if piece is None:
                break
            held.append(piece)
        joined = {name: np.concatenate([one[name] for one in held]) for name in held[0]}
        end, begin = self._place(joined, last, after=True), self._place(joined, last, after=False)
        self._held = {name: column[begin:] for name, column in joined.items()}
        return {name: column[:end] for name, column in joined.items()}

    def _place(self, columns: Columns, key: tuple[int, ...], after: bool) -> int:
        return place_of([columns[name] for name in self._keys], key, after)


class Rows:
    """Turns sums into rows."""

    def __init__(
        self,
        settings: Synapses,
        voxel_nm: tuple[float, float, float],
        cells: Volume,
        masks: tuple[str, ...],
        values: tuple[str, ...],
        truth: Any,
    ) -> None:
        self._settings, self._voxel_nm, self._masks, self._values = settings, voxel_nm, masks, values
        self._origin = [float(o) for o in cells.origin_nm]
        self._truth: StoredTable | None = truth

    def concluded(self, rows: MergedRows, contacts: MergedRows, votes: MergedRows) -> Conclusion:
        """The table, and how many synapses there are, have a direction, and a sign."""
        number = directed = signed = 0
        for table in self._tables(rows, contacts, votes):
            number += table.num_rows
            directed += int((table["pre"].to_numpy() != 0).sum())
            signed += int((table["sign"].to_numpy() != 0).sum())
        scores = (
            Score("synapses", float(number), "synapses", "contacts at junctions, joined within join_nm"),
            Score("directed", float(directed), "synapses", "those whose presynaptic cell is known"),
            Score("signed", float(signed), "synapses", "those known to be excitatory or inhibitory"),
        )
        return Conclusion({TABLE: self._tables(rows, contacts, votes)}, scores)

    def _tables(self, rows: MergedRows, contacts: MergedRows, votes: MergedRows) -> Iterator[pa.Table]:
        totals, voted, before = Following(contacts, KEYS[:2]), Following(votes, KEYS), 0
        truth = self._truth.whole() if self._truth is not None else None
        for piece in rows:
            table = self._table(piece, totals, voted, truth)
            table["id"] += np.uint64(before)
            before += len(table["id"])
            yield pa.table(table)

    def _table(
        self, piece: Columns, totals: Following, voted: Following, truth: Mapping[str, NDArray[Any]] | None
    ) -> dict[str, NDArray[Any]]:
        """Columns of the synapses of a piece that count."""
        faces = face_properties(piece, self._voxel_nm, self._origin)
        kept = faces["faces_um2"] >= self._settings.smallest_um2
        share = self._share(piece, faces["faces_um2"], totals)
        classes = self._classes(piece, voted)
        pre_first, certainty = self._direction(piece, truth)
        first, second, zero = piece["first"], piece["second"], np.uint64(0)
        unknown = pre_first == 0
        made: dict[str, NDArray[Any]] = {
            "id": piece["first"],
            "pre": np.where(unknown, zero, np.where(pre_first > 0, first, second)),
            "post": np.where(unknown, zero, np.where(pre_first > 0, second, first)),
            "first": first,
            "second": second,
            "junction": piece["junction"],
            "sign": self._sign(piece, truth, unknown),
            "certainty": certainty,
            **{f"{axis}_nm": faces[f"{axis}_nm"] for axis in "zyx"},
            "voxels": piece["voxels"],
            "area_um2": faces["faces_um2"],
            "share": share,
        }
        flip = np.where(pre_first < 0, -1.0, 1.0)
        made |= {f"normal_{axis}": faces[f"normal_{axis}"] * flip + 0.0 for axis in "zyx"}
        made |= {f"{side}_{mask}": self._density(piece, side, mask) for side in COUNTS for mask in self._masks}
        made = {name: column[kept] for name, column in (made | classes).items()}
        made["id"] = np.arange(1, int(kept.sum()) + 1, dtype=np.uint64)
        return made

    def _share(self, piece: Columns, area: NDArray[np.float64], totals: Following) -> NDArray[np.float64]:
        """Share of each synapse in the area by faces of all contacts of its two cells."""
        if not area.size:
            return area
        found = totals.up_to((int(piece["first"][-1]), int(piece["second"][-1])))
        counts = np.stack([found[name] for name in CROSSINGS[:3]], axis=1).reshape(-1, 3)
        whole = areas_um2(counts, face_areas_um2(self._voxel_nm)[:3])
        return area / whole[_rows_of(found, piece, KEYS[:2])]

    def _classes(self, piece: Columns, voted: Following) -> dict[str, NDArray[Any]]:
        """The value that most faces have on each side, of equally frequent ones the smallest; 0 where the cell is not."""
        number = len(piece["first"])
        made = {f"{side}_{name}": np.zeros(number, np.uint64) for name in self._values for side in COUNTS}
        if not number or not self._values:
            return made
        found = voted.up_to(tuple(int(piece[name][-1]) for name in KEYS))
        known = place_of([found[name] for name in KEYS], tuple(int(piece[name][0]) for name in KEYS), False)
        found = {name: column[known:] for name, column in found.items()}
        row = _rows_of(piece, found, KEYS)
        order = np.lexsort((found["value"], -found["times"], found["role"], row))
        best = order[np.flatnonzero(np.diff(row[order] * 1024 + found["role"][order].astype(np.int64), prepend=-1))]
        for n, name in enumerate(self._values):
            for s, side in enumerate(COUNTS):
                some = best[found["role"][best] == 2 * n + s]
                made[f"{side}_{name}"][row[some]] = found["value"][some]
        return made

    def _density(self, piece: Columns, side: str, mask: str) -> NDArray[np.float64]:
        """Share of a mask in the cell's own voxels around a synapse, the mean over its faces by their voxels."""
        density: NDArray[np.float64] = piece[f"{side}_{mask}"] / np.maximum(piece[f"{side}_around"], 1)
        return density

    def _direction(
        self, piece: Columns, truth: Mapping[str, NDArray[Any]] | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """1 where the first cell is presynaptic, -1 where the second is, 0 unknown; and how sure, 0 to 1."""
        number = len(piece["first"])
        if truth is not None:
            at, known = _looked_up(truth["id"], piece["junction"])
            pre, post = truth["pre"][at], truth["post"][at]
            forth = known & (pre == piece["first"]) & (post == piece["second"])
            back = known & (pre == piece["second"]) & (post == piece["first"])
            sense = forth.astype(np.int64) - back
            return sense, np.abs(sense).astype(np.float64)
        more, total = np.zeros(number), np.zeros(number)
        for mask, sense in (("vesicles", 1), ("presynaptic", 1), ("postsynaptic", -1)):
            if mask in self._masks:
                one, other = (self._density(piece, side, mask) for side in COUNTS)
                more += sense * (one - other)
                total += one + other
        return np.sign(more).astype(np.int64), np.abs(more) / np.where(total > 0, total, 1.0)

    def _sign(
        self, piece: Columns, truth: Mapping[str, NDArray[Any]] | None, unknown: NDArray[np.bool_]
    ) -> NDArray[np.int8]:
        """1 excitatory, -1 inhibitory, 0 unknown."""
        if truth is not None and "sign" in truth:
            at, _ = _looked_up(truth["id"], piece["junction"])
            return np.where(unknown, 0, truth["sign"][at]).astype(np.int8)
        sums = {
            mask: sum((piece[f"{side}_{mask}"] for side in COUNTS), np.zeros(len(unknown), np.int64))
            for mask in ("symmetric", "asymmetric")
            if mask in self._masks
        }
        if len(sums) < 2:
            return np.zeros(len(unknown), np.int8)
        both = sums["symmetric"] + sums["asymmetric"]
        inhibitory = sums["symmetric"] >= self._settings.symmetric_share * both
        return np.where(both == 0, 0, np.where(inhibitory, -1, 1)).astype(np.int8)


def _rows_of(table: Columns, wanted: Columns, keys: Sequence[str]) -> NDArray[np.int64]:
    """Rows of a sorted table with the keys of others that it is known to have."""
    count = len(table[keys[0]])
    both = np.stack([np.concatenate([table[name], wanted[name]]) for name in keys], axis=1)
    where = np.unique(both, axis=0, return_inverse=True)[1].reshape(-1)
    rows = np.zeros(int(where.max()) + 1, np.int64)
    rows[where[:count]] = np.arange(count)
    return rows[where[count:]]


def _looked_up(ids: NDArray[Any], wanted: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Rows with these ids, and which of them there are."""
    order = np.argsort(ids, kind="stable")
    at = order[np.minimum(np.searchsorted(ids[order], wanted), len(ids) - 1)]
    return at, ids[at] == wanted
