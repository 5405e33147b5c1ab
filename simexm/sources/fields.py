"""Named fields beside the ids of a label volume: on its grid, each with a value for every voxel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from simexm.errors import SourceError

Kind = Literal["ids", "mask", "classes", "grey"]


@dataclass(frozen=True, slots=True)
class Field:
    """A field that a source offers.

    Attributes
    ----------
    name
        By which specs and readers name it.
    kind
        "ids": objects other than the cells, such as mitochondria; "mask": a region, true inside; "classes": small whole numbers,
        each of which stands for a kind of tissue; "grey": measured values, such as those of the electron microscope.
    dtype
        Name of the data type that reading it gives; empty before its source is opened.
    names
        What classes are called, by number; empty for other kinds. A named class is a mask, too: a field of its own.
    """

    name: str
    kind: Kind
    dtype: str = ""
    names: Mapping[int, str] = field(default_factory=dict)


def with_classes(fields: Mapping[str, Field]) -> dict[str, Field]:
    """Fields, and behind them a mask for each named class.

    Raises
    ------
    SourceError
        If two have the same name.
    """
    found = dict(fields)
    for each in fields.values():
        for number, name in each.names.items():
            if name in found:
                raise SourceError(
                    f"class {number} of the field {each.name!r} has the name {name!r}, which a field or another class has; a "
                    "layer that labels it could mean either. Give it a name of its own"
                )
            found[name] = Field(name, "mask", "bool")
    return found


def class_of(name: str, fields: Mapping[str, Field]) -> tuple[str, int] | None:
    """The field and the number of the class that a mask stands for; None where it is stored as a mask."""
    for each in fields.values():
        for number, called in each.names.items():
            if called == name:
                return each.name, number
    return None


def masks_of(fields: Mapping[str, Field]) -> tuple[str, ...]:
    """Names of the masks among fields: the regions that layers can label."""
    return tuple(name for name, each in fields.items() if each.kind == "mask")


def check_kind(what: str, kind: Kind, dtype: np.dtype[np.generic]) -> None:
    """Refuse values that cannot be of a kind.

    Raises
    ------
    SourceError
        With what to give instead.
    """
    allowed = {"ids": "uib", "classes": "uib", "grey": "uif", "mask": "uifb"}[kind]
    if dtype.kind not in allowed:
        needed = "numbers" if kind == "grey" else "whole numbers"
        raise SourceError(f"{what} holds {dtype}, and {kind} are {needed}; name another array, or another kind")
