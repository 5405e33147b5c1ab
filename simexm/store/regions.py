"""Names and kinds of the fields beside ingested labels, from the attributes of their group."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simexm.errors import SourceError
from simexm.names import is_region

_KINDS = ("ids", "classes", "grey")


def fields_of(mark: Mapping[str, Any], where: str) -> dict[str, str]:
    """Read names and kinds of fields from the attribute `simexm`; each is a group below, and those of kind "mask" are regions.

    Raises SourceError if a name is invalid, and so could lead out of the volume, or a kind is unknown.
    """
    regions, fields = mark.get("regions", ()), mark.get("fields", {})
    if not isinstance(regions, list | tuple) or not all(map(_is_name, regions)):
        raise _forged(where, "regions", regions)
    if not isinstance(fields, dict) or not all(_is_name(name) and kind in _KINDS for name, kind in fields.items()):
        raise _forged(where, "fields", fields)
    return {**dict.fromkeys(regions, "mask"), **fields}


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and is_region(name)


def _forged(where: str, what: str, value: Any) -> SourceError:
    return SourceError(
        f"{where}: the attribute simexm.{what} is {ascii(value)[:200]}, but names of {what} consist of letters, digits, '_' "
        "and '-': simexm ingest did not write it, and it could lead out of the volume. Ingest the volume again"
    )
