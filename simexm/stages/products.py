"""Products: declarations of the images, label images and tables of a run, used to plan, store and open them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Product:
    """Something that a run stores.

    An image is a quantity on the pixel grid. The last image that the stages declare is the main one; the others are
    stored if the spec's `keep` names them. Label images and tables are always stored, unless they are `optional`.
    """

    name: str
    """Quantity of an image, name of a label image below `labels/`, or file name of a table."""
    kind: Literal["image", "labels", "table"]
    axes: str = ""
    """Axes of an image or label image without time, which is added if the product varies with it; "" for tables."""
    dtype: str = ""
    """Data type of the elements; "" for tables."""
    unit: str = ""
    """Meaning of an element."""
    channels: tuple[str, ...] = ()
    """Names along the channel axis."""
    largest: float | None = None
    """Largest possible value, if known."""
    varies: frozenset[str] | None = None
    """Frame axes with which the product varies; None: those of the stage's inputs."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Data types of a table's columns, by name."""
    key: str = ""
    """Integer column of a summed table whose equal values are added up; not one of `columns`."""
    merge: Literal["sum", "rows", "derived"] = "rows"
    """How the blocks' rows become a table. `sum`: add up rows of equal key, in one file. `rows`: store each block's
    rows, in a folder of files. `derived`: compute from the summed rows of the table `source` at the end."""
    source: str = ""
    each_frame: bool = False
    """Whether every frame adds rows to a table of `rows`, not the first alone."""
    optional: bool = False
    """Whether the product is stored only if the spec's `keep` names it."""
    about: Mapping[str, str] = field(default_factory=dict)
    """Notes for the stage itself, such as the region to which a label image is cut."""


def image(name: str, channels: tuple[str, ...], dtype: str, unit: str, largest: float | None = None) -> Product:
    """Declare an image, (c, z, y, x)."""
    return Product(name, "image", "czyx", dtype, unit, channels, largest)


def labels(name: str, dtype: str, **about: str) -> Product:
    """Declare a label image, (z, y, x)."""
    return Product(name, "labels", "zyx", dtype, "cell id of each pixel", about=about)
