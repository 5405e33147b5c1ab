"""Products: the images, label images and tables that a stage declares, by which they are planned, stored and opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Product:
    """Something that a run stores.

    An image is a quantity on the pixel grid. Of those that the stages declare, the last one is the main image; the others are
    stored where the spec's `keep` names them. Label images and tables are always stored, unless they are `optional`.

    Attributes
    ----------
    name
        Of images, the quantity; of label images, the name below `labels/`; of tables, the file's name.
    kind
        What it is.
    axes
        Of images and label images, without time, which is added where the product varies with it; "" for tables.
    dtype
        Name of the data type of the elements; "" for tables.
    unit
        What an element says.
    channels
        Names along the channel axis.
    largest
        Largest value that can be, where it is known.
    varies
        Frame axes with which it varies; None where it follows from what the stage reads.
    columns
        Of tables: the data type of each column, by name.
    key
        Of tables whose parts are added up: the column of integers by which they are; not one of `columns`.
    merge
        Of tables. `sum`: rows of equal key are added up, and the table is one file. `rows`: each block's rows are kept, and the
        table is a folder of them. `derived`: made, at the end, of the sums of the table `source`.
    source
        Name of the table that a derived one is made of.
    optional
        Whether it is stored only where the spec's `keep` names it.
    about
        Further words for the stage itself, such as the region to which a label image is cut.
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
