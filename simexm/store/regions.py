"""Masks of regions that stand beside labels: their names, as the attributes of the group give them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simexm.errors import SourceError
from simexm.names import is_region


def regions_of(mark: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """Names of the masks that ingest left, by the mark that it left; each is a group beside the labels.

    Raises
    ------
    SourceError
        If one of them is no name of a region: it could lead out of the volume.
    """
    told = mark.get("regions", ())
    if not isinstance(told, list | tuple) or not all(isinstance(name, str) and is_region(name) for name in told):
        raise SourceError(
            f"{where}: the attribute simexm.regions is {ascii(told)[:200]}, and regions are called with letters, digits, '_' and "
            "'-': it was not written by simexm ingest, and could lead out of the volume. Ingest the volume again"
        )
    return tuple(told)
