"""What volumes that are computed, not read, have in common: no files, one time point, no coarser levels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Self

from simexm.geometry.grid import Box, Spacing
from simexm.sources.state import FilesState
from simexm.store.shard_list import ShardList


class MadeVolume:
    """A volume whose ids are a function of a seed and of position; see `LabelSource`."""

    __slots__ = ()

    @property
    def times(self) -> int:
        """One: the tissue does not move."""
        return 1

    @property
    def seconds_per_time(self) -> None:
        """None, as there is one time point."""

    @property
    def origin_nm(self) -> Spacing:
        """The first voxel begins at 0."""
        return Fraction(0), Fraction(0), Fraction(0)

    @property
    def coarser(self) -> tuple[()]:
        """None."""
        return ()

    def state(self, box: Box, masks: Sequence[str]) -> dict[str, FilesState]:
        """No files."""
        return {}

    def expecting(self, listed: Mapping[str, ShardList]) -> Self:
        """Return itself."""
        return self
