"""Codebooks: the barcode of each cell, from a file or drawn at random."""

from __future__ import annotations

import csv
import hashlib
import stat
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simexm.errors import SpecError
from simexm.random import derive_key, id_uniform

NO_LETTER = 255
"""Code of a cell that carries no barcode."""


@dataclass(frozen=True)
class Codebook:
    """Barcodes read from a file."""

    ids: NDArray[np.uint64]  # ascending
    codes: NDArray[np.uint8]  # index of the letter in each round, (n, rounds)
    digest: str  # of ids and codes, independent of the file's path and layout

    def of(self, ids: NDArray[np.uint64]) -> NDArray[np.uint8]:
        """Codes of these cells, (n, rounds); `NO_LETTER` for those that the codebook lacks."""
        found = np.full((ids.size, self.codes.shape[1]), NO_LETTER, np.uint8)
        place = np.searchsorted(self.ids, ids)
        known = place < self.ids.size
        known[known] = self.ids[place[known]] == ids[known]
        found[known] = self.codes[place[known]]
        return found


def read_codebook(path: str, rounds: int, letters: str) -> Codebook:
    """Read a CSV file with the columns `id` and `barcode`; SpecError for bad files, ids, letters and lengths."""
    try:
        about = Path(path).stat()
        if not stat.S_ISREG(about.st_mode):
            raise SpecError(f"the codebook {path} is not a file; name a CSV file with the columns id,barcode")
        return _read(path, about.st_mtime_ns, about.st_size, rounds, letters)
    except OSError as error:
        raise SpecError(
            f"the codebook {path} cannot be read ({error.strerror}), so no cell would have a barcode; name a CSV file with the "
            "columns id,barcode"
        ) from None


@lru_cache(maxsize=4)
def _read(path: str, changed_ns: int, size: int, rounds: int, letters: str) -> Codebook:
    """Read and cache the codebook; `changed_ns` and `size` are part of the cache key."""
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            return _parse(csv.DictReader(file), path, rounds, letters)
    except (UnicodeDecodeError, csv.Error) as error:
        raise SpecError(
            f"the codebook {path} is not CSV text ({error}); write it as UTF-8 with the columns id,barcode"
        ) from None


def _parse(rows: csv.DictReader[str], path: str, rounds: int, letters: str) -> Codebook:
    if not {"id", "barcode"} <= set(rows.fieldnames or ()):
        raise SpecError(
            f"the codebook {path} has the columns {', '.join(rows.fieldnames or ()) or '(none)'}, but needs id and barcode; "
            "begin the file with the line id,barcode"
        )
    barcodes: dict[int, bytes] = {}
    code = {letter: n for n, letter in enumerate(letters)}
    for row in rows:
        where = f"line {rows.line_num} of the codebook {path}"
        try:
            cell = int(row["id"])
        except (TypeError, ValueError):
            raise SpecError(f"{where}: the id {row['id']!r} is not an integer; write a cell's id") from None
        barcode = (row["barcode"] or "").strip()
        if not 0 < cell < 2**64:
            raise SpecError(f"{where}: the id {cell} is out of range; ids are 1 to 2^64 - 1")
        if cell in barcodes:
            raise SpecError(f"{where}: cell {cell} already has a barcode; keep one of the two lines")
        if len(barcode) != rounds:
            raise SpecError(
                f"{where}: the barcode {barcode!r} of cell {cell} has {len(barcode)} letters, but there are {rounds} rounds; "
                "write one letter per round, or change `rounds`"
            )
        wrong = next((letter for letter in barcode if letter not in code), None)
        if wrong is not None:
            raise SpecError(
                f"{where}: the letter {wrong!r} in the barcode {barcode!r} has no dye; use the letters of `dyes`: "
                f"{', '.join(letters)}"
            )
        barcodes[cell] = bytes(code[letter] for letter in barcode)
    if not barcodes:
        raise SpecError(f"the codebook {path} lists no cell, so no cell would have a barcode; add lines id,barcode")
    ids = np.array(sorted(barcodes), np.uint64)
    codes = np.frombuffer(b"".join(barcodes[int(i)] for i in ids), np.uint8).reshape(ids.size, rounds)
    digest = hashlib.blake2b(ids.tobytes() + codes.tobytes(), digest_size=16).hexdigest()
    return Codebook(ids, codes, digest)


def random_codes(ids: NDArray[np.uint64], rounds: int, letters: int, seed: int) -> NDArray[np.uint8]:
    """Draw a letter for each cell and round, uniform, by seed, id and round alone; uint8, (n, rounds)."""
    codes = [id_uniform(ids, derive_key(seed, "barcodes", "codebook", n)) * letters for n in range(1, rounds + 1)]
    return np.stack(codes, axis=1).astype(np.uint8)
