"""Measured maps of a detector's pixels, from TIFF or NPY files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import numpy as np
import tifffile
from numpy.typing import NDArray
from pydantic import model_validator

from simexm.errors import SpecError
from simexm.settings import Frozen


class MapFile(Frozen):
    """A file with one number for each pixel of the frame; in a spec its path alone will do.

    Attributes
    ----------
    path
        TIFF or NPY file.
    digest
        Digest of its values; filled in when the run is planned, and checked afterwards.
    """

    path: str
    digest: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _short(cls, data: Any) -> Any:
        return {"path": data} if isinstance(data, str) else dict(data) if isinstance(data, Mapping) else data

    def resolved(self, what: str, frame_pixels: tuple[int, int], *, positive: bool) -> Self:
        """Copy with absolute path and digest; SpecError if the file does not hold such a map, or another than before."""
        values = self.read(frame_pixels, what)
        lowest = float(values.min())
        if lowest < 0 or (positive and lowest == 0):
            raise SpecError(
                f"{what}: the smallest value in {self.path} is {lowest:g}, which no pixel can have; "
                f"{'give counts per electron, all above 0' if positive else 'remove what was subtracted'}"
            )
        path = str(Path(self.path).expanduser().resolve())
        return self.model_copy(update={"path": path, "digest": digest(values)})

    def read(self, frame_pixels: tuple[int, int], what: str = "map") -> NDArray[np.float32]:
        """Read the map, float32, (rows, columns).

        Raises
        ------
        SpecError
            If the file is missing, no TIFF or NPY, of another shape than the frame, not finite, or has another digest.
        """
        path = Path(self.path).expanduser()
        changed_ns = path.stat().st_mtime_ns if path.exists() else 0
        values = _read(str(path), what, frame_pixels, changed_ns)
        if self.digest not in (None, found := digest(values)):
            raise SpecError(
                f"{what}: {self.path} has the digest {found[:12]}, not {str(self.digest)[:12]}, so the counts would differ; "
                "restore the file, or leave the digest out"
            )
        return values


def digest(values: NDArray[np.float32]) -> str:
    """Digest of a map's values."""
    return hashlib.blake2b(values.astype("<f4").tobytes(), digest_size=16).hexdigest()


@lru_cache(maxsize=3)
def _read(path: str, what: str, frame_pixels: tuple[int, int], changed_ns: int) -> NDArray[np.float32]:
    """Read and check a file; `changed_ns` makes the cache notice a changed one."""
    wanted = f"{frame_pixels[0]} rows x {frame_pixels[1]} columns"
    try:
        if path.lower().endswith(".npy"):
            found: Any = np.load(path, mmap_mode="r", allow_pickle=False)
        else:
            with tifffile.TiffFile(path) as file:
                found = file.pages[0].asarray() if len(file.pages) == 1 else np.empty((len(file.pages), 0, 0))
    except FileNotFoundError:
        raise SpecError(f"{what}: there is no file {path}; give the path of a TIFF or NPY file of {wanted}") from None
    except (OSError, ValueError, tifffile.TiffFileError) as error:
        raise SpecError(f"{what}: {path} cannot be read as TIFF or NPY ({error}); give a map of {wanted}") from None
    if found.shape != frame_pixels:
        shape = " x ".join(str(n) for n in found.shape)
        raise SpecError(
            f"{what}: {path} has the shape {shape}, but the frame has {wanted}, so pixels would get another's figures; "
            "give the map of this sensor, or set frame_pixels"
        )
    values = np.asarray(found, np.float32)
    if not np.isfinite(values).all():
        raise SpecError(f"{what}: {path} holds values that are not finite; replace those of dead pixels")
    return values
