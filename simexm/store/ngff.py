"""Find OME-Zarr metadata in the attributes of a group."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def ome(attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    """OME metadata of a group: under "ome" in version 0.5, at the top in older ones."""
    inner = attributes.get("ome")
    return inner if isinstance(inner, Mapping) else attributes


def datasets(attributes: Mapping[str, Any]) -> tuple[str, ...]:
    """Paths of a multiscale image's levels, full resolution first; none if the group is no multiscale image."""
    try:
        return tuple(str(d["path"]) for d in ome(attributes)["multiscales"][0]["datasets"])
    except (KeyError, IndexError, TypeError):
        return ()
