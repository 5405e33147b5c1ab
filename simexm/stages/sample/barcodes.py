"""Barcodes: amplicons whose dye changes from round to round, spelling the barcode of their cell (in-situ sequencing)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from simexm.errors import SpecError
from simexm.geometry.grid import Box, NmBox, exact, exact3
from simexm.kernels.emission import amplicons as kernel
from simexm.kernels.emission.amplicons import AmpliconKeys, Amplicons, join
from simexm.kernels.emission.emit import CAPACITY, emitter_bytes
from simexm.kernels.labels.cells import ByCell, counts
from simexm.random import derive_key, id_uniform
from simexm.settings import Frozen
from simexm.stages.contract import (
    EMITTERS,
    LABELS,
    REGIONS,
    Chunk,
    EmitterStream,
    LabelPart,
    Quantity,
    Stage,
    Work,
    World,
)
from simexm.stages.sample.codebook import NO_LETTER, Codebook, random_codes, read_codebook

AMPLICONS = "amplicons"
_ROOM = 1 << 16


class Sites(Frozen):
    """Where amplicons form.

    Attributes
    ----------
    region
        `membrane`, `cytosol`, or a mask of the source.
    density_per_um3
        Amplicons per um^3 of the region, before expansion.
    """

    region: str
    density_per_um3: float = Field(gt=0, le=1000)


class Barcodes(Stage):
    """Cells carry barcodes; amplicons in them light up, in each round, in the dye of the barcode's letter for that round.

    Amplicons per voxel are Poisson(density * volume), each centred at a random place in its voxel, and its dyes are spread
    evenly over a ball. They are the same in every round (each dye is replaced by one of the round's kind at the same place).
    Everything after this stage is done once a round, and there is one image for each.

    Attributes
    ----------
    rounds
        Rounds of imaging, and letters of a barcode.
    dyes
        Dye of each letter, by letter (one character).
    codebook
        CSV file with the columns id and barcode; cells that it lacks carry none. Left out, each cell's letters are drawn at
        random.
    codebook_digest
        Of the codebook's content, as results give it; a file of other content is refused.
    cell_fraction
        Share of the cells that carry a barcode; a cell is alike everywhere.
    amplicons
        Where they form, and how densely; each region once. A voxel that is in two of them may hold amplicons of both.
    diameter_nm
        Of the ball, nm of expanded tissue.
    dyes_per_amplicon, distribution
        Mean number of dyes of an amplicon: `poisson`, or `fixed`.
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

    reads: ClassVar[tuple[Quantity, ...]] = (LABELS, REGIONS, EMITTERS)
    writes: ClassVar[tuple[Quantity, ...]] = (EMITTERS,)

    @model_validator(mode="after")
    def _letters(self) -> Self:
        wrong = [letter for letter in self.dyes if len(letter) != 1 or not (letter.isascii() and letter.isalnum())]
        if wrong:
            raise ValueError(
                f"dyes names the letter {wrong[0]!r}, but a barcode has one letter or digit for each round; give one character "
                "for each dye, such as A: ATTO488"
            )
        names = list(self.dyes.values())
        double = sorted(n for n, count in Counter(names).items() if count > 1)
        if double:
            raise ValueError(
                f"two letters have the dye {double[0]}, so nothing tells them apart; give each a dye of its own"
            )
        regions = [s.region for s in self.amplicons]
        twice = sorted(r for r, count in Counter(regions).items() if count > 1)
        if twice:
            raise ValueError(f"amplicons names the region {twice[0]!r} twice; add the densities up")
        return self

    @model_validator(mode="after")
    def _codebook_known(self) -> Self:
        if self.codebook_digest is not None and self.codebook is None:
            raise ValueError("codebook_digest is given without a codebook; name the file, or leave both out")
        return self

    # ---------------------------------------------------------------- what it is called

    @property
    def letters(self) -> str:
        """The letters, in order."""
        return "".join(self.dyes)

    @property
    def layer_of_dye(self) -> dict[str, str]:
        """Name of the amplicons that show each dye in a round, by dye."""
        return {dye: f"{AMPLICONS}_{letter}" for letter, dye in self.dyes.items()}

    def resolved(self) -> Barcodes:
        """The same with the codebook's place and content told.

        Raises
        ------
        SpecError
            If the codebook cannot be read, or is another than `codebook_digest` says.
        """
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
                f"the codebook {self.codebook} is not the one that codebook_digest tells of ({book.digest[:12]} instead of "
                f"{str(self.codebook_digest)[:12]}), so the barcodes would be others; restore the file, or leave "
                "codebook_digest out"
            )
        return book

    # ---------------------------------------------------------------- barcodes of cells

    def codes(self, ids: NDArray[np.uint64], seed: int) -> NDArray[np.uint8]:
        """Number of each cell's letter in each round, (n, rounds); `NO_LETTER` where the cell carries no barcode."""
        book = self._book()
        codes = random_codes(ids, self.rounds, len(self.dyes), seed) if book is None else book.of(ids)
        carries = (id_uniform(ids, derive_key(seed, self.stage, "cells")) < self.cell_fraction) & (ids != 0)
        codes[~carries] = NO_LETTER
        return codes

    def lacking(self, ids: NDArray[np.uint64]) -> int:
        """How many of these cells the codebook lacks; 0 where there is none."""
        book = self._book()
        return 0 if book is None else int((book.of(ids)[:, 0] == NO_LETTER).sum())

    def texts(self, codes: NDArray[np.uint8]) -> list[str]:
        """Barcodes as text; empty where there is none."""
        letters = self.letters
        return ["" if row[0] == NO_LETTER else "".join(letters[c] for c in row) for row in codes]

    # ---------------------------------------------------------------- how far and how much

    def radius_nm(self, world: World) -> float:
        """Of the ball, nm of tissue."""
        return self.diameter_nm / 2 / float(world.geometry.transform.scale)

    def needs(self, wanted: NmBox, world: World) -> dict[str, NmBox]:
        """The ball's radius more on each side."""
        own = wanted.grown(exact3((exact(self.radius_nm(world)),) * 3))
        return {"regions": own, "labels": own, "emitters": wanted}

    def tile_bytes(self, voxels: Box, world: World) -> int:
        """Amplicons of a tile (the densest region everywhere, and half more for their copies), their dyes, the codebook."""
        volume_um3 = voxels.size * math.prod(float(v) for v in world.geometry.voxel_nm) * 1e-9
        mean = volume_um3 * max(s.density_per_um3 for s in self.amplicons)
        book = self._book()
        stored = 0 if book is None else book.codes.nbytes + book.ids.nbytes
        return (
            int((mean + 6 * math.sqrt(mean) + 1024) * 3 * kernel.AMPLICON_BYTES)
            + _ROOM * emitter_bytes(world.identified)
            + stored
        )

    # ---------------------------------------------------------------- a tile

    def see(self, part: LabelPart, work: Work) -> None:
        """Find the amplicons of a part that reach into the tile or belong to it."""
        if part.again:
            return
        carries = work.values.setdefault("carries", ByCell(partial(self._carries, seed=work.world.seed)))
        found: list[Amplicons] = work.values.setdefault("amplicon_parts", [])
        found += self._find(part, work, carries.at(part.cells.ids))

    def run(self, work: Work) -> None:
        """Write the stream of emitters with the amplicons' dyes added; which dye they are is asked of `work.round`."""
        before: EmitterStream = work.values["emitters"]
        work.labels.survey()
        ids = work.labels.cells.ids
        world = work.world
        radius = self.radius_nm(world)
        codes = self.codes(ids, world.seed)
        found = join(work.values.pop("amplicon_parts"))
        # by plane, region, row and column, however the labels were cut into parts
        found = found.select(np.lexsort((found.voxel[:, 2], found.voxel[:, 1], found.region, found.voxel[:, 0])))
        work.values[AMPLICONS] = found
        work.tally.amplicons = counts()
        np.add.at(work.tally.amplicons.at(ids), found.cell[found.own != 0], 1)
        dye_keys = np.array([self._keys(world.seed, s.region).dye for s in self.amplicons], np.int64)
        room = work.device.room(min(CAPACITY, _ROOM), world.identified)
        letter_of = {dye: n for n, dye in enumerate(self.dyes.values())}
        size = float(world.geometry.voxel_nm[0])
        first = world.geometry.crop.start[0]

        def of_dye(dye: str) -> Iterator[Chunk]:
            lit = found.select(codes[found.cell, max(1, work.round) - 1] == letter_of[dye])
            for plane in np.unique(lit.voxel[:, 0]):
                start, stop = np.searchsorted(lit.voxel[:, 0], (plane, plane + 1))
                yield Chunk(None, room.first(0), float(plane - first) * size - radius)
                for dyes in work.device.scatter(lit.select(slice(start, stop)), dye_keys, radius, room):
                    yield Chunk(self.layer_of_dye[dye], dyes, -math.inf)

        def chunks(dye: str) -> Iterator[Chunk]:
            streams = [before.chunks(dye)] if dye in before.dyes.values() else []
            return in_order([*streams, of_dye(dye)] if dye in letter_of else streams)

        dyes = {**before.dyes, **{layer: dye for dye, layer in self.layer_of_dye.items()}}
        reach = max(before.reach_nm, size + 2 * radius)
        work.values["emitters"] = EmitterStream(dyes, reach, chunks, before.varying | frozenset(letter_of))

    def _keys(self, seed: int, region: str) -> AmpliconKeys:
        return AmpliconKeys(*(derive_key(seed, self.stage, region, what) for what in ("number", "place", "dye")))

    def _carries(self, ids: NDArray[np.uint64], seed: int) -> NDArray[np.uint8]:
        return (self.codes(ids, seed)[:, 0] != NO_LETTER).astype(np.uint8)

    def _find(self, part: LabelPart, work: Work, carries: NDArray[np.uint8]) -> list[Amplicons]:
        world = work.world
        geometry = world.geometry
        voxel_nm = (float(geometry.voxel_nm[0]), float(geometry.voxel_nm[1]), float(geometry.voxel_nm[2]))
        wanted = work.boxes["emitters"].grown(exact3((exact(self.radius_nm(world)),) * 3))
        return [
            kernel.find_amplicons(
                part.index,
                work.device.to_host(part.marked()),
                carries,
                region=n,
                bits=world.region_bits[sites.region],
                mean=sites.density_per_um3 * math.prod(voxel_nm) * 1e-9,
                dyes=self.dyes_per_amplicon,
                fixed=self.distribution == "fixed",
                keys=self._keys(world.seed, sites.region),
                array=part.box,
                specimen=geometry.crop,
                inside=geometry.voxels(wanted).intersect(part.core),
                own=geometry.own_voxels(work.pixels),
                voxel_nm=voxel_nm,
            )
            for n, sites in enumerate(self.amplicons)
        ]


def in_order(streams: Sequence[Iterator[Chunk]]) -> Iterator[Chunk]:
    """Merge streams of chunks by the floors that they announce, so that what holds of each holds of all together.

    A stream is a sequence of floors, each with the chunks that follow it. The lowest floor comes next: all later ones lie at it
    or above, and its own chunks within its stream's reach of it.
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
