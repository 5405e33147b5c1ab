"""What is recorded of each block of an alignment: its state, correlations and folds; the scores and the table that follow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
from numpy.typing import NDArray

from simexm.analysis.contract import Score
from simexm.analysis.registration.measures import MOMENTS, correlation_of, numbers_of, scores_of
from simexm.analysis.registration.patchwork import STATES
from simexm.geometry.grid import Tiling
from simexm.jobs.keyed_rows import Keyed, MergedRows

NUMBERS = ("before", "after", "share", "covered", "folds", "jacobian")
"""What is recorded of each block, beside its state: correlation of its images before and after its own fit, the share of its
displacement that counts, covered voxels, cells that fold, and the smallest Jacobian."""
KINDS = ("identity", "")
RECORDS = Keyed(
    ("moving", "block"),
    dict.fromkeys(("state", *NUMBERS, *(f"{kind}_{name}" for kind in KINDS for name in MOMENTS)), "sum"),
)


class Totals:
    """Sums over the blocks of one moving volume."""

    def __init__(self) -> None:
        self.states = np.zeros(len(STATES), np.int64)
        self.sums = {kind: np.zeros(len(MOMENTS)) for kind in KINDS}
        self.covered = self.folds = 0.0
        self.jacobian, self.faded = 1.0, 0

    def add(self, rows: Mapping[str, NDArray[Any]]) -> None:
        """Add blocks, in their order."""
        if not rows["state"].size:
            return
        self.states += np.bincount(rows["state"], minlength=len(STATES))
        for kind, sums in self.sums.items():
            sums += np.stack([numbers_of(rows[f"{kind}_{name}"]) for name in MOMENTS]).sum(axis=1)
        self.covered += numbers_of(rows["covered"]).sum()
        self.folds += numbers_of(rows["folds"]).sum()
        self.jacobian = min(self.jacobian, float(numbers_of(rows["jacobian"]).min()))
        self.faded += int((numbers_of(rows["share"]) < 1).sum())

    def scores(self, of: str, voxels: int) -> list[Score]:
        """The scores of an alignment, and how many blocks have a fit of their own."""
        values = {("correlation", kind): correlation_of(self.sums[kind]) for kind in KINDS}
        values |= {
            ("covered", ""): self.covered / voxels,
            ("smallest_jacobian", ""): self.jacobian,
            ("folds", ""): float(self.folds),
        }
        found = scores_of(values, of)
        counts = {**dict(zip(STATES, self.states.tolist(), strict=True)), "faded": self.faded}
        for state, count in counts.items():
            subset = " ".join(filter(None, (of, state)))
            found.append(Score("blocks", float(count), "blocks", _COUNTED[state], subset))
        return found


_COUNTED = {
    "fitted": "blocks with a displacement of their own",
    "empty": "blocks without signal, which take the mean shift of their neighbours, or the coarse transform",
    "outside": "blocks that the moving volume does not cover; treated alike",
    "worse": "blocks whose images correlated no better after their fit; treated alike",
    "faded": "blocks of which less than all of the displacement counts, since blocks would fold together",
}


def table_of(rows: MergedRows, names: Sequence[str], tiling: Tiling) -> Iterator[pa.Table]:
    """The table of the blocks, piece by piece; `names` are those of the moving volumes."""
    for piece in rows:
        starts = np.array([tiling[int(b)].start for b in piece["block"]], np.int64).reshape(-1, 3)
        yield pa.table(
            {
                "moving": np.array(names)[piece["moving"].astype(np.intp)],
                **{axis: starts[:, n] for n, axis in enumerate("zyx")},
                "state": np.array(STATES)[piece["state"]],
                **{name: numbers_of(piece[name]) for name in NUMBERS},
            }
        )
