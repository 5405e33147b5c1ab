"""Named fields on the grid of a label volume: masks, classes, grey values, ids of other objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from simexm.errors import SourceError

Kind = Literal["ids", "mask", "classes", "grey"]


@dataclass(frozen=True, slots=True)
class Field:
    """A field that a source offers."""

    name: str
    """Name in specs and readers."""
    kind: Kind
    """"ids": objects other than the cells, such as mitochondria; "mask": a region, true inside; "classes": small
    integers, each a kind of tissue; "grey": measured values, such as those of the electron microscope."""
    dtype: str = ""
    """Dtype of what is read; empty before its source is opened."""
    names: Mapping[int, str] = field(default_factory=dict)
    """Name of each class by its number. A named class is also a mask: a field of its own."""


def with_classes(fields: Mapping[str, Field]) -> dict[str, Field]:
    """Return the fields, followed by a mask for each named class; raises SourceError if two have the same name."""
    found = dict(fields)
    for each in fields.values():
        for number, name in each.names.items():
            if name in found:
                raise SourceError(
                    f"class {number} of the field {each.name!r} has the name {name!r} of a field or another class, so a layer "
                    "that labels it could mean either. Give it another name"
                )
            found[name] = Field(name, "mask", "bool")
    return found


def class_of(name: str, fields: Mapping[str, Field]) -> tuple[str, int] | None:
    """Return the field and the number of the class that a mask stands for; None for a stored mask."""
    for each in fields.values():
        for number, called in each.names.items():
            if called == name:
                return each.name, number
    return None


def masks_of(fields: Mapping[str, Field]) -> tuple[str, ...]:
    """Return the names of the masks: the regions that layers can label."""
    return tuple(name for name, each in fields.items() if each.kind == "mask")


def not_grey(name: str, fields: Mapping[str, Field]) -> str:
    """Return why a field cannot be used as grey values, and what to do, as the end of a message."""
    greys = ", ".join(repr(n) for n, each in fields.items() if each.kind == "grey")
    has = f"its grey fields are {greys}" if greys else "it has no grey field"
    if name in fields:
        kind = fields[name].kind
        return f"which is of kind {kind}: {has}. Name one of them" + (", or label it as a region" * (kind == "mask"))
    return (
        f"which the source does not have: {has}. Store it beside the labels (simexm ingest ... --field {name}=grey:PATH), or "
        "name it under source.fields with kind: grey"
    )


def check_kind(what: str, kind: Kind, dtype: np.dtype[np.generic]) -> None:
    """Raise SourceError if a dtype cannot hold a kind of field."""
    allowed = {"ids": "uib", "classes": "uib", "grey": "uif", "mask": "uifb"}[kind]
    if dtype.kind not in allowed:
        needed = "numbers" if kind == "grey" else "integers"
        raise SourceError(f"{what} holds {dtype}, and {kind} are {needed}; name another array, or another kind")
