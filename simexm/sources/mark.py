"""Read what ingest stored in the attributes of a group: digest and list of its shards, and its fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import zarr

from simexm.errors import SourceError
from simexm.sources.base import INGESTED
from simexm.sources.fields import Kind
from simexm.sources.identity import digest_of
from simexm.sources.zarr.finding import inside
from simexm.store.regions import fields_of
from simexm.store.shard_list import ShardList


def mark_of(group: zarr.Group | None) -> Mapping[str, Any]:
    """Return what ingest stored; empty if it did not write the group."""
    mark = None if group is None else group.attrs.get("simexm")
    return mark if isinstance(mark, Mapping) and mark.get("written_by") == INGESTED else {}


def digest_in(group: zarr.Group | None) -> str | None:
    """Return the digest of all shards and their lists; None if ingest stored none."""
    mark = mark_of(group)
    found = mark.get("shards_digest", mark.get("digest"))
    return None if found is None else str(found)


def stored_fields(group: zarr.Group | None) -> dict[str, tuple[Kind, str]]:
    """Return kinds and paths (from the root of the Zarr) of the fields that ingest stored beside the labels, by name."""
    if group is None:
        return {}
    found = fields_of(mark_of(group), str(group.store_path))
    return {name: (cast("Kind", kind), f"{inside(group)}/{name}".lstrip("/")) for name, kind in found.items()}


def shards_in(group: zarr.Group | None, array: zarr.Array[Any]) -> ShardList | None:
    """Return which shards of an array exist; None if ingest did not write the group, or an early version did.

    Raises SourceError if the list is damaged.
    """
    mark = mark_of(group)
    if group is None or not mark.keys() & {"shards", "shards_digest"}:
        return None
    try:
        lists = dict(mark["shards"])
        if digest_of_lists(mark["digest"], lists) != mark["shards_digest"]:
            raise ValueError("its digest differs")
        counts = tuple(-(-n // s) for n, s in zip(array.shape, array.shards or array.chunks, strict=True))
        return ShardList.from_text(counts, lists[array.path.removeprefix(f"{group.path}/").lstrip("/")])
    except (KeyError, TypeError, ValueError) as error:
        raise SourceError(
            f"{array.store_path}: the list of its shards in the attributes of the group (simexm.shards) is damaged "
            f"({error}), so missing shards cannot be distinguished from empty ones. Copy the Zarr again, or ingest it again."
        ) from error


def digest_of_lists(digest: str, lists: Mapping[str, str]) -> str:
    """Return the digest of all shards and their lists."""
    return digest_of(digest, *(f"{name} {text}" for name, text in sorted(lists.items())))
