"""Write what ingest leaves in the attributes of a group: see `simexm.sources.mark`, which reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simexm.ingestion.bands import Written
from simexm.sources.base import INGESTED
from simexm.sources.mark import digest_of_lists
from simexm.store.files import Files
from simexm.store.omezarr import write_group


def leave_mark(files: Files, path: str, written: Written, more: Mapping[str, Any]) -> None:
    """Write a group's metadata, which make it whole."""
    digest = f"{written.digest:032x}"
    lists = {array.rpartition("/")[2]: found.to_text() for array, found in written.lists.items()}
    mark = {
        "written_by": INGESTED,
        "digest": digest,
        "shards": lists,
        "shards_digest": digest_of_lists(digest, lists),
        **more,
    }
    write_group(files, path, {**written.attributes, "simexm": mark})
