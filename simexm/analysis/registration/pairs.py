"""What alignments in memory and in blocks share: the inputs, what is stored, and how transforms are recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
from numpy.typing import NDArray

from simexm.analysis.contract import Bench
from simexm.analysis.registration import itk
from simexm.analysis.registration.fit import Report
from simexm.analysis.registration.measures import bits, numbers_of
from simexm.analysis.registration.overlap import refuse_apart
from simexm.analysis.registration.sides import Opened, grid_of, name_of
from simexm.analysis.registration.steps import Features, Step
from simexm.analysis.registration.transform import CONVENTION, DISPLACEMENT, GROUP, Floats, Frame, StoredTransform
from simexm.analysis.volume import Volume
from simexm.errors import SpecError
from simexm.jobs.sums_by_id import CellSums
from simexm.stages.products import Product

if TYPE_CHECKING:
    from simexm.analysis.registration.align import Align

ALIGNED, STEPS, AFFINE = "aligned", "steps", "affine"
ROWS = ("z", "y", "x", "shift")
"""Columns of an affine map."""
_ALIKE = 1e-3


@dataclass(frozen=True)
class Moving:
    """A volume to align with the fixed one; its name is empty if it is the only one."""

    name: str
    volume: Opened
    start: StoredTransform | None = None

    def starts(self, points: Floats) -> Floats:
        """Points (3, n), um, of the fixed volume where the alignment begins, in this one."""
        return points if self.start is None else self.start.near(points)(points)

    @property
    def shown(self) -> str:
        """Name in tables."""
        return self.name or "moving"

    @property
    def displacement(self) -> str:
        """Name of its displacement."""
        return self.name or DISPLACEMENT


class PairsBench(Bench):
    """A fixed volume and those to align with it."""

    def __init__(self, settings: Align, inputs: tuple[Any, ...], block_voxels: int | None) -> None:
        self.settings = settings
        itk.simpleitk()  # before any work
        fixed, *moving = [one for one in inputs if isinstance(one, Volume)]
        given = [one for one in inputs if isinstance(one, StoredTransform)]
        starts: Sequence[StoredTransform | None] = given or [None] * len(moving)
        self.fixed = Opened.of(settings.fixed, fixed)
        self.moving = tuple(
            Moving(name_of(one), Opened.of(settings.moving, one), start)
            for one, start in zip(moving, starts, strict=True)
        )
        self.frame = self.fixed.frame
        for each in self.moving:
            if each.start is not None:
                self._refuse_foreign(each.start)
            refuse_apart(settings.steps, self.frame, each.volume.frame, each.starts, each.start is not None)
        self.grid = grid_of(fixed, block_voxels)
        self.inputs = self._identities()
        self.dtype = self.moving[0].volume.dtype
        self.products = (
            Product(ALIGNED, "image", "czyx", self.dtype.name, "of the moving image", self.channels),
            *(
                Product(m.displacement, "image", "czyx", "float32", "um", ("z", "y", "x"), about={"group": GROUP})
                for m in self.moving
            ),
            Product(
                STEPS, "table", columns={"moving": "str", "step": "str", "correlation": "float64", "remark": "str"}
            ),
        )

    @property
    def channels(self) -> tuple[str, ...]:
        """Channels of the aligned image: all rounds, the first as it is; or the moving volume alone."""
        return (*(["round_01"] if self.with_fixed else []), *(m.shown for m in self.moving))

    @property
    def with_fixed(self) -> bool:
        """Whether the fixed volume is stored beside the aligned ones."""
        return bool(self.moving[0].name)

    def stacked(self, aligned: Sequence[NDArray[Any]], fixed: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """The channels of the aligned image; `fixed` reads the fixed volume."""
        return np.stack([*([fixed().astype(self.dtype)] if self.with_fixed else []), *aligned])

    def _identities(self) -> dict[str, str]:
        found = {"fixed": self.fixed.volume.identity}
        if self.fixed.mask is not None:
            found["fixed mask"] = self.fixed.mask.identity
        for each in self.moving:
            found[each.shown] = each.volume.volume.identity
            if each.volume.mask is not None:
                found[f"{each.shown} mask"] = each.volume.mask.identity
            if each.start is not None:
                found[f"{each.name} start".strip()] = each.start.identity
        return found

    def _refuse_foreign(self, start: StoredTransform) -> None:
        frame = start.frame
        if frame is not None and not np.allclose(frame.extent_um, self.frame.extent_um, rtol=_ALIKE):
            one, other = (" x ".join(f"{v:.4g}" for v in f.extent_um) for f in (frame, self.frame))
            raise SpecError(
                f"start: {start.path} is a transform of a fixed volume of {one} um, and {self.fixed.volume.where} has {other} "
                "um, so it belongs to another pair; name a transform of this pair"
            )

    def affine_sums(self, affines: Sequence[Floats]) -> CellSums:
        """The affine maps of all moving volumes as rows of a table of sums; none gives an empty table."""
        if not affines:
            return CellSums.none(ROWS)
        stacked = np.concatenate(affines)
        columns = {name: bits(stacked[:, n]) for n, name in enumerate(ROWS)}
        return CellSums(np.arange(len(stacked), dtype=np.uint64), columns)

    def step_rows(self, reports: Sequence[tuple[str, Sequence[Report]]]) -> dict[str, NDArray[Any]]:
        """What the steps did, by the moving volume's name, as columns."""
        rows = [(name, r.step, r.correlation, r.remark) for name, each in reports for r in each]
        columns: Sequence[Sequence[Any]] = list(zip(*rows, strict=True)) if rows else [()] * 4
        kinds = (object, object, np.float64, object)
        names = ("moving", "step", "correlation", "remark")
        return {name: np.array(c, kind) for name, c, kind in zip(names, columns, kinds, strict=True)}

    def recorded(self, sums: CellSums) -> tuple[pa.Table, dict[str, Mapping[str, Any]]]:
        """The table of the affine maps, and the attributes of the group of transforms."""
        order = np.argsort(sums.ids)
        matrix = np.stack([numbers_of(sums.columns[name][order]) for name in ROWS], axis=1)
        records = {
            each.name: _record(each, matrix[3 * n : 3 * n + 3], self.frame) for n, each in enumerate(self.moving)
        }
        table = pa.table(
            {
                "moving": np.repeat([m.shown for m in self.moving], 3),
                **dict(zip((*ROWS[:3], "shift_um"), matrix.T, strict=True)),
            }
        )
        about = records.get("", {"rounds": records})
        return table, {GROUP: {"simexm": about}}


def _record(moving: Moving, affine: Floats, frame: Frame) -> dict[str, Any]:
    return {
        "convention": CONVENTION,
        "affine_um": affine.tolist(),
        "displacement": moving.displacement,
        "fixed": asdict(frame),
        "moving": asdict(moving.volume.frame),
    }


def features_bytes(steps: Sequence[Step]) -> int:
    """Memory of matching spots: cubes of both volumes, a slab of their correlations, and the covariance of matches."""
    found = [s for s in steps if isinstance(s, Features)]
    return sum(s.most * (12 * (2 * s.half + 1) ** 3 + 16 * 4096 + 32 * s.most) for s in found)
