"""N5 containers, written by Java programs, z5py, Paintera, BigDataViewer and COSEM: https://github.com/saalfeldlab/n5."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from simexm.errors import SourceError, SourceNotFoundError
from simexm.geometry.grid import Spacing
from simexm.sources.attributes import axis_names, place_of
from simexm.sources.axes import spatial_order
from simexm.sources.bdv import read_setup
from simexm.sources.foreign_files import RENAME, grid_names, refuse_foreign_files
from simexm.sources.limits import read_json, refuse_absurd
from simexm.sources.needs import need
from simexm.sources.stack import ORIGIN
from simexm.sources.tensorstore_volumes import TensorStoreVolume, kvstore, open_store
from simexm.sources.zarr.ngff import UnclearError, checked_size

_DEEPEST = 6
_C_ORDER = ("transform", "_ARRAY_DIMENSIONS", "axistags")
_PAINTERA = ("painteraData", "maxId", "isLabelMultiset")


def open_n5(path: str, dataset: str | None) -> TensorStoreVolume:
    """Open a data set in an N5 container.

    Axes are x, y, z, unless attributes name them. Sizes and positions come from `transform` (COSEM), `pixelResolution`,
    `resolution` with `offset` and `units` (nm without), and from the XML of BigDataViewer.

    `dataset` is the path of the data set in the container, or in a group of it; None for the only one, or the finest
    scale of the only multiscale group. Raises SourceError if TensorStore is missing, the data set cannot be read, it is
    unclear which data set is meant or which axes are z, y and x, or there are foreign files among its blocks.
    """
    ts = need("tensorstore", f"{path} is an N5 container")
    root = Path(path).expanduser()
    folder = _choose(path, root, dataset)
    attributes = _attributes(folder)
    where = str(folder)
    if attributes.get("isLabelMultiset") or _attributes(folder.parent).get("isLabelMultiset"):
        raise SourceError(f"{where} holds Paintera's label multisets, not plain ids. Export it to scalar labels.")
    dimensions, block = (_whole(where, key, attributes) for key in ("dimensions", "blockSize"))
    refuse_absurd(where, dimensions, block, 1)
    store = open_store(ts, where, {"driver": "n5", "kvstore": kvstore(where)})
    names = _axes(where, attributes, store.ndim)
    order = spatial_order(where, names, store.shape)
    store = store[tuple(slice(None) if i in order else 0 for i in range(store.ndim))]
    kept = sorted(order)
    size, origin, doubt = _place(folder, attributes, names)
    grid = [-(-n // b) for n, b in zip(dimensions, block, strict=True)]
    refuse_foreign_files(
        where, folder, grid_names(grid, "/"), lambda _: f"Blocks of N5 are files in folders, x/y/z. {RENAME}"
    )
    store = store.transpose([kept.index(i) for i in order])
    along = [order.index(i) if i in order else None for i in range(len(dimensions))]
    return TensorStoreVolume(where, store, size, origin, doubt, metadata="attributes.json", grid=along)


def _axes(where: str, attributes: Mapping[str, Any], ndim: int) -> list[str]:
    """Return names of the axes, first dimension first; Python programs (and COSEM) list them in reverse."""
    n5_order = {k: v for k, v in attributes.items() if k not in _C_ORDER}
    names = axis_names(where, n5_order, None)
    python = {k: attributes[k] for k in _C_ORDER if k in attributes}
    reverse = (axis_names(where, python, None) or [])[::-1]
    if names and reverse and names != reverse:
        raise SourceError(
            f"{where}: axes says {', '.join(names)}, and {' and '.join(python)} {', '.join(reverse)} (first dimension "
            "first), so it is unclear which axes are z, y and x. Correct the attribute that is wrong."
        )
    return names or reverse or list("xyzct"[:ndim])


def _place(
    folder: Path, attributes: Mapping[str, Any], names: Sequence[str]
) -> tuple[Spacing | None, Spacing, str | None]:
    """Return voxel size, origin, and why there is no size."""
    group = _attributes(folder.parent)
    try:
        found = _of_bdv(folder, attributes)
        if found is None:
            _refuse_ambiguous(attributes, group)
            found = place_of(folder.name, attributes, group, names)
    except UnclearError as error:
        return None, ORIGIN, str(error)
    return (None, ORIGIN, None) if found is None else (*found, None)


def _of_bdv(folder: Path, attributes: Mapping[str, Any]) -> tuple[Spacing, Spacing] | None:
    """Return the place of CONTAINER/setupN/timepointM/sK of BigDataViewer; None for any other folder."""
    resolved = folder.resolve()
    if len(resolved.parts) < 4:
        return None
    scale, timepoint, setup = (
        re.fullmatch(rf"{kind}(\d+)", name)
        for kind, name in zip(("s", "timepoint", "setup"), resolved.parts[:-4:-1], strict=False)
    )
    if not (scale and timepoint and setup):
        return None
    found = read_setup(resolved.parents[2], int(setup[1]), int(timepoint[1]))
    if found.voxel_size_nm is None:
        if "pixelResolution" in _attributes(folder.parent):  # which has a unit
            return None
        raise UnclearError(found.doubt or "")
    factors = attributes.get("downsamplingFactors")
    if factors is None:
        factors = dict(enumerate(_attributes(folder.parent.parent).get("downsamplingFactors", ()))).get(int(scale[1]))
    if factors is None and scale[1] != "0":
        raise UnclearError("its metadata do not say how much it is coarser than the finest scale")
    try:
        x, y, z = (int(f) for f in factors or (1, 1, 1))
    except (TypeError, ValueError):
        raise UnclearError(f"its downsamplingFactors {factors!r} are not three integers") from None
    size = [s * f for s, f in zip(found.voxel_size_nm, (z, y, x), strict=True)]
    return checked_size(size), found.origin_nm


def _refuse_ambiguous(attributes: Mapping[str, Any], group: Mapping[str, Any]) -> None:
    """Raise UnclearError for a bare `resolution` that may be z y x: z5py leaves the order to its user, Paintera writes x y z."""
    for known in (attributes, group):
        values = known.get("resolution")
        if values is None or {"units", "axes", "transform", "pixelResolution"} & {*known, *attributes}:
            continue
        offset = known.get("offset") or [0, 0, 0]
        if any(mark in known for mark in _PAINTERA) or not (_are_three(values) and _are_three(offset)):
            return
        same = values[0] == values[2] and offset[0] == offset[-1]
        if not same and not values[2] > max(values[:2]):
            a, b, c = values
            raise UnclearError(
                f"its resolution {values} is x y z in N5, but z5py and others write z y x, so the voxel size is either "
                f"{c:g} {b:g} {a:g} nm or {a:g} {b:g} {c:g} nm (z y x)"
            )
        return


def _are_three(values: Any) -> bool:
    return isinstance(values, list) and len(values) == 3 and all(isinstance(v, int | float) for v in values)


def _whole(where: str, key: str, attributes: Mapping[str, Any]) -> list[int]:
    values = attributes.get(key)
    if not isinstance(values, list) or not all(isinstance(n, int) and not isinstance(n, bool) for n in values):
        raise SourceError(f"{where}: {key} is {values!r}, and must be a list of integers. Copy attributes.json again.")
    return values


def _choose(path: str, root: Path, dataset: str | None) -> Path:
    if dataset is not None:
        root /= dataset.strip("/")
        if not root.is_dir() or ".." in Path(dataset).parts:
            raise SourceNotFoundError(
                f"{path} holds no {dataset!r}; it holds {_listed(_datasets(Path(path)), Path(path))}."
            )
    found = sorted(_datasets(root))
    finest = [p for p in found if p.name == "s0"]
    groups = {p.parent for p in found}
    if len(found) == 1:
        return found[0]
    if len(finest) == 1 and len(groups) == 1:
        return finest[0]
    raise SourceError(
        f"{root} holds {_listed(found, root)}, and it is unclear which are the labels. Name one: --dataset NAME"
        if found
        else f"{root} holds no N5 data set (a folder with attributes.json that has dimensions). Name one that does."
    )


def _datasets(folder: Path, depth: int = 0) -> Iterator[Path]:
    if "dimensions" in _attributes(folder):
        yield folder
    elif depth < _DEEPEST and folder.is_dir():
        for inner in folder.iterdir():
            if inner.is_dir() and not inner.name.startswith("."):
                yield from _datasets(inner, depth + 1)


def _listed(found: Iterator[Path] | Sequence[Path], root: Path) -> str:
    names = sorted(p.relative_to(root).as_posix() for p in found)
    return f"{len(names)} data sets ({', '.join(names[:20])})"


def _attributes(folder: Path) -> Mapping[str, Any]:
    found = read_json(folder / "attributes.json")
    return found if isinstance(found, dict) else {}
