"""Where tissue lies in each frame, and a path that is read from a file."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from simexm.errors import SpecError
from simexm.settings import Frozen

Array = NDArray[np.float64]
COLUMNS = ("z_um", "y_um", "x_um", "rotation_rad")


@dataclass(frozen=True)
class MotionPath:
    """Displacement of tissue in each frame, (t,) each: um along z, y, x, and the turn about the optical axis.

    Tissue at q, from the optical axis, shows at R(q) + (y, x); a positive turn moves +y towards -x, a positive z moves it
    away from the objective.
    """

    z_um: Array
    y_um: Array
    x_um: Array
    rotation_rad: Array

    def reach_um(self, height_um: float, width_um: float) -> tuple[float, float]:
        """Farthest that a place of a field of this size is displaced along y and x."""
        cos, sin, y, x = self._back()
        half_y, half_x = height_um / 2, width_um / 2
        reach_y = np.abs(1 - cos) * half_y + np.abs(sin) * half_x + np.abs(y)
        reach_x = np.abs(1 - cos) * half_x + np.abs(sin) * half_y + np.abs(x)
        return float(reach_y.max(initial=0.0)), float(reach_x.max(initial=0.0))

    def margin_um(self, height_um: float, width_um: float) -> tuple[float, float]:
        """Farthest that a field of this size looks beyond its place at rest, along y and x."""
        cos, sin, y, x = self._back()
        half_y, half_x = height_um / 2, width_um / 2
        margin_y = np.abs(cos) * half_y + np.abs(sin) * half_x + np.abs(y) - half_y
        margin_x = np.abs(cos) * half_x + np.abs(sin) * half_y + np.abs(x) - half_x
        return float(margin_y.max(initial=0.0)), float(margin_x.max(initial=0.0))

    def _back(self) -> tuple[Array, Array, Array, Array]:
        """Cosine and sine of the turn, and the shift along the axes of the tissue."""
        cos, sin = np.cos(self.rotation_rad), np.sin(self.rotation_rad)
        return cos, sin, cos * self.y_um - sin * self.x_um, sin * self.y_um + cos * self.x_um


class PathFile(Frozen):
    """A path in a CSV or Parquet file: a row for each frame, with the columns y_um, x_um and, if wanted, z_um, rotation_rad.

    Attributes
    ----------
    path
        The file. A relative path begins at the working directory.
    digest
        Checksum of the path; filled in by the plan.
    """

    path: Path
    digest: str | None = Field(default=None, pattern=r"^[0-9a-f]{32}$")

    def resolved(self) -> Self:
        """Return a copy with an absolute path and the checksum; raises SpecError if the file holds no path."""
        values = self.read()
        found = hashlib.blake2b(values.astype("<f8").tobytes(), digest_size=16).hexdigest()
        if self.digest not in (None, found):
            raise SpecError(
                f"motion.path: {self.path} has the digest {found[:12]}, not {str(self.digest)[:12]}, so the tissue would move "
                "otherwise; restore the file, or leave the digest out"
            )
        return self.model_copy(update={"path": self.path.expanduser().absolute(), "digest": found})

    def read(self) -> Array:
        """Return the path, (column, t), in the order of `COLUMNS`."""
        import pyarrow.csv as csv  # type: ignore[import-untyped] # loads large libraries
        import pyarrow.parquet as pq  # type: ignore[import-untyped]

        file = self.path.expanduser()
        try:
            table = csv.read_csv(file) if file.suffix.lower() == ".csv" else pq.read_table(file)
            missing = [name for name in ("y_um", "x_um") if name not in table.column_names]
            if missing:
                raise SpecError(
                    f"motion.path: {self.path} has no column {' and '.join(missing)}, so the tissue's place is unknown; write a "
                    "row for each frame, with y_um and x_um, and z_um and rotation_rad if it moves so"
                )
            zeros = np.zeros(table.num_rows)
            found = np.stack(
                [table[name].to_numpy().astype(np.float64) if name in table.column_names else zeros for name in COLUMNS]
            )
        except SpecError:
            raise
        except (OSError, ValueError, TypeError) as error:
            raise SpecError(
                f"motion.path: {self.path} cannot be read ({error}), so the tissue would not move; name a CSV or Parquet file "
                "with the columns y_um and x_um"
            ) from error
        if not np.isfinite(found).all():
            raise SpecError(
                f"motion.path: {self.path} holds places that are no numbers, so the tissue would be nowhere; fill every row"
            )
        return found
