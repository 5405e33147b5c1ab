"""An alignment block by block, at any size.

Surveys find the coarse transform, the displacement of each block beyond it, what stands in for blocks without a fit, and folds;
then each block of the result is computed from the blocks around it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from simexm.analysis.contract import Conclusion, Measured, ReadPart, Score
from simexm.analysis.registration import coarse, local
from simexm.analysis.registration.block_records import KINDS, RECORDS, Totals, table_of
from simexm.analysis.registration.lookup import Lookup
from simexm.analysis.registration.measures import MOMENTS, bits, moments
from simexm.analysis.registration.pairs import AFFINE, ALIGNED, ROWS, STEPS, Moving, PairsBench, features_bytes
from simexm.analysis.registration.patchwork import FITTED, Patchwork, one_more
from simexm.analysis.registration.transform import affine_at
from simexm.geometry.grid import Box, Tiling
from simexm.jobs.keyed_rows import MergedRows
from simexm.jobs.sums_by_id import CellSums, add_up
from simexm.kernels.registration import fields, warp

if TYPE_CHECKING:
    from simexm.analysis.registration.align import Align, Blocks

AVERAGES, COARSE, FITS, FILLS, FOLDS = "averages", "coarse", "fits", "stand-ins", "folds"
BLOCKS = "blocks"
BYTES_PER_VOXEL, MATCHING_BYTES_PER_VOXEL = 230, 80
SECONDS_PER_VOXEL = 1.5e-5
"""Memory of a block with the voxels around it, to deform it and to match spots, and work, for a voxel of the fixed volume."""


class Piecewise(PairsBench):
    """Volumes aligned block by block."""

    surveys = (AVERAGES, COARSE, FITS, FILLS, FOLDS)
    kept = (COARSE, FITS)
    remedy = "choose smaller blocks, such as blocks: {voxels: 64}, and fewer coarse_voxels and spots (features: most)"

    def __init__(self, settings: Align, inputs: tuple[Any, ...], how: Blocks) -> None:
        super().__init__(settings, inputs, how.voxels)
        assert self.grid is not None
        self.how = how
        self.tiling: Tiling = self.grid.blocks
        self.patchwork = Patchwork(self.tiling, how.overlap)
        self.averaged = coarse.Averaged(self.fixed, how.coarse_voxels)
        self.averaged_moving = [coarse.Averaged(m.volume, how.coarse_voxels) for m in self.moving]
        self.columns, self.keyed = {AFFINE: ROWS}, {BLOCKS: RECORDS}
        self.blocks, self.voxels = len(self.tiling), math.prod(self.frame.shape)
        self.core_seconds = SECONDS_PER_VOXEL * self.voxels * len(self.moving)
        self.block_bytes = max(self._fit_bytes(), self._coarse_bytes())
        self._bases: dict[int, coarse.Base] = {}

    def _fit_bytes(self) -> int:
        wide = math.prod(
            min(n, c + 2 * self.how.overlap) for n, c in zip(self.frame.shape, self.tiling.cell, strict=True)
        )
        voxel = math.prod(self.frame.voxel_um)
        finer = max(voxel / math.prod(m.volume.frame.voxel_um) for m in self.moving)
        matching = MATCHING_BYTES_PER_VOXEL * wide + features_bytes(self.how.steps)
        return int(16 * wide * finer) + max(BYTES_PER_VOXEL * wide, matching)

    def _coarse_bytes(self) -> int:
        from simexm.analysis.registration.whole import BYTES_PER_VOXEL as WHOLE_BYTES

        small = math.prod(self.averaged.frame.shape)
        moving = max(math.prod(a.frame.shape) for a in self.averaged_moving)
        return WHOLE_BYTES * small + 16 * moving + features_bytes(self.settings.steps)

    def survey(self, name: str, number: int, read: ReadPart) -> Mapping[str, NDArray[Any]]:
        """One of the surveys, of one block."""
        if name == AVERAGES:
            return self._averages(number)
        if name == COARSE:
            return self._coarse(read) if number == 0 else {}
        found: dict[str, NDArray[Any]] = {}
        of_block = {FITS: self._fit, FILLS: self._stand_in, FOLDS: self._fold}[name]
        for n in range(len(self.moving)):
            found |= {f"{key}_{n}": value for key, value in of_block(n, number, read).items()}
        return found

    def _averages(self, number: int) -> dict[str, NDArray[Any]]:
        box = self.tiling[number]
        found = {f"fixed_{key}": value for key, value in self.averaged.average(box).items()}
        found["signal"] = coarse.signal(self.fixed.read(box))
        for n, (each, averaged) in enumerate(zip(self.moving, self.averaged_moving, strict=True)):
            tiling = Tiling(each.volume.whole, self.tiling.cell)
            for tile in coarse.moving_tiles(tiling, number, self.blocks):
                found |= {f"{n}_{tile}_{key}": value for key, value in averaged.average(tiling[tile]).items()}
        return found

    def _coarse(self, read: ReadPart) -> dict[str, NDArray[Any]]:
        parts = [read(AVERAGES, number) for number in range(self.blocks)]
        found = {"deviation": np.array(coarse.deviation(np.sum([p["signal"] for p in parts], axis=0)))}
        if not self.settings.steps:
            return found
        fixed = self.averaged.picture([_prefixed(part, "fixed_") for part in parts])
        for n, (each, averaged) in enumerate(zip(self.moving, self.averaged_moving, strict=True)):
            tiles = [_prefixed(p, f"{key.removesuffix('start')}") for p in parts for key in p if _begins(key, n)]
            transform, reports = coarse.align(fixed, averaged.picture(tiles), self.settings.steps, each)
            smooth = coarse.smoothed(transform, self.averaged.by, self.how.smooth_voxels)
            found |= {f"{key}_{n}": value for key, value in coarse.packed(smooth, reports).items()}
        return found

    def base(self, n: int, read: ReadPart) -> coarse.Base:
        """What blocks begin from."""
        if not self.settings.steps:
            start = self.moving[n].start
            assert start is not None
            return start
        if n not in self._bases:
            self._bases[n] = coarse.unpacked(_suffixed(read(COARSE, 0), n))[0]
        return self._bases[n]

    def _fit(self, n: int, number: int, read: ReadPart) -> Mapping[str, NDArray[Any]]:
        signal = coarse.deviation(read(AVERAGES, number)["signal"])
        level = float(read(COARSE, 0)["deviation"])
        if signal <= self.how.least_signal * level:
            return local.NOTHING
        place = local.Place(self.tiling[number], self.patchwork.wide(number))
        return local.fit_block(self.fixed, self.moving[n].volume, place, self.base(n, read), self.how)

    def _stand_in(self, n: int, number: int, read: ReadPart) -> Mapping[str, NDArray[Any]]:
        own = _suffixed(read(FITS, number), n)
        if int(own["state"]) == FITTED:
            return {"shift": own["shift"]}
        return {"shift": self.patchwork.stand_in(number, lambda each: _suffixed(read(FITS, each), n))}

    def _fold(self, n: int, number: int, read: ReadPart) -> Mapping[str, NDArray[Any]]:
        return {"least": np.array(self._least(n, number, read, lambda _: 1.0))}

    def _least(self, n: int, number: int, read: ReadPart, share: Any) -> float:
        box = one_more(self.tiling[number], self.tiling.box)
        cells = self._jacobians(self._displacement(n, number, box, read, partial(self._filled, n, read), share))
        return float(cells.min()) if cells.size else 1.0

    def _filled(self, n: int, read: ReadPart, number: int) -> Mapping[str, NDArray[Any]]:
        return {**_suffixed(read(FITS, number), n), **_suffixed(read(FILLS, number), n)}

    def _displacement(self, n: int, number: int, box: Box, read: ReadPart, fit: Any, share: Any) -> NDArray[np.float32]:
        """The whole displacement, (3, z, y, x), um, of a box of the fixed volume."""
        own = self.patchwork.displacement(number, box, fit, share)
        frame = self.frame.part(box.start, box.shape)
        near = self.base(n, read).near(frame.centres() + own)
        found = near.before(own, frame).displacement
        assert found is not None
        return found

    def _jacobians(self, displacement: NDArray[np.float32]) -> NDArray[np.float32]:
        if min(displacement.shape[1:]) <= 1:
            return np.ones(0, np.float32)
        return np.asarray(fields.smallest_jacobian(displacement, np.asarray(self.frame.voxel_um)))

    def join(self, read: ReadPart, folder: Path) -> None:
        """Store the stand-ins, and the share of each block that counts so that nothing folds."""
        limit = self.how.least_jacobian / 2
        for n in range(len(self.moving)):
            shifts = np.lib.format.open_memmap(folder / f"shift_{n}.npy", "w+", np.float32, (self.blocks, 3))
            least = {}
            for number in range(self.blocks):
                shifts[number] = read(FILLS, number)[f"shift_{n}"]
                value = float(read(FOLDS, number)[f"least_{n}"])
                if value < limit:
                    least[number] = value
            shifts.flush()

            def again(number: int, shares: NDArray[np.float32], n: int = n) -> float:
                return self._least(n, number, read, lambda each: float(shares[each]))

            np.save(folder / f"share_{n}.npy", self.patchwork.fade_folds(least, limit, again))

    def measure(self, number: int) -> Mapping[str, Measured]:
        """Put the displacements together in one block, and look up the moving images at them."""
        box = self.tiling[number]
        fixed = self.fixed.picture(box)
        images, made, rows = [], {}, []
        for n, each in enumerate(self.moving):
            values, displacement, row = self._measured(n, each, number, box, fixed.values, fixed.mask)
            images.append(values)
            made[each.displacement] = displacement
            rows.append(row)
        coarse_part = self.parts(COARSE, 0) if number == 0 and self.settings.steps else None
        reports = [
            (m.shown, coarse.unpacked(_suffixed(coarse_part, n))[1]) for n, m in enumerate(self.moving) if coarse_part
        ]
        first = range(len(self.moving)) if number == 0 else ()
        return {
            ALIGNED: self.stacked(images, lambda: self.fixed.read(box)),
            **made,
            STEPS: self.step_rows(reports),
            AFFINE: self.affine_sums([self.base(n, self.parts).affine for n in first]),
            BLOCKS: {name: np.array([row[name] for row in rows]) for name in RECORDS.names},
        }

    def _measured(
        self, n: int, each: Moving, number: int, box: Box, fixed: NDArray[np.float32], mask: Any
    ) -> tuple[NDArray[Any], NDArray[np.float32], dict[str, Any]]:
        shifts, shares = self.joined[f"shift_{n}"], self.joined[f"share_{n}"]
        own = _suffixed(self.parts(FITS, number), n)

        def fit(block: int) -> Mapping[str, NDArray[Any]]:
            found = own if block == number else _suffixed(self.parts(FITS, block), n)
            return {**found, "shift": np.asarray(shifts[block])}

        wide = one_more(box, self.tiling.box)
        total = self._displacement(n, number, wide, self.parts, fit, lambda block: float(shares[block]))
        displacement = np.ascontiguousarray(total[:, : box.shape[0], : box.shape[1], : box.shape[2]])
        points = self.frame.part(box.start, box.shape).centres()
        affine = self.base(n, self.parts).affine
        own_frame = each.volume.frame
        at = {"": own_frame.voxels(affine_at(affine, points + displacement)), "identity": own_frame.voxels(points)}
        values = self._look_up(each).at(at[""])
        cells = self._jacobians(total)
        row: dict[str, Any] = {"moving": n, "block": number, "state": int(own["state"])}
        where = {kind: warp.inside(each.volume.volume.shape, at[kind]) for kind in KINDS}
        numbers = {
            "before": float(own["before"]),
            "after": float(own["after"]),
            "share": float(shares[number]),
            "covered": float(where[""].sum()),
            "folds": float((cells <= 0).sum()),
            "jacobian": float(cells.min()) if cells.size else 1.0,
        }
        for kind in KINDS:
            image = values if kind == "" else self._look_up(each).at(at[kind])
            sums = moments(fixed, image, where[kind] if mask is None else where[kind] & mask)
            numbers |= {f"{kind}_{name}": float(value) for name, value in zip(MOMENTS, sums, strict=True)}
        return values, displacement, row | {name: bits(np.array([v]))[0] for name, v in numbers.items()}

    def _look_up(self, each: Moving) -> Lookup:
        volume = each.volume
        settings = self.settings
        return Lookup(
            volume.read,
            volume.volume.shape,
            volume.frame,
            self.dtype,
            settings.interpolation,
            settings.outside,
            self.how.voxels,
        )

    def conclude(self, sums: Mapping[str, Any]) -> Conclusion:
        """Add up the blocks: scores, and a table of them."""
        table, groups = self.recorded(add_up([CellSums.none(ROWS), *sums[AFFINE]]))
        rows: MergedRows = sums[BLOCKS]
        totals = [Totals() for _ in self.moving]
        for piece in rows:
            for n, total in enumerate(totals):
                total.add({name: column[piece["moving"] == n] for name, column in piece.items()})
        scores: list[Score] = []
        for each, total in zip(self.moving, totals, strict=True):
            scores += total.scores(each.name, self.voxels)
        return Conclusion(
            {AFFINE: table, BLOCKS: table_of(rows, [m.shown for m in self.moving], self.tiling)}, tuple(scores), groups
        )


def _begins(key: str, n: int) -> bool:
    """Whether a key of an average is where a tile of a moving volume begins."""
    return key.startswith(f"{n}_") and key.endswith("_start")


def _prefixed(part: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    """The arrays whose names begin so, without that."""
    return {key.removeprefix(prefix): value for key, value in part.items() if key.startswith(prefix)}


def _suffixed(part: Mapping[str, NDArray[Any]], n: int) -> dict[str, NDArray[Any]]:
    """The arrays of the moving volume `n`, without the number."""
    return {key.removesuffix(f"_{n}"): value for key, value in part.items() if key.endswith(f"_{n}")}
