"""Fields that stand beside labels: their names and kinds, as the attributes of the group give them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simexm.errors import SourceError
from simexm.names import is_region

_KINDS = ("ids", "classes", "grey")


def fields_of(mark: Mapping[str, Any], where: str) -> dict[str, str]:
    """Names and kinds of the fields that ingest left, by the mark that it left; each is a group beside the labels.

    Those of kind "mask" are regions.

    Raises
    ------
    SourceError
        If one of them is no name of a field, which could lead out of the volume, or its kind is none.
    """
    regions, fields = mark.get("regions", ()), mark.get("fields", {})
    if not isinstance(regions, list | tuple) or not all(map(_is_name, regions)):
        raise _forged(where, "regions", regions)
    if not isinstance(fields, dict) or not all(_is_name(name) and kind in _KINDS for name, kind in fields.items()):
        raise _forged(where, "fields", fields)
    return {**dict.fromkeys(regions, "mask"), **fields}


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and is_region(name)


def _forged(where: str, what: str, told: Any) -> SourceError:
    return SourceError(
        f"{where}: the attribute simexm.{what} is {ascii(told)[:200]}, and {what} are called with letters, digits, '_' and "
        "'-': it was not written by simexm ingest, and could lead out of the volume. Ingest the volume again"
    )
