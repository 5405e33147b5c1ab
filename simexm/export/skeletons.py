"""Skeletons as SWC, one file for each id, or for Neuroglancer ("precomputed")."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.errors import OutputError
from simexm.export.formats import Format
from simexm.result.result import Result
from simexm.result.skeletons import StoredSkeletons

INFO = {
    "@type": "neuroglancer_skeletons",
    "transform": [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0],
    "vertex_attributes": [{"id": "radius", "data_type": "float32", "num_components": 1}],
}
"""Metadata of a folder of skeletons for Neuroglancer; vertices are in nm."""
Columns = Mapping[str, NDArray[Any]]


def export_skeletons(result: Result, folder: Path, form: Format, *, overwrite: bool, dry_run: bool) -> list[Path]:
    """Write all skeletons below `folder`; return the folder.

    Raises OutputError if the result holds none, or a file exists and may not be replaced.
    """
    skeletons = StoredSkeletons.open(result)
    files = "*.swc" if form is Format.SWC else "info"
    if not overwrite and (there := next(folder.glob(files), None)):
        raise OutputError(f"{there} exists and would be lost; name another folder, or type --overwrite")
    if dry_run:
        return [folder]
    folder.mkdir(parents=True, exist_ok=True)
    write: Callable[[Columns], bytes] = swc if form is Format.SWC else precomputed
    for name, vertices in _one_by_one(skeletons):
        _put(folder / (f"{name}.swc" if form is Format.SWC else name), write(vertices))
    if form is Format.PRECOMPUTED:
        _put(folder / "info", json.dumps(INFO).encode())
    return [folder]


def _put(path: Path, data: bytes) -> None:
    partial = path.with_name(f"{path.name}.partial")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}") from error


def _one_by_one(skeletons: StoredSkeletons) -> Iterator[tuple[str, Columns]]:
    """Yield each id as text, and its vertices."""
    for piece in skeletons.whole_objects():
        first = np.flatnonzero(piece["vertex"] == 0)
        for begin, end in zip(first, [*first[1:], piece["id"].size], strict=True):
            yield str(piece["id"][begin]), {name: column[begin:end] for name, column in piece.items()}


def swc(vertices: Columns) -> bytes:
    """The vertices of an id as SWC: number, type 0, x, y, z, radius (um), number of the parent."""
    lines = ["# x, y, z and radius in um"]
    columns = [vertices[name] for name in ("vertex", "x_nm", "y_nm", "z_nm", "radius_nm", "parent")]
    for vertex, x, y, z, radius, parent in zip(*(c.tolist() for c in columns), strict=True):
        place = " ".join(f"{v / 1000:.6g}" for v in (x, y, z, radius))
        lines.append(f"{vertex + 1} 0 {place} {parent + 1 if parent >= 0 else -1}")
    return ("\n".join(lines) + "\n").encode()


def precomputed(vertices: Columns) -> bytes:
    """The vertices of an id as Neuroglancer reads them: counts, places x y z, edges, radii; edges lead from parents."""
    places = np.stack([vertices[f"{axis}_nm"] for axis in "xyz"], axis=1).astype("<f4")
    joined = np.flatnonzero(vertices["parent"] >= 0)
    edges = np.stack([vertices["parent"][joined], joined], axis=1).astype("<u4")
    counts = np.array([len(places), len(edges)], "<u4")
    radii = vertices["radius_nm"].astype("<f4")
    return b"".join(part.tobytes() for part in (counts, places, edges, radii))
