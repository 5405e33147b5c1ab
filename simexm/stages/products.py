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

    Attributes
    ----------
    name
        Quantity of an image, name of a label image below `labels/`, or file name of a table.
    axes
        Axes of an image or label image without time, which is added if the product varies with it; "" for tables.
    dtype
        Data type of the elements; "" for tables.
    unit
        Meaning of an element.
    channels
        Names along the channel axis.
    largest
        Largest possible value, if known.
    varies
        Frame axes with which the product varies; None: those of the stage's inputs.
    columns
        Data types of a table's columns, by name.
    key
        Integer column of a summed table whose equal values are added up; not one of `columns`.
    merge
        How the blocks' rows become a table. `sum`: add up rows of equal key, in one file. `rows`: store each block's
        rows, in a folder of files. `derived`: compute from the summed rows of the table `source` at the end.
    optional
        Whether the product is stored only if the spec's `keep` names it.
    about
        Notes for the stage itself, such as the region to which a label image is cut.
    """

    name: str
    kind: Literal["image", "labels", "table"]
    axes: str = ""
    dtype: str = ""
    unit: str = ""
    channels: tuple[str, ...] = ()
    largest: float | None = None
    varies: frozenset[str] | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    key: str = ""
    merge: Literal["sum", "rows", "derived"] = "rows"
    source: str = ""
    optional: bool = False
    about: Mapping[str, str] = field(default_factory=dict)


def image(name: str, channels: tuple[str, ...], dtype: str, unit: str, largest: float | None = None) -> Product:
    """Declare an image, (c, z, y, x)."""
    return Product(name, "image", "czyx", dtype, unit, channels, largest)


def labels(name: str, dtype: str, **about: str) -> Product:
    """Declare a label image, (z, y, x)."""
    return Product(name, "labels", "zyx", dtype, "cell id of each pixel", about=about)
