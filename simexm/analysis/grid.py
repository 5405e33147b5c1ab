"""The grid of an analysis's images and label images, and its blocks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from simexm.errors import SpecError
from simexm.geometry.grid import Spacing, Tiling, Triple, each, exact3, triple
from simexm.names import LONGEST, NAME
from simexm.planning.outputs import Output, Volumes
from simexm.stages.frames import NO_FRAME, Acquisition, Frame, FrameAxis
from simexm.stages.products import Product
from simexm.store.metadata import read_group
from simexm.store.pyramid import Level, Storage, plan_levels, plan_storage

if TYPE_CHECKING:
    from simexm.result.result import Result

LARGEST_SHARD = 256
CHUNK: Triple = (64, 64, 64)
_ZERO: Spacing = exact3((0, 0, 0))


@dataclass(frozen=True)
class Grid:
    """The grid of all images and label images of an analysis; sizes and positions are nm of tissue before expansion."""

    shape: Triple
    """Pixels along z, y, x."""
    pixel_nm: Spacing
    origin_nm: Spacing = _ZERO
    """Lower corner of the first pixel."""
    time: FrameAxis | None = None
    """Time points, if any product varies with time."""
    largest_shard: int = LARGEST_SHARD
    """Largest pixels of a block along each axis."""

    @classmethod
    def of(cls, result: Result, of: str = "", *, largest_shard: int = LARGEST_SHARD) -> Grid:
        """The grid and time points of a result's image, or of the group `of`, such as "labels/cells"."""
        dataset = read_group(result.path / result.group(of))["ome"]["multiscales"][0]["datasets"][0]
        found = {t["type"]: t[t["type"]][-3:] for t in dataset["coordinateTransformations"]}
        pixel = each(exact3(found["scale"]), lambda um: um * 1000)
        centre = each(exact3(found.get("translation", (0, 0, 0))), lambda um: um * 1000)
        z, y, x = (c - p / 2 for c, p in zip(centre, pixel, strict=True))
        shape = triple(result.array(0, of).shape[-3:])
        return cls(shape, pixel, (z, y, x), result.acquisition.time, largest_shard)

    @cached_property
    def levels(self) -> tuple[Level, ...]:
        """The pyramid."""
        return plan_levels(self.shape, self.pixel_nm)

    @cached_property
    def storage(self) -> tuple[Storage, ...]:
        """How each level is stored."""
        shard = triple(min(self.largest_shard, 1 << (n - 1).bit_length()) for n in self.shape)
        return plan_storage(self.levels, shard, CHUNK)

    @cached_property
    def blocks(self) -> Tiling:
        """The blocks: each is one shard of level 0, with all time points and channels."""
        return Volumes((), self.levels, self.storage).blocks

    @property
    def acquisition(self) -> Acquisition:
        """The frames of the images."""
        return Acquisition.of([self.time] if self.time else ())

    @property
    def frames(self) -> list[Frame]:
        """All time points, or the only frame."""
        return self.acquisition.frames()


def volumes_of(analysis: str, grid: Grid | None, products: Sequence[Product]) -> Volumes:
    """The volumes of an analysis: the first image at the root, other images in groups, label images below `labels/`.

    Raises SpecError if the declared products cannot be stored.
    """
    for product in products:
        if fault := _fault(product, grid):
            raise SpecError(
                f"the analysis {analysis!r} declares the {product.kind} {product.name!r}, which {fault}; update its package"
            )
    names = [product.name for product in products]
    if len(set(names)) < len(names):
        raise SpecError(f"the analysis {analysis!r} declares two products of the same name; update its package")
    if grid is None:
        return Volumes((), (), ())
    first = next((p.name for p in products if p.kind == "image"), None)
    paths = {p.name: "" if p.name == first else f"{_folder(p)}{p.name}" for p in products}
    stored = sorted((p for p in products if p.kind != "table"), key=lambda p: (p.name != first, p.kind == "labels"))
    frame = grid.frames[0] if grid.time else NO_FRAME
    outputs = tuple(
        Output(paths[p.name], p, 0, p.varies or frozenset(), frame, len(grid.frames) if p.varies else 0) for p in stored
    )
    return Volumes(outputs, grid.levels, grid.storage)


def _folder(product: Product) -> str:
    """Path of the group that holds an image or label image, with its slash; `about["group"]` names one for an image."""
    group = "labels" if product.kind == "labels" else product.about.get("group", "")
    return f"{group}/" if group else ""


def _fault(product: Product, grid: Grid | None) -> str:
    """Why a product cannot be stored; empty if it can."""
    if len(product.name) > LONGEST or not re.fullmatch(NAME, product.name) or product.name in ("labels", "OME"):
        return "is not a valid name of a group or file"
    if product.kind == "table":
        return "" if product.merge == "rows" and product.columns else "needs columns and merge='rows'"
    kind, itemsize = np.dtype(product.dtype).kind, np.dtype(product.dtype).itemsize
    if grid is None:
        return "needs a grid"
    if not (product.varies or frozenset()) <= ({"time"} if grid.time else set()):
        return "varies with a frame axis that the grid does not have"
    if product.kind == "labels":
        return "" if kind == "u" else f"holds {product.dtype}, but ids are unsigned integers"
    if not (kind == "f" or (kind == "u" and itemsize <= 4)):
        return f"holds {product.dtype}, but images hold unsigned integers of up to 32 bits or floats"
    return "" if product.channels else "has no channel"
