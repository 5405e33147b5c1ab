"""Barcodes: in-situ sequencing, amplicons whose dye in each round is a letter of their cell's barcode."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from simexm.errors import SpecError
from simexm.geometry.grid import Box, NmBox, exact, exact3
from simexm.kernels.emission import amplicons as kernel
from simexm.kernels.emission.amplicons import AmpliconKeys, Amplicons, join
from simexm.kernels.emission.emit import CAPACITY, emitter_bytes
from simexm.kernels.emission.points import AMPLICON
from simexm.kernels.emission.thinning import dyes_left
from simexm.kernels.labels.cells import ByCell
from simexm.random import derive_key, id_uniform
from simexm.settings import Frozen
from simexm.spectra.curves import CsvCurve, Curve
from simexm.stages.contract import (
    EMITTERS,
    LABELS,
    REGIONS,
    Chunk,
    Counted,
    EmitterStream,
    LabelPart,
    Quantity,
    RunContext,
    Stage,
    TileState,
)
from simexm.stages.frames import FrameAxis
from simexm.stages.products import Product
from simexm.stages.roles import CELLS
from simexm.stages.sample.codebook import NO_LETTER, Codebook, random_codes, read_codebook

AMPLICONS, BARCODES = "amplicons", "barcodes"
_ROOM = 1 << 16


class Sites(Frozen):
    """A region in which amplicons form.

    Attributes
    ----------
    region
        `membrane`, `cytosol`, or a mask of the source.
    density_per_um3
        Amplicons per um^3 of the region, before expansion.
    """

    region: str
    density_per_um3: float = Field(gt=0, le=1000)


def _sorted(amplicons: Amplicons) -> Amplicons:
    """Sort by plane, region, row and column."""
    voxel = amplicons.voxel
    return amplicons.select(np.lexsort((voxel[:, 2], voxel[:, 1], amplicons.region, voxel[:, 0])))


class Barcodes(Stage):
    """Barcoded cells: in each round, the amplicons of a cell carry the dye of its barcode's letter for that round.

    Amplicons per voxel are Poisson(density * volume), centred at random positions in the voxel; their dyes are spread
    evenly over a ball. Positions are the same in every round, only the dye changes. Later stages run once per round,
    and each round has its own image.

    Attributes
    ----------
    rounds
        Rounds of imaging, and letters of a barcode.
    dyes
        Dye of each letter, by letter (one character).
    codebook
        CSV file with the columns id and barcode; cells that it lacks carry none. By default each cell's letters are
        drawn at random.
    codebook_digest
        Digest of the codebook's content, as results state it; a file with other content is refused.
    cell_fraction
        Share of the cells that carry a barcode; chosen by seed and cell id, so a cell is the same everywhere.
    amplicons
        Regions and densities of amplicons; each region once. A voxel in two of them can hold amplicons of both.
    diameter_nm
        Diameter of the ball, nm of expanded tissue.
    dyes_per_amplicon, distribution
        Dyes of an amplicon: the mean of a `poisson` number, or a `fixed` number.
    residue
        Share of the dyes of the round before that were not washed out, where the letter changes.
    """

    stage: Literal["barcodes"] = "barcodes"
    rounds: int = Field(ge=1, le=99)
    dyes: dict[str, str] = Field(min_length=1, max_length=36)
    codebook: str | None = None
    codebook_digest: str | None = None
    cell_fraction: float = Field(default=1.0, gt=0, le=1)
    amplicons: tuple[Sites, ...] = Field(min_length=1, max_length=8)
    diameter_nm: float = Field(default=400.0, gt=0, le=1e4)
    dyes_per_amplicon: int = Field(default=50, ge=1, le=1000)
    distribution: Literal["poisson", "fixed"] = "poisson"
    residue: float = Field(default=0.0, ge=0, lt=1)

    reads: ClassVar[tuple[Quantity, ...]] = (LABELS, REGIONS, EMITTERS)
    writes: ClassVar[tuple[Quantity, ...]] = (EMITTERS,)

    @model_validator(mode="after")
    def _letters(self) -> Self:
        wrong = [letter for letter in self.dyes if len(letter) != 1 or not (letter.isascii() and letter.isalnum())]
        if wrong:
            raise ValueError(
                f"dyes has the key {wrong[0]!r}, but a barcode has one letter or digit per round; use one character for each "
                "dye, such as A: ATTO488"
            )
        names = list(self.dyes.values())
        double = sorted(n for n, count in Counter(names).items() if count > 1)
        if double:
            raise ValueError(
                f"two letters have the dye {double[0]} and could not be distinguished; give each its own dye"
            )
        regions = [s.region for s in self.amplicons]
        twice = sorted(r for r, count in Counter(regions).items() if count > 1)
        if twice:
            raise ValueError(
                f"amplicons lists the region {twice[0]!r} twice; write it once with the sum of the densities"
            )
        return self

    @model_validator(mode="after")
    def _codebook_known(self) -> Self:
        if self.codebook_digest is not None and self.codebook is None:
            raise ValueError("codebook_digest is set without a codebook; name the file, or leave both out")
        return self

    # ---------------------------------------------------------------- names

    @property
    def letters(self) -> str:
        """Letters, in order."""
        return "".join(self.dyes)

    @property
    def layer_of_dye(self) -> dict[str, str]:
        """Layer of the amplicons that carry a dye in a round, by dye."""
        return {dye: f"{AMPLICONS}_{letter}" for letter, dye in self.dyes.items()}

    def resolved(self, curves: Mapping[str, CsvCurve | Curve]) -> Self:
        """Copy with the codebook's absolute path and digest; SpecError if it cannot be read or has another digest."""
        book = self._book()
        if book is None:
            return self
        path = str(Path(str(self.codebook)).expanduser().resolve())
        return self.model_copy(update={"codebook": path, "codebook_digest": book.digest})

    def _book(self) -> Codebook | None:
        if self.codebook is None:
            return None
        book = read_codebook(str(Path(self.codebook).expanduser()), self.rounds, self.letters)
        if self.codebook_digest not in (None, book.digest):
            raise SpecError(
                f"the codebook {self.codebook} has the digest {book.digest[:12]}, not the codebook_digest "
                f"{str(self.codebook_digest)[:12]}, so barcodes would differ; restore the file, or leave codebook_digest out"
            )
        return book

    # ---------------------------------------------------------------- barcodes of cells

    def codes(self, ids: NDArray[np.uint64], seed: int) -> NDArray[np.uint8]:
        """Index of each cell's letter in each round, (n, rounds); `NO_LETTER` for cells without a barcode."""
        book = self._book()
        codes = random_codes(ids, self.rounds, len(self.dyes), seed) if book is None else book.of(ids)
        carries = (id_uniform(ids, derive_key(seed, self.stage, "cells")) < self.cell_fraction) & (ids != 0)
        codes[~carries] = NO_LETTER
        return codes

    def lacking(self, ids: NDArray[np.uint64]) -> int:
        """Number of these cells that the codebook lacks; 0 without a codebook."""
        book = self._book()
        return 0 if book is None else int((book.of(ids)[:, 0] == NO_LETTER).sum())

    def texts(self, codes: NDArray[np.uint8]) -> list[str]:
        """Barcodes as text; empty for cells without one."""
        letters = self.letters
        return ["" if row[0] == NO_LETTER else "".join(letters[c] for c in row) for row in codes]

    # ---------------------------------------------------------------- halo and memory

    def reach_nm(self, context: RunContext) -> float:
        """Radius of the ball, nm of tissue."""
        return self.diameter_nm / 2 / float(context.geometry.transform.scale)

    def needs(self, wanted: NmBox, context: RunContext) -> dict[str, NmBox]:
        """A halo of the ball's radius."""
        own = wanted.grown(exact3((exact(self.reach_nm(context)),) * 3))
        return {"regions": own, "labels": own, "emitters": wanted}

    def tile_bytes(self, voxels: Box, context: RunContext) -> int:
        """Amplicons (at the highest density, three times for copies), their dyes, and the codebook."""
        volume_um3 = voxels.size * math.prod(float(v) for v in context.geometry.voxel_nm) * 1e-9
        mean = volume_um3 * max(s.density_per_um3 for s in self.amplicons)
        book = self._book()
        stored = 0 if book is None else book.codes.nbytes + book.ids.nbytes
        return (
            int((mean + 6 * math.sqrt(mean) + 1024) * 3 * kernel.AMPLICON_BYTES)
            + _ROOM * emitter_bytes(context.identified)
            + stored
        )

    # ---------------------------------------------------------------- computing a tile

    def visit(self, part: LabelPart, state: TileState) -> None:
        """Find the amplicons of a part that belong to the tile or reach into it."""
        if part.again:
            return
        carries = state.scratch.setdefault("carries", ByCell(partial(self._carries, seed=state.context.seed)))
        found: list[Amplicons] = state.scratch.setdefault("parts", [])
        found += self._find(part, state, carries.at(part.cells.ids))

    def run(self, state: TileState) -> None:
        """Add the amplicons' dyes, those of the frame's round, to the stream of emitters."""
        before: EmitterStream = state.read(EMITTERS)
        state.labels.survey()
        context = state.context
        radius = self.reach_nm(context)
        codes = self.codes(state.cell_ids, context.seed)
        found = self._found(state)
        number = state.frame.round - 1
        letters = codes[found.cell, number]
        stale = codes[found.cell, number - 1] if self.residue and number else None
        dye_keys = np.array([self._keys(context.seed, s.region).dye for s in self.amplicons], np.int64)
        room = state.device.room(min(CAPACITY, _ROOM), context.identified)
        letter_of = {dye: n for n, dye in enumerate(self.dyes.values())}
        size = float(context.geometry.voxel_nm[0])
        first = context.geometry.crop.start[0]

        def of_dye(dye: str) -> Iterator[Chunk]:
            lit = found.select(letters == letter_of[dye])
            if stale is not None:
                rest = found.select((stale == letter_of[dye]) & (letters != stale))
                lit = _sorted(join([lit, self._left(rest, context.seed)]))
            for plane in np.unique(lit.voxel[:, 0]):
                start, stop = np.searchsorted(lit.voxel[:, 0], (plane, plane + 1))
                yield Chunk(None, room.first(0), float(plane - first) * size - radius)
                for dyes in state.device.scatter(lit.select(slice(start, stop)), dye_keys, radius, room):
                    yield Chunk(self.layer_of_dye[dye], dyes, -math.inf)

        def chunks(dye: str) -> Iterator[Chunk]:
            streams = [before.chunks(dye)] if dye in before.dyes.values() else []
            return in_order([*streams, of_dye(dye)] if dye in letter_of else streams)

        dyes = {**before.dyes, **{layer: dye for dye, layer in self.layer_of_dye.items()}}
        reach = max(before.reach_nm, size + 2 * radius)
        kept_as = {**before.kept_as, **dict.fromkeys(self.layer_of_dye.values(), AMPLICONS)}
        state.write(EMITTERS, EmitterStream(dyes, reach, chunks, before.varying | frozenset(letter_of), kept_as))

    def _found(self, state: TileState) -> Amplicons:
        """Amplicons of the tile sorted by plane, region, row and column, so that parts do not matter."""
        if "parts" in state.scratch:
            state.scratch["found"] = _sorted(join(state.scratch.pop("parts")))
        amplicons: Amplicons = state.scratch["found"]
        return amplicons

    def _left(self, amplicons: Amplicons, seed: int) -> Amplicons:
        """The same amplicons with what is left of their dyes after a round."""
        kind = np.full(amplicons.number.size, AMPLICON, np.int32)
        identity = np.column_stack([amplicons.voxel, amplicons.region, amplicons.number, kind]).astype(np.int32)
        key = derive_key(seed, self.stage, "residue")
        left = amplicons._replace(dyes=dyes_left(amplicons.dyes, identity, self.residue, *key))
        return left.select(left.dyes > 0)

    # ---------------------------------------------------------------- products

    @property
    def frame_axes(self) -> tuple[FrameAxis, ...]:
        """One axis: the rounds."""
        return (FrameAxis("round", tuple(range(1, self.rounds + 1))),)

    @property
    def varies(self) -> frozenset[str]:
        """Rounds: the dye of an amplicon changes."""
        return frozenset({"round"})

    @property
    def emits(self) -> dict[str, str]:
        """Dye of the amplicons of each letter, by layer."""
        return {layer: dye for dye, layer in self.layer_of_dye.items()}

    @property
    def regions_used(self) -> tuple[tuple[str, str], ...]:
        """Regions in which amplicons form."""
        return tuple((sites.region, "amplicons form in") for sites in self.amplicons)

    def products(self, context: RunContext) -> tuple[Product, ...]:
        """Tables of amplicons, of their number in each cell, and of barcodes."""
        places = dict.fromkeys(("z_nm", "y_nm", "x_nm"), "float64")
        columns = {**places, "cell": "uint64", "region": "str", "dyes": "int32"}
        texts = {"id": "uint64", "barcode": "str", AMPLICONS: "int64"}
        return (
            Product(AMPLICONS, "table", columns=columns),
            Product(CELLS, "table", columns={AMPLICONS: "int64"}, key="id", merge="sum"),
            Product(BARCODES, "table", columns=texts, merge="derived", source=CELLS),
        )

    def rows(self, product: Product, state: TileState) -> dict[str, NDArray[Any]]:
        """Amplicons whose voxel belongs to the tile, or their number in each cell.

        `z_nm`, `y_nm`, `x_nm` in tissue, in the coordinates of the ground truth; `cell`; `region`; `dyes`.
        """
        found = self._found(state)
        mine, ids = found.select(found.own != 0), state.cell_ids
        if product.name == CELLS:
            held = np.bincount(mine.cell, minlength=ids.size).astype(np.int64)
            return {"id": ids[held > 0], AMPLICONS: held[held > 0]}
        origin = [float(o) for o in state.context.geometry.specimen_origin_nm]
        regions = np.array([s.region for s in self.amplicons], dtype=object)
        return {
            **{f"{axis}_nm": mine.place[:, n] + origin[n] for n, axis in enumerate("zyx")},
            "cell": ids[mine.cell],
            "region": regions[mine.region],
            "dyes": mine.dyes,
        }

    def table(
        self, product: Product, sums: Mapping[str, NDArray[Any]], context: RunContext, counted: Counted
    ) -> dict[str, NDArray[Any]]:
        """Columns of the table of barcodes, one row per barcoded cell: `id`, `barcode`, `amplicons` in the specimen."""
        texts = np.array(self.texts(self.codes(sums["id"], context.seed)), dtype=object)
        some = texts != ""
        return {"id": sums["id"][some], "barcode": texts[some], AMPLICONS: sums[AMPLICONS][some]}

    def sums(self, product: Product, sums: Mapping[str, NDArray[Any]]) -> dict[str, int]:
        """Cells that the codebook lacks."""
        return {"lacking": self.lacking(sums["id"])} if product.name == BARCODES else {}

    def end_warnings(self, sums: Mapping[str, int]) -> list[str]:
        """Warn if there is no amplicon, or the codebook lacks cells."""
        found = []
        if not sums.get(AMPLICONS):
            found.append(
                "there are no amplicons, so no barcode can be read; check that barcoded cells overlap the regions, and check "
                "density_per_um3, cell_fraction and the codebook's ids"
            )
        if lacking := sums.get("lacking"):
            found.append(
                f"{lacking} cells are not in the codebook, so they carry no barcode and no amplicons; if that is not intended, "
                "add lines id,barcode for them"
            )
        return found

    def provenance(self, sums: Mapping[str, int]) -> dict[str, Any]:
        """Number of amplicons."""
        return {AMPLICONS: sums.get(AMPLICONS, 0)}

    # ---------------------------------------------------------------- finding amplicons

    def _keys(self, seed: int, region: str) -> AmpliconKeys:
        return AmpliconKeys(*(derive_key(seed, self.stage, region, what) for what in ("number", "place", "dye")))

    def _carries(self, ids: NDArray[np.uint64], seed: int) -> NDArray[np.uint8]:
        return np.asarray(self.codes(ids, seed)[:, 0] != NO_LETTER, np.uint8)

    def _find(self, part: LabelPart, state: TileState, carries: NDArray[np.uint8]) -> list[Amplicons]:
        context = state.context
        geometry = context.geometry
        voxel_nm = (float(geometry.voxel_nm[0]), float(geometry.voxel_nm[1]), float(geometry.voxel_nm[2]))
        wanted = state.boxes["emitters"].grown(exact3((exact(self.reach_nm(context)),) * 3))
        return [
            kernel.find_amplicons(
                part.index,
                state.device.to_host(part.marked()),
                carries,
                region=n,
                bits=context.region_bits[sites.region],
                mean=sites.density_per_um3 * math.prod(voxel_nm) * 1e-9,
                dyes=self.dyes_per_amplicon,
                fixed=self.distribution == "fixed",
                keys=self._keys(context.seed, sites.region),
                array=part.box,
                specimen=geometry.crop,
                inside=geometry.voxels(wanted).intersect(part.core),
                own=geometry.own_voxels(state.pixels),
                voxel_nm=voxel_nm,
            )
            for n, sites in enumerate(self.amplicons)
        ]


def in_order(streams: Sequence[Iterator[Chunk]]) -> Iterator[Chunk]:
    """Merge streams of chunks in ascending order of their floors, so that the result keeps the promise of `Chunk`.

    A stream is a sequence of floors, each followed by its chunks. The lowest floor is yielded next, with its chunks:
    all later floors lie at or above it.
    """
    waiting: list[tuple[Chunk, Iterator[Chunk]]] = []
    for stream in streams:
        waiting += [(floor, stream) for floor in (next(stream, None),) if floor is not None]
    while waiting:
        lowest = min(range(len(waiting)), key=lambda n: waiting[n][0].floor_nm)
        floor, stream = waiting.pop(lowest)
        yield floor
        for chunk in stream:
            if chunk.layer is None:
                waiting.append((chunk, stream))
                break
            yield chunk
