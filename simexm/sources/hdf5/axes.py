"""Names of the axes of an HDF5 data set, as ilastik, netCDF-4, HDF5's dimension scales and others write them.

http://www.nacad.ufrj.br/online/hdf5/H5DS.html, https://cfconventions.org, http://ukoethe.github.io/vigra/doc-release/vigra
"""

from __future__ import annotations

import json
import posixpath
import re
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from simexm.errors import SimexmWarning, SourceError
from simexm.geometry.grid import Triple, three
from simexm.sources.axes import spatial_order
from simexm.sources.hdf5.file import BROKEN
from simexm.units import times

_NAMES = ("axes", "axis_names", "axis_order", "dimension_names", "_ARRAY_DIMENSIONS")
_NUMBERED = re.compile(r"(phony_)?(dim|axis|d)?_?\d*")
"""Placeholders of xarray and others for names of axes."""


def attribute(node: Any, name: str) -> Any:
    """Return an attribute; None if there is none. Raises SourceError if it cannot be read."""
    try:
        if name not in node.attrs:
            return None
        return node.attrs[name]
    except BROKEN as error:
        raise SourceError(
            f"{node.file.filename}{node.name}: the attribute {name!r} cannot be read: {error}. Copy the file again."
        ) from error


def texts(value: Any) -> list[str]:
    """Return the texts of an attribute, of one or an array, fixed length or not, bytes or not; empty if it is no text."""
    flat = np.ravel(np.asarray(value, dtype=object) if isinstance(value, list | tuple) else value).tolist()
    decoded = [v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in flat]
    return [v.strip().strip("\0") for v in decoded] if all(isinstance(v, str) for v in decoded) else []


def axis_tags(data: Any) -> list[dict[str, Any]]:
    """Return the axistags of ilastik (vigra), one per axis; empty if there are none."""
    tags = texts(attribute(data, "axistags"))
    try:
        axes = json.loads(tags[0])["axes"] if tags else []
    except (ValueError, KeyError, TypeError, RecursionError):
        axes = []
    return [a for a in axes if isinstance(a, dict)] if isinstance(axes, list) else []


def scale_of(data: Any, axis: int) -> Any:
    """Return the dimension scale of an axis; None if there is none, or it cannot be read."""
    try:
        return data.dims[axis][0] if len(data.dims[axis]) else None
    except BROKEN:
        return None


def order_of(where: str, data: Any) -> Triple:
    """Return the positions of z, y and x among the axes.

    Without names, a MATLAB array is read as an image stack V(y, x, z), which is stored as z, x, y, and any other as z, y, x,
    without axes of length 1.

    Raises SourceError if names contradict each other, or are ambiguous. Warns if a MATLAB array is read as a stack.
    """
    named = _named(data)
    if named:
        (by, names), *others = named.items()
        for other, differ in others:
            if differ != names:
                raise SourceError(
                    f"{where}: {by} says that the axes are {', '.join(names)}, but {other} says {', '.join(differ)}. Correct "
                    "the wrong one, or write a copy without names in the order z, y, x."
                )
        return spatial_order(where, names, data.shape)
    if attribute(data, "MATLAB_class") is not None:
        return _matlab_order(where, data)
    return _unnamed_order(where, data.shape)


def _named(data: Any) -> dict[str, list[str]]:
    """Return the names of all axes in lower case, by where they are from; without placeholders."""
    found = {"axistags": [str(a.get("key", "")) for a in axis_tags(data)]}
    found["its dimension labels"] = [data.dims[i].label for i in range(data.ndim)]
    if not any(found["its dimension labels"]):
        found["its dimension scales"] = [_scale_name(data, i) for i in range(data.ndim)]
    for name in _NAMES:
        found[f"the attribute {name!r}"] = _split(attribute(data, name), data.ndim)
        above = _split(attribute(data.parent, name), data.ndim)
        if len(above) == data.ndim and not found[f"the attribute {name!r}"]:
            found[f"the group's attribute {name!r}"] = above
    lower = {by: [n.strip().lower().replace("?", "") for n in names] for by, names in found.items()}
    return {by: names for by, names in lower.items() if not all(_NUMBERED.fullmatch(n) for n in names)}


def _scale_name(data: Any, axis: int) -> str:
    scale = scale_of(data, axis)
    if scale is None:
        return ""
    convention = texts(attribute(scale, "axis"))  # X, Y, Z or T of the CF conventions
    return convention[0] if convention else posixpath.basename(scale.name or "")


def _split(value: Any, ndim: int) -> list[str]:
    """Return the names in an attribute: a list, or one text such as "zyx", "z, y, x" or a JSON list."""
    names = [] if value is None else texts(value)
    if len(names) != 1 or ndim == 1:
        return names
    text = names[0]
    try:
        listed = json.loads(text)
        if isinstance(listed, list):
            return [str(n) for n in listed]
    except (ValueError, RecursionError):
        pass
    words = re.split(r"[\s,;]+", text.strip(" ,;"))
    return list(words[0]) if len(words) == 1 else words


def _matlab_order(where: str, data: Any) -> Triple:
    if attribute(data, "Python.Shape") is not None:  # a NumPy array of axes z, y, x, written for MATLAB
        order = spatial_order(where, "xyz", data.shape) if data.ndim == 3 else _unnamed_order(where, data.shape[::-1])
        return order if data.ndim == 3 else three(data.ndim - 1 - a for a in order)
    z, x, y = _unnamed_order(where, data.shape)
    size = times(data.shape[::-1])
    warnings.warn(
        f"{where} is a MATLAB array of {size} with unnamed axes: it is read as a stack of images V(y, x, z), rows first and "
        "slices last. If that is wrong, type V = permute(V, [...]) in MATLAB and save it again",
        SimexmWarning,
        stacklevel=2,
    )
    return z, y, x


def _unnamed_order(where: str, shape: Sequence[int]) -> Triple:
    """Return the positions of z, y, x among unnamed axes: the three, or the three longer than 1."""
    kept = range(3) if len(shape) == 3 else [i for i, n in enumerate(shape) if n > 1]
    if len(kept) != 3:
        raise SourceError(
            f"{where} has the shape {times(shape)}, and nothing says which axes are z, y and x. Write the volume as a data "
            "set of three axes, z, y, x."
        )
    return three(kept)
