"""Decode the barcodes of cells from the images of all rounds, and compare them with the truth.

Positions and cells of amplicons come from the truth, as from a perfect segmentation; their letters are read from the images
alone. In each round the channels are unmixed into dyes by the plan's crosstalk, the brightnesses of the amplicons in each dye are
fitted together as spots of known shape that may overlap, and the amplicons of a cell vote.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
from numpy.typing import NDArray

from simexm.analysis.contract import Analysis, Bench, Conclusion, Score
from simexm.errors import OutputError
from simexm.geometry.grid import Box, triple
from simexm.jobs.sums_by_id import CellSums, add_up, read_table
from simexm.kernels.imaging.spots import brightnesses, spot_profile
from simexm.result.place import refuse_other_format
from simexm.result.result import Result
from simexm.run.tables import part
from simexm.spec.simulation import Spec
from simexm.stages.microscope.optics import Optics
from simexm.stages.microscope.optics_plan import OpticsPlan
from simexm.stages.sample.barcodes import AMPLICONS, Barcodes
from simexm.store.location import Location
from simexm.store.parquet import check_columns

VOTES, CELLS = "votes", "cells"
"""Tables: the sums over blocks, and the result."""

LIGHT_E = 2.0**-20
"""Photo-electrons of one step of light: the sum of integers over blocks does not depend on their order."""

SECONDS_PER_PIXEL = 1e-6
BYTES_PER_PIXEL = 48
"""Rough work of a pixel in a round, and memory of a pixel in a channel."""

UNREAD = "?"
"""Letter of a round in which a cell's amplicons show no light."""

REACH_NM = (2500.0, 1200.0)
"""Reach of a spot, axial and lateral, nm of expanded tissue: spots further apart are fitted independently."""
STEP_NM = (50.0, 20.0)
_AROUND = np.array(list(itertools.product((-1, 0, 1), repeat=3)))


@dataclass(frozen=True)
class Decoded:
    """Decoded barcodes."""

    table: pa.Table
    """One row for each cell with a barcode: `id`, `barcode` (the truth), `decoded` (empty without an amplicon in the
    image), `amplicons` in the image, `letters_wrong`, and `clearness`, the light of the letter read over that of all
    letters in the least clear round."""

    @property
    def cells(self) -> int:
        """Cells with a barcode."""
        return int(self.table.num_rows)

    @property
    def undecidable(self) -> int:
        """Cells without an amplicon in the image."""
        return int((self._column("amplicons") == 0).sum())

    @property
    def right(self) -> int:
        """Cells whose barcode was read without an error."""
        return int(((self._column("amplicons") > 0) & (self._column("letters_wrong") == 0)).sum())

    @property
    def wrong(self) -> int:
        """Cells with at least one letter wrong."""
        return self.cells - self.undecidable - self.right

    @property
    def letters_wrong(self) -> float:
        """Share of wrong letters among those of decidable cells."""
        some = self._column("amplicons") > 0
        letters = sum(len(b) for b, s in zip(self.table["barcode"].to_pylist(), some, strict=True) if s)
        return float(self._column("letters_wrong")[some].sum() / letters) if letters else 0.0

    def scores(self) -> tuple[Score, ...]:
        """The counts as scores."""
        rows = (
            ("cells", self.cells, "cells with a barcode"),
            ("right", self.right, "cells whose barcode was read without an error"),
            ("wrong", self.wrong, "cells with at least one letter wrong"),
            ("undecidable", self.undecidable, "cells without an amplicon in the image"),
            ("letters_wrong", self.letters_wrong, "share of wrong letters among those of decidable cells"),
        )
        return tuple(
            Score(name, float(value), "" if name == "letters_wrong" else "cells", text) for name, value, text in rows
        )

    def _column(self, name: str) -> NDArray[Any]:
        values: NDArray[Any] = self.table[name].to_numpy()
        return values


def decode(result: Result) -> Decoded:
    """Read the barcode of every cell from the images of a result with rounds, in this process; nothing is stored.

    Images may hold counts or be noise-free (`--until` a microscope). Memory grows with a block and with the number of
    cells. Raises OutputError if the result is unfinished, of another format, or has no rounds or no images of light.
    """
    bench = Decode().open((result,))
    sums = [bench.measure(number)[VOTES] for number in range(bench.blocks)]
    return Decoded(bench.conclude({VOTES: [add_up(sums)]}).tables[CELLS])


class Decode(Analysis):
    """Read the barcodes of cells from the images of all rounds of a result, and compare them with the truth.

    It writes the table `cells` (see `Decoded`) and the scores of `Decoded.scores`.
    """

    analysis: Literal["decode"] = "decode"

    def open(self, inputs: tuple[Result, ...]) -> DecodeBench:
        """Open the result; see `decode` for its errors."""
        if len(inputs) != 1:
            raise OutputError(f"decode reads one result, not {len(inputs)}")
        (result,) = inputs
        refuse_other_format(result.path, result.provenance, "its tables and images may have another meaning")
        return DecodeBench(result)


class DecodeBench(Bench):
    """A result with the microscope, the image's grid and the shape of a spot."""

    def __init__(self, result: Result) -> None:
        if not result.complete:
            raise OutputError(f"{result.path} is incomplete; type its `simexm run` command again, then decode it")
        simulation = Spec.from_mapping(result.provenance["spec"])
        if not result.rounds or simulation.barcodes is None:
            raise OutputError(f"{result.path} has no rounds of imaging, so no barcode to read; add the stage barcodes")
        quantity = result.provenance["quantity"]
        if quantity not in ("image", "expected") or not isinstance(simulation.microscope, Optics):
            raise OutputError(
                f"{result.path} holds {quantity}, not light, so there is nothing to read; run it to its end, or --until the "
                "microscope"
            )
        self.result, self.rounds = result, result.rounds
        self.barcodes: Barcodes = simulation.barcodes
        self.optics, self.fluorophores = simulation.microscope, simulation.fluorophores()
        self.detector = simulation.detector if quantity == "image" else None
        plan = result.plan()
        self.context = plan.context
        assert isinstance(plan.imaging.formation, OpticsPlan)
        self.imaging, self.factor = plan.imaging.formation, float(plan.geometry.transform.scale)
        transforms = result.attributes["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"]
        scale, translation = (np.array(t[t["type"]][1:]) * 1000 for t in transforms)
        self.pixel_nm, self.first_nm = scale, translation
        self.shape = triple(result.array().shape[1:])
        self.tiling = plan.blocks
        self._refuse_foreign(result.barcodes())
        for number in range(1, self.rounds + 1):  # finds damage before any work
            result.at(round=number).array()
        self.unmixing = self._unmixing()
        self.profiles = [self._profile(dye) for dye in self.barcodes.dyes.values()]
        self._halo_nm = np.array([REACH_NM[0], REACH_NM[1], REACH_NM[1]]) / self.factor
        self.inputs = {"result": str(result.provenance["hash"])}
        self.blocks = len(self.tiling)
        self.voxels = math.prod(self.shape) * self.rounds
        self.core_seconds = SECONDS_PER_PIXEL * self.voxels
        block = [n + 2 * h for n, h in zip(self.tiling.cell, np.ceil(self._halo_nm / self.pixel_nm), strict=True)]
        self.block_bytes = int(BYTES_PER_PIXEL * math.prod(block) * len(self.optics.all_channels))
        light = [f"light_{r}_{letter}" for r in range(1, self.rounds + 1) for letter in self.barcodes.letters]
        self.columns = {VOTES: ("amplicons", *light)}

    def _unmixing(self) -> NDArray[np.float64]:
        """(letters, channels): dyes of each letter per photo-electron of each channel.

        The dyes of stains are unmixed, too, if there are enough channels.
        """
        channels = [c.name for c in self.optics.all_channels]
        letters = list(self.barcodes.dyes.values())
        dyes = [*letters, *(d for d in self.imaging.dyes() if d not in letters)]
        light = np.zeros((len(channels), len(dyes)))
        for p in self.imaging.pairs:
            light[channels.index(p.channel), dyes.index(p.dye)] = p.in_focus
        for known in (len(dyes), len(letters)):
            some = light[:, :known]
            size = np.linalg.norm(some, axis=0)
            if size.all() and np.linalg.matrix_rank(some / size, tol=1e-3) == known:
                unmixing: NDArray[np.float64] = np.linalg.pinv(some / size)[: len(letters)] / size[: len(letters), None]
                return unmixing
        raise OutputError(
            f"the channels of {self.result.path} cannot separate the dyes {', '.join(letters)}, so no barcode can be read; "
            "give each letter's dye a channel that detects it best"
        )

    def _profile(self, dye: str) -> NDArray[np.float64]:
        """Profile of an amplicon with one dye in the unmixed image, by depth and radius in expanded nm."""
        pair = max((p for p in self.imaging.pairs if p.dye == dye), key=lambda p: p.in_focus)
        channel = next(c for c in self.optics.all_channels if c.name == pair.channel)
        fluorophore = self.fluorophores[dye]
        z, r = (np.arange(0, reach + step, step) for reach, step in zip(REACH_NM, STEP_NM, strict=True))

        def response(depth: Any, radius: Any) -> Any:
            return pair.efficiency * self.optics.response(channel, fluorophore, pair.emission_nm, depth, radius)

        return spot_profile(response, self.barcodes.diameter_nm / 2, self.optics.pixel_size_nm, z, r) / pair.in_focus

    def measure(self, number: int) -> dict[str, CellSums]:
        """Light of each cell's amplicons in a block, by round and letter, in steps of `LIGHT_E`."""
        ids, light = self.read(number)
        counts = np.rint(light.reshape(len(ids), math.prod(light.shape[1:])) / LIGHT_E).astype(np.int64)
        cells, where = np.unique(ids, return_inverse=True)
        sums = np.zeros((cells.size, counts.shape[1] + 1), np.int64)
        np.add.at(sums, where, np.column_stack([np.ones(len(ids), np.int64), counts]))
        return {VOTES: CellSums(cells, dict(zip(self.columns[VOTES], sums.T, strict=True)))}

    def conclude(self, sums: Mapping[str, Iterable[CellSums]]) -> Conclusion:
        """Let the amplicons of each cell vote, and compare with the true barcodes."""
        table = self._compared(add_up([CellSums.none(self.columns[VOTES]), *sums[VOTES]]))
        return Conclusion({CELLS: table}, Decoded(table).scores())

    def _compared(self, votes: CellSums) -> pa.Table:
        truth = self.result.barcodes()
        letters = np.array([*self.barcodes.letters, UNREAD])
        found = votes.look_up(truth["id"].to_numpy())
        amplicons, *light = (found[name] for name in self.columns[VOTES])
        seen = np.stack(light, axis=-1).reshape(truth.num_rows, self.rounds, len(letters) - 1)
        total = seen.sum(axis=2)
        read = letters[np.where(total > 0, seen.argmax(axis=2), len(letters) - 1)]
        given = np.array([list(b) for b in truth["barcode"].to_pylist()], letters.dtype).reshape(read.shape)
        some = amplicons > 0
        return pa.table(
            {
                "id": truth["id"],
                "barcode": truth["barcode"],
                "decoded": pa.array(np.where(some, ["".join(r) for r in read], "").tolist(), pa.string()),
                "amplicons": amplicons,
                "letters_wrong": np.where(some, (read != given).sum(axis=1), 0),
                "clearness": np.where(some, (seen.max(axis=2) / np.maximum(total, 1)).min(axis=1), 0.0),
            }
        )

    def _refuse_foreign(self, truth: pa.Table) -> None:
        word = re.compile(f"[{re.escape(''.join(self.barcodes.letters))}]{{{self.rounds}}}")
        if not all(isinstance(barcode, str) and word.fullmatch(barcode) for barcode in truth["barcode"].to_pylist()):
            raise OutputError(
                f"{self.result.place.tables / 'barcodes.parquet'} holds text that is no barcode of {self.rounds} letters: it "
                "was damaged or written by another program; check the result with `simexm verify`"
            )

    def read(self, number: int) -> tuple[NDArray[np.uint64], NDArray[np.float64]]:
        """Cells of a block's own amplicons, and their light, (n, rounds, letters)."""
        halo = triple(np.ceil(self._halo_nm / self.pixel_nm).astype(int))
        place, cells, own = self._amplicons(number, self._halo_nm)
        pixel = np.floor((place - self.first_nm) / self.pixel_nm + 0.5).astype(np.int64)
        mine = own & np.all((pixel >= 0) & (pixel < self.shape), axis=1)
        if not mine.any():
            return np.zeros(0, np.uint64), np.zeros((0, self.rounds, len(self.profiles)))
        box = self.tiling[number].grown(halo).intersect(Box.of_shape(self.shape))
        near = pixel[np.all((pixel >= box.start) & (pixel < box.stop), axis=1)]
        return cells[mine], self._light(box, near, place)[mine]

    def _light(self, box: Box, near: NDArray[np.int64], place: NDArray[np.float64]) -> NDArray[np.float64]:
        """Fit the amplicons at `place` to the pixels in and around `near`, (n, rounds, letters)."""
        pixels = np.unique((near[:, None] + _AROUND).reshape(-1, 3), axis=0)
        pixels = pixels[np.all((pixels >= box.start) & (pixels < box.stop), axis=1)]
        at = tuple((pixels - np.array(box.start)).T)
        dyes = np.stack(
            [self.unmixing @ self._electrons(n, box)[(slice(None), *at)] for n in range(1, self.rounds + 1)]
        )
        seen = (self.first_nm + pixels * self.pixel_nm) * self.factor
        return np.stack(
            [
                brightnesses(seen, np.ascontiguousarray(dyes[:, d].T), place * self.factor, profile, STEP_NM)
                for d, profile in enumerate(self.profiles)
            ],
            axis=-1,
        )

    def _electrons(self, number: int, box: Box) -> NDArray[np.float64]:
        """Photo-electrons of a round in a box, without offset and background of the detector."""
        found = np.asarray(self.result.array(0, round=number)[(slice(None), *box.slices)], np.float64)
        if self.detector:
            found = self.detector.electrons(found, box, self.context) - self.detector.background_e
        return found

    def _amplicons(
        self, number: int, halo_nm: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.uint64], NDArray[np.bool_]]:
        """Position, cell, and whether they are the block's own, of the amplicons in and around a block, sorted by z."""
        block = self.tiling[number]
        low = self.first_nm + (np.array(block.start) - 0.5) * self.pixel_nm - halo_nm
        high = self.first_nm + (np.array(block.stop) - 0.5) * self.pixel_nm + halo_nm
        reach = np.ceil(halo_nm / self.pixel_nm / self.tiling.cell).astype(int)
        here = np.array(self.tiling.position(number))
        places, cells, own = [], [], []
        for offset in itertools.product(*(range(-r, r + 1) for r in reach)):
            position = here + offset
            if np.any(position < 0) or np.any(position >= self.tiling.counts):
                continue
            other = int(np.ravel_multi_index(tuple(position), self.tiling.counts))
            place, cell = _part(part(self.result.place, AMPLICONS, other))
            some = np.all((place >= low) & (place < high), axis=1) | (other == number)
            places.append(place[some])
            cells.append(cell[some])
            own.append(np.full(int(some.sum()), other == number))
        together = np.concatenate(places)
        order = np.argsort(together[:, 0], kind="stable")
        return together[order], np.concatenate(cells)[order], np.concatenate(own)[order]


def _part(path: Location) -> tuple[NDArray[np.float64], NDArray[np.uint64]]:
    """Positions (n, 3), nm of tissue, and cells of a block's amplicons."""
    table = read_table(path)
    check_columns(path, table.schema, ["z_nm", "y_nm", "x_nm", "cell"])
    return np.stack([table[f"{a}_nm"].to_numpy() for a in "zyx"], axis=1), table["cell"].to_numpy()
