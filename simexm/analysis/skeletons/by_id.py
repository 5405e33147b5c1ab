"""Go through several tables by id together, in pieces that never cut an id."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Columns = Mapping[str, NDArray[Any]]


def by_id(*tables: Iterable[Columns]) -> Iterator[tuple[dict[str, NDArray[Any]], ...]]:
    """Yield the rows of all tables for the same range of ids.

    Each table is in pieces with a column `id` that ascends over all of them. What is in memory is a piece of each, and more
    only where an id has more rows than a piece.
    """
    sources = [iter(table) for table in tables]
    held: list[dict[str, NDArray[Any]]] = [dict(next(source)) for source in sources]
    ended = [False] * len(sources)
    while True:
        open_ends = [h["id"][-1] for h, end in zip(held, ended, strict=True) if not end and h["id"].size]
        for n, source in enumerate(sources):
            # the id at the end of a piece may go on in the next one
            if not ended[n] and (not held[n]["id"].size or held[n]["id"][-1] == min(open_ends)):
                more = next(source, None)
                if more is None:
                    ended[n] = True
                else:
                    held[n] = {name: np.concatenate([held[n][name], more[name]]) for name in held[n]}
        open_ends = [h["id"][-1] for h, end in zip(held, ended, strict=True) if not end and h["id"].size]
        if any(not end and not h["id"].size for h, end in zip(held, ended, strict=True)):
            continue
        if all(ended):
            yield tuple(held)
            return
        cuts = [int(np.searchsorted(h["id"], min(open_ends), "left")) for h in held]
        if any(cuts):
            yield tuple({name: column[:cut] for name, column in h.items()} for h, cut in zip(held, cuts, strict=True))
            held = [{name: column[cut:] for name, column in h.items()} for h, cut in zip(held, cuts, strict=True)]
