"""Stored outputs of a run: images and label images on one grid, and tables."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from simexm.errors import SpecError
from simexm.geometry.grid import Box, Tiling
from simexm.stages.contract import RunContext, Stage
from simexm.stages.frames import NO_FRAME, Frame
from simexm.stages.products import Product
from simexm.store.pyramid import Level, Storage


@dataclass(frozen=True)
class Output:
    """One multiscale array that a run writes."""

    path: str  # of its group below the image's; "" is the image itself
    product: Product
    stage: int  # number of the stage that declares it
    varies: frozenset[str] = frozenset()  # frame axes
    frame: Frame = NO_FRAME  # the first of its group
    times: int = 0  # length of its time axis; 0 without one

    @property
    def channels(self) -> tuple[str, ...]:
        """Names along the channel axis; empty for label images, which have none."""
        return self.product.channels

    @property
    def dtype(self) -> str:
        return self.product.dtype

    @property
    def group(self) -> str:
        """Group below the result's root; "" is the root itself."""
        return f"{self.frame.group}/{self.path}".strip("/")

    @property
    def is_labels(self) -> bool:
        """Whether it is downsampled by the mode, as labels are, not by the mean."""
        return self.product.kind == "labels"

    @property
    def axes(self) -> str:
        """Axes of its arrays."""
        return "t" * bool(self.times) + self.product.axes

    @property
    def leads(self) -> list[tuple[int, ...]]:
        """Indices along time and channels, in order."""
        lengths = (self.times, len(self.channels))
        return list(itertools.product(*(range(n) for n in lengths if n)))

    def to_mapping(self) -> dict[str, Any]:
        """Convert to plain data, for `plan.json`."""
        path = self.group or "."
        return {"path": path, "channels": list(self.channels), "dtype": self.dtype, "times": self.times}

    def made_in(self, frame: Frame) -> bool:
        """Return whether a frame writes to it: one of its group, and the first of those among which it does not vary."""
        return frame.group == self.frame.group and frame == frame.along(self.varies)

    def at(self, frame: Frame) -> tuple[int, ...]:
        """Return the index of a frame in its arrays: (time,), or () without a time axis."""
        return (frame.time - 1,) if self.times else ()


@dataclass(frozen=True)
class Volumes:
    """The images and label images that a run or an analysis writes, all on one grid."""

    outputs: tuple[Output, ...]  # the main image first, if there is one
    levels: tuple[Level, ...]  # the pyramid of each output
    storage: tuple[Storage, ...]  # shards and chunks of each level
    span: int = 1  # frames of a shard along time

    @property
    def blocks(self) -> Tiling:
        """Shards of level 0; a block writes one of them for each output, span of time and channel."""
        return self.shards(0)

    def shards(self, level: int) -> Tiling:
        """Return the shards of a level."""
        return Tiling(Box.of_shape(self.levels[level].shape), self.storage[level].shard)

    def lead_shards(self, output: Output) -> list[tuple[int, ...]]:
        """List the positions of an output's shards along time and channels, in the order of writing."""
        lengths = (-(-output.times // self.span), len(output.channels))
        return list(itertools.product(*(range(n) for n in lengths if n)))

    @property
    def owned(self) -> int:
        """Number of levels, from the full resolution on, that blocks write."""
        return sum(s.owned for s in self.storage)

    @property
    def stored_bytes(self) -> int:
        """Bytes of all arrays before compression."""
        pixels = sum(math.prod(level.shape) for level in self.levels)
        return sum(pixels * len(o.leads) * np.dtype(o.dtype).itemsize for o in self.outputs)

    @property
    def labels_groups(self) -> dict[str, list[str]]:
        """Names of the label images, by group."""
        found: dict[str, list[str]] = {}
        for output in self.outputs:
            if output.is_labels:
                group, _, name = output.group.rpartition("/")
                found.setdefault(group, []).append(name)
        return found

    def pyramid(self) -> dict[str, Any]:
        """Convert the shapes of the levels and their shards to plain data, for `plan.json`."""
        return {"levels": [list(s.shape) for s in self.levels], "shards": [list(s.shard) for s in self.storage]}


@dataclass(frozen=True)
class Table:
    """One table that a run stores."""

    product: Product  # the first declaration, with the columns of all
    stages: tuple[int, ...]  # numbers of the stages that declare it; the first makes the stored table


def tables_of(stages: Sequence[Stage], context: RunContext, keep: Sequence[str]) -> tuple[Table, ...]:
    """Merge the stages' declarations of tables; optional ones only if they are in `keep`."""
    found: dict[str, Table] = {}
    for number, stage in enumerate(stages):
        for product in stage.products(context):
            if product.kind != "table" or (product.optional and product.name not in keep):
                continue
            known = found.get(product.name)
            if known is None:
                found[product.name] = Table(product, (number,))
            elif (known.product.key, known.product.merge) != (product.key, "sum"):
                raise SpecError(
                    f"the stages {stages[known.stages[0]].tag!r} and {stage.tag!r} both declare the table {product.name!r}, "
                    "whose rows cannot be added up together; rename one, or declare both with the same key and `sum`"
                )
            else:
                merged = replace(known.product, columns={**known.product.columns, **product.columns})
                found[product.name] = Table(merged, (*known.stages, number))
    return tuple(found.values())
