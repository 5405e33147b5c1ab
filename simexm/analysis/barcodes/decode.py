"""Decoding: read the barcodes of cells back from the images of all rounds, and compare with the truth.

The places of amplicons and which cell each lies in are taken from the truth, as a perfect segmentation would give them; their
letters are read from the images alone. In each round the channels' light is unmixed into dyes by the plan's crosstalk; the
amplicons' brightnesses in each dye are fitted together, as spots of known shape that may overlap; and a cell's amplicons vote.
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
"""Tables: of sums over blocks, and of what is found."""

LIGHT_E = 2.0**-20
"""Photo-electrons in a step of the light that is added up over blocks: integers add up to the same in any order."""

SECONDS_PER_PIXEL = 1e-6
BYTES_PER_PIXEL = 48
"""Rough work and memory for a pixel of a round, and of a channel."""

UNREAD = "?"
"""Letter of a round in which none of a cell's amplicons shows any light."""

REACH_NM = (2500.0, 1200.0)
"""Of a spot, along the axis and across, nm of expanded tissue: what lies further away is not fitted together with it."""
STEP_NM = (50.0, 20.0)
_AROUND = np.array(list(itertools.product((-1, 0, 1), repeat=3)))


@dataclass(frozen=True)
class Decoded:
    """What was read.

    Attributes
    ----------
    table
        One row a cell with a barcode: `id`, `barcode` (the truth), `decoded` (empty without an amplicon in the image),
        `amplicons` in the image, `letters_wrong`, `clearness`: of the least clear round, the light of the letter read over that
        of all letters.
    """

    table: pa.Table

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

    def to_mapping(self) -> dict[str, Any]:
        """The sums, for programs."""
        return {
            "cells": self.cells,
            "right": self.right,
            "wrong": self.wrong,
            "undecidable": self.undecidable,
            "share_of_letters_wrong": self.letters_wrong,
        }

    def scores(self) -> tuple[Score, ...]:
        """The sums as scores."""
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
    """Read the barcode of every cell from the images of a result with rounds, here and now; nothing is stored.

    Images of counts and noise-free ones (`--until` a microscope) can be read. Memory follows a block, and the number of cells.

    Raises
    ------
    OutputError
        If the result is not finished, has no rounds, or no images of light; or if it is of another format.
    """
    bench = Decode().open((result,))
    sums = [bench.measure(number)[VOTES] for number in range(bench.blocks)]
    return Decoded(bench.conclude({VOTES: [add_up(sums)]}).tables[CELLS])


class Decode(Analysis):
    """Read the barcodes of cells from the images of all rounds of a result, and compare them with the truth.

    It leaves the table `cells` (see `Decoded`) and the scores of `Decoded.scores`.
    """

    analysis: Literal["decode"] = "decode"

    def open(self, inputs: tuple[Result, ...]) -> DecodeBench:
        """Open the result; see `decode` for what is refused."""
        if len(inputs) != 1:
            raise OutputError(f"decode reads one result, not {len(inputs)}")
        (result,) = inputs
        refuse_other_format(result.path, result.provenance, "its tables and images may mean something else")
        return DecodeBench(result)


class DecodeBench(Bench):
    """A result with what is needed to read it: the microscope, the image's grid, and the shape of a spot."""

    def __init__(self, result: Result) -> None:
        if not result.complete:
            raise OutputError(f"{result.path} is incomplete; type the `simexm run` command again, then decode it")
        simulation = Spec.from_mapping(result.provenance["spec"])
        if not result.rounds or simulation.barcodes is None:
            raise OutputError(
                f"{result.path} has no rounds of imaging, so there is no barcode to read; add the stage barcodes"
            )
        quantity = result.provenance["quantity"]
        if quantity not in ("image", "expected") or not isinstance(simulation.microscope, Optics):
            raise OutputError(
                f"{result.path} holds {quantity}, not light, so there is nothing to read; run it to its end, or --until the "
                "microscope"
            )
        self.result, self.rounds = result, result.rounds
        self.barcodes: Barcodes = simulation.barcodes
        self.optics, self.fluorophores = simulation.microscope, simulation.fluorophores()
        self.camera = simulation.camera if quantity == "image" else None
        plan = result.plan()
        assert isinstance(plan.imaging.formation, OpticsPlan)
        self.imaging, self.factor = plan.imaging.formation, float(plan.geometry.transform.scale)
        transforms = result.attributes["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"]
        scale, translation = (np.array(t[t["type"]][1:]) * 1000 for t in transforms)
        self.pixel_nm, self.first_nm = scale, translation
        self.shape = triple(result.array().shape[1:])
        self.tiling = plan.blocks
        self._refuse_foreign(result.barcodes())
        for number in range(1, self.rounds + 1):  # damage is found before any work
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

        The stains' dyes are told apart, too, where the channels suffice.
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
            f"the channels of {self.result.path} cannot tell the dyes {', '.join(letters)} apart, so no barcode can be read; "
            "give each letter's dye a channel that sees it best"
        )

    def _profile(self, dye: str) -> NDArray[np.float64]:
        """What a pixel shows of an amplicon with one dye, unmixed, by depth and radius in expanded nm."""
        pair = max((p for p in self.imaging.pairs if p.dye == dye), key=lambda p: p.in_focus)
        channel = next(c for c in self.optics.all_channels if c.name == pair.channel)
        fluorophore = self.fluorophores[dye]
        z, r = (np.arange(0, reach + step, step) for reach, step in zip(REACH_NM, STEP_NM, strict=True))
        return (
            spot_profile(
                lambda depth, radius: self.optics.response(channel, fluorophore, pair.emission_nm, depth, radius),
                self.barcodes.diameter_nm / 2, self.optics.pixel_size_nm, z, r,
            )
            / pair.in_focus
        )  # fmt: skip

    def measure(self, number: int) -> dict[str, CellSums]:
        """Light of each cell's amplicons in a block, by round and letter, in steps of `LIGHT_E`."""
        ids, light = self.read(number)
        counts = np.rint(light.reshape(len(ids), math.prod(light.shape[1:])) / LIGHT_E).astype(np.int64)
        cells, where = np.unique(ids, return_inverse=True)
        sums = np.zeros((cells.size, counts.shape[1] + 1), np.int64)
        np.add.at(sums, where, np.column_stack([np.ones(len(ids), np.int64), counts]))
        return {VOTES: CellSums(cells, dict(zip(self.columns[VOTES], sums.T, strict=True)))}

    def conclude(self, sums: Mapping[str, Iterable[CellSums]]) -> Conclusion:
        """Let the amplicons of each cell vote, and compare with the barcodes that were given."""
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
                f"{self.result.place.tables / 'barcodes.parquet'} holds what is no barcode of {self.rounds} letters: it was "
                "damaged, or written by another program; verify the result with `simexm verify`"
            )

    def read(self, number: int) -> tuple[NDArray[np.uint64], NDArray[np.float64]]:
        """For a block's own amplicons: their cells, and their light in each round and letter, (n, rounds, letters)."""
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
        """Fit the amplicons at `place` to the pixels in and around `near`, for each round and letter."""
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
        """Photo-electrons of a round in a box, without what the camera adds."""
        found = np.asarray(self.result.array(0, round=number)[(slice(None), *box.slices)], np.float64)
        if self.camera:
            c = self.camera
            found = (found - c.offset_counts) / c.gain_counts_per_e - (
                c.autofluorescence_e + c.stray_light_e + c.dark_e
            )
        return found

    def _amplicons(
        self, number: int, halo_nm: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.uint64], NDArray[np.bool_]]:
        """Place, cell, and whether they are the block's own, of the amplicons in and around a block; ascending along z."""
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
    """Places (n, 3), nm of tissue, and cells of a block's amplicons."""
    table = read_table(path)
    check_columns(path, table.schema, ["z_nm", "y_nm", "x_nm", "cell"])
    return np.stack([table[f"{a}_nm"].to_numpy() for a in "zyx"], axis=1), table["cell"].to_numpy()
