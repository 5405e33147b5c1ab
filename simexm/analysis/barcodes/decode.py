"""Decoding: read the barcodes of cells back from the images of all rounds, and compare with the truth.

The places of amplicons and which cell each lies in are taken from the truth, as a perfect segmentation would give them; their
letters are read from the images alone. In each round the channels' light is unmixed into dyes by the plan's crosstalk; the
amplicons' brightnesses in each dye are fitted together, as spots of known shape that may overlap; and a cell's amplicons vote.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from simexm.errors import OutputError
from simexm.geometry.grid import Box, Tiling, exact3, triple
from simexm.jobs.sums_by_id import read_table
from simexm.kernels.imaging.spots import brightnesses, spot_profile
from simexm.result.result import Result
from simexm.run.tables import part
from simexm.spec.simulation import Spec
from simexm.stages.microscope.optics import Optics
from simexm.stages.microscope.optics_plan import OpticsPlan
from simexm.stages.sample.barcodes import AMPLICONS, Barcodes
from simexm.store.location import Location, refuse_url, with_ending
from simexm.store.parquet import check_columns
from simexm.store.whole_file import whole_file

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

    def _column(self, name: str) -> NDArray[Any]:
        values: NDArray[Any] = self.table[name].to_numpy()
        return values


def refuse_table(path: Path, overwrite: bool) -> None:
    """Refuse a table that cannot be written, before the work is done.

    Raises
    ------
    OutputError
        With what to type instead.
    """
    refuse_url(path)
    if path.suffix.lower() not in (".parquet", ".csv"):
        raise OutputError(f"the table {path} is neither Parquet nor CSV; type --output {with_ending(path, '.csv')}")
    if path.exists() and not overwrite:
        raise OutputError(f"{path} is there already; type --overwrite, or another name")


def write_table(table: pa.Table, path: Path) -> None:
    """Write a table as Parquet or CSV, by the name's end, in one step."""
    from pyarrow import csv

    with whole_file(path) as partial:
        csv.write_csv(table, partial) if path.suffix.lower() == ".csv" else pq.write_table(table, partial)


@dataclass
class _Votes:
    """Light of each letter in each round, summed over the amplicons of each cell."""

    shape: tuple[int, int]
    light: dict[int, NDArray[np.float64]] = field(default_factory=dict)
    amplicons: dict[int, int] = field(default_factory=dict)

    def add(self, cells: NDArray[np.uint64], light: NDArray[np.float64]) -> None:
        for cell, mine in zip(cells.tolist(), light, strict=True):
            if cell not in self.light:
                self.light[cell] = np.zeros(self.shape)
                self.amplicons[cell] = 0
            self.light[cell] += mine
            self.amplicons[cell] += 1


def decode(result: Result) -> Decoded:
    """Read the barcode of every cell from the images of a result with rounds.

    Images of counts and noise-free ones (`--until` a microscope) can be read. Memory follows a block, and the number of cells.

    Raises
    ------
    OutputError
        If the result is not finished, has no rounds, or no images of light.
    """
    bench = _Bench(result)
    votes = _Votes((bench.rounds, len(bench.barcodes.dyes)))
    for cells, light in bench.read():
        votes.add(cells, light)
    truth = result.barcodes()
    letters = np.array([*bench.barcodes.letters, UNREAD])
    word = re.compile(f"[{re.escape(''.join(bench.barcodes.letters))}]{{{bench.rounds}}}")
    if not all(isinstance(barcode, str) and word.fullmatch(barcode) for barcode in truth["barcode"].to_pylist()):
        raise OutputError(
            f"{result.place.tables / 'barcodes.parquet'} holds what is no barcode of {bench.rounds} letters: it was damaged, or "
            "written by another program; verify the result with `simexm verify`"
        )
    rows: dict[str, list[Any]] = {k: [] for k in ("decoded", "amplicons", "letters_wrong", "clearness")}
    for cell, barcode in zip(truth["id"].to_pylist(), truth["barcode"].to_pylist(), strict=True):
        code, wrong, clear = "", 0, 0.0
        if cell in votes.light:
            light = votes.light[cell]
            total = light.sum(axis=1)
            best = np.where(total > 0, light.argmax(axis=1), len(letters) - 1)
            code = "".join(letters[best])
            wrong = sum(a != b for a, b in zip(code, barcode, strict=True))
            clear = float(np.min(light.max(axis=1) / np.where(total > 0, total, 1)))
        for name, value in zip(rows, (code, votes.amplicons.get(cell, 0), wrong, clear), strict=True):
            rows[name].append(value)
    columns = {"id": truth["id"], "barcode": truth["barcode"], **{k: pa.array(v) for k, v in rows.items()}}
    if not truth.num_rows:
        columns["decoded"] = pa.array([], pa.string())
    return Decoded(pa.table(columns))


class _Bench:
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
        about = result.plan["source"]
        transform = simulation.transform()
        crop = Box(triple(about["crop_start"]), triple(about["crop_stop"]))
        geometry = self.optics.geometry(
            triple(about["shape_voxels"]), crop, exact3(tuple(about["voxel_size_nm"])), exact3((0, 0, 0)), transform
        )
        plan = self.optics.resolve(self.fluorophores, geometry).formation
        assert isinstance(plan, OpticsPlan)
        self.plan, self.factor = plan, float(transform.scale)
        transforms = result.attributes["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"]
        scale, translation = (np.array(t[t["type"]][1:]) * 1000 for t in transforms)
        self.pixel_nm, self.first_nm = scale, translation
        self.shape = triple(result.array().shape[1:])
        self.blocks = Tiling(Box.of_shape(self.shape), triple(result.plan["blocks"]["block_pixels"]))
        self.unmixing = self._unmixing()
        self.profiles = [self._profile(dye) for dye in self.barcodes.dyes.values()]

    def _unmixing(self) -> NDArray[np.float64]:
        """(letters, channels): dyes of each letter per photo-electron of each channel.

        The stains' dyes are told apart, too, where the channels suffice.
        """
        channels = [c.name for c in self.optics.all_channels]
        letters = list(self.barcodes.dyes.values())
        dyes = [*letters, *(d for d in self.plan.dyes() if d not in letters)]
        light = np.zeros((len(channels), len(dyes)))
        for p in self.plan.pairs:
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
        pair = max((p for p in self.plan.pairs if p.dye == dye), key=lambda p: p.in_focus)
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

    def read(self) -> Iterator[tuple[NDArray[np.uint64], NDArray[np.float64]]]:
        """For the amplicons of each block: their cells, and their light in each round and letter, (n, rounds, letters)."""
        halo_nm = np.array([REACH_NM[0], REACH_NM[1], REACH_NM[1]]) / self.factor
        halo = triple(np.ceil(halo_nm / self.pixel_nm).astype(int))
        for number in range(len(self.blocks)):
            place, cells, own = self._amplicons(number, halo_nm)
            pixel = np.floor((place - self.first_nm) / self.pixel_nm + 0.5).astype(np.int64)
            inside = np.all((pixel >= 0) & (pixel < self.shape), axis=1)
            mine = own & inside
            if mine.any():
                box = self.blocks[number].grown(halo).intersect(Box.of_shape(self.shape))
                near = pixel[np.all((pixel >= box.start) & (pixel < box.stop), axis=1)]
                yield cells[mine], self._light(box, near, place)[mine]

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
        block = self.blocks[number]
        low = self.first_nm + (np.array(block.start) - 0.5) * self.pixel_nm - halo_nm
        high = self.first_nm + (np.array(block.stop) - 0.5) * self.pixel_nm + halo_nm
        reach = np.ceil(halo_nm / self.pixel_nm / self.blocks.cell).astype(int)
        here = np.array(self.blocks.position(number))
        places, cells, own = [], [], []
        for offset in itertools.product(*(range(-r, r + 1) for r in reach)):
            position = here + offset
            if np.any(position < 0) or np.any(position >= self.blocks.counts):
                continue
            other = int(np.ravel_multi_index(tuple(position), self.blocks.counts))
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
