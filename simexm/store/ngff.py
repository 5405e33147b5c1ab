"""Where OME-Zarr metadata stand among the attributes of a group."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def ome(attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    """The OME metadata among a group's attributes, which 0.5 keeps under "ome" and older versions at the top."""
    inner = attributes.get("ome")
    return inner if isinstance(inner, Mapping) else attributes


def datasets(attributes: Mapping[str, Any]) -> tuple[str, ...]:
    """Paths of a multiscale group's levels, full resolution first; none where the group is not a multiscale image."""
    try:
        return tuple(str(d["path"]) for d in ome(attributes)["multiscales"][0]["datasets"])
    except (KeyError, IndexError, TypeError):
        return ()
