"""Named fields of a label volume: on one grid, each with a value for every voxel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["ids", "mask", "classes", "grey"]


@dataclass(frozen=True, slots=True)
class Field:
    """A field that a source offers.

    Attributes
    ----------
    name
        By which specs and readers name it.
    kind
        "ids": cells; "mask": a region, true inside; "classes": small whole numbers, each of which stands for a kind of tissue;
        "grey": measured values, such as those of the electron microscope.
    dtype
        Name of the data type that reading it gives.
    names
        What each class is called, by its number; empty for other kinds.
    """

    name: str
    kind: Kind
    dtype: str
    names: Mapping[int, str] = field(default_factory=dict)
