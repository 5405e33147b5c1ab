"""Find the array of labels in a Zarr on disk, in a ZIP file or behind a URL."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zarr
from zarr.storage import LocalStore, ZipStore

from simexm.errors import SourceError, SourceNotFoundError, SpecError
from simexm.sources.kinds import DESCRIPTIONS, ingest_command, kind_of, zip_root
from simexm.sources.limits import refuse_large
from simexm.sources.webknossos import choose
from simexm.sources.words import words
from simexm.sources.zarr import ngff
from simexm.sources.zarr.geometry import Above, Node, attributes_of, checked_geometry, unreadable
from simexm.store.location import folder_of, is_url, location, zarr_store
from simexm.store.ngff import datasets, ome
from simexm.store.refusals import RemoteError
from simexm.store.remote import Remote

_METADATA = ("zarr.json", ".zarray", ".zgroup", ".zattrs")
_NOT_LABELS = frozenset({"OME"})
"""Groups without voxels, which bioformats2raw adds."""


@dataclass(frozen=True)
class Found:
    """An array and its geometry."""

    where: str  # its name in messages: path and dataset
    array: zarr.Array[Any]
    geometry: ngff.Geometry
    group: zarr.Group | None  # the group that holds it, if any
    is_image: bool  # whether it is an image and no labels, by its metadata


def open_root(path: str, dataset: str | None = None) -> tuple[Node, str | None]:
    """Open a folder, ZIP file or URL; return the root (or the array of a WEBKNOSSOS layer) and the dataset left to find.

    Raises SourceNotFoundError if nothing exists there, and SourceError if it is no Zarr, or its metadata cannot be
    read.
    """
    if is_url(path):
        return _open_url(path), dataset
    try:
        kind = kind_of(path)
    except SourceNotFoundError as error:
        raise SourceNotFoundError(
            f"{error} Correct the path, or make it from your segmentation: simexm ingest FILE -o {Path(path).name} "
            "--voxel-size Z Y X (nm)"
        ) from error
    if kind == "WEBKNOSSOS":
        mag = choose(path, dataset)
        if not mag.form.startswith("zarr"):
            raise SourceError(
                f"{path} is a WEBKNOSSOS dataset whose layer {mag.layer!r} is stored as {mag.form}, which cannot be read box "
                f"by box. Convert it once: {ingest_command(path, kind)}"
            )
        path, dataset, kind = str(mag.folder), None, kind_of(str(mag.folder))
    if kind != "Zarr":
        raise SourceError(
            f"{path} {DESCRIPTIONS[kind]}, which cannot be read box by box. Convert it once: {ingest_command(path, kind)}"
        )
    local = Path(path).expanduser()
    try:
        if local.is_file():
            return zarr.open(ZipStore(local, mode="r"), mode="r", path=zip_root(local), use_consolidated=False), dataset
        for name in _METADATA:
            _refuse_large(local / name)
        return zarr.open(str(local), mode="r", use_consolidated=False), dataset
    except FileNotFoundError as error:
        raise SourceError(f"{path} is not a Zarr: it has no zarr.json, .zarray or .zgroup that can be read.") from error
    except SourceError:
        raise
    except Exception as error:  # zarr-python raises anything for wrong metadata
        raise unreadable(path, error) from error


def _open_url(path: str) -> Node:
    if path.endswith((".zip", ".ozx")):
        raise SourceError(f"{path} is a ZIP file, which is only read from a disk. Download it, and name the file.")
    try:
        where = location(path)
        if isinstance(where, Remote) and where.can_list:
            next(where.iterdir(), None)  # raises a refusal, which Zarr reads as absence
        return zarr.open(zarr_store(where), mode="r", use_consolidated=False)
    except SpecError as error:
        raise SourceError(str(error)) from error
    except RemoteError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from error
    except FileNotFoundError as error:
        raise SourceNotFoundError(
            f"{path}: there is no Zarr at this URL. Check it in a browser. (A Neuroglancer precomputed "
            f"volume is ingested first: simexm ingest precomputed://{path} -o NAME.zarr)"
        ) from error
    except Exception as error:  # remote file systems have their own error types
        raise SourceError(f"{path} cannot be read: {type(error).__name__}: {error}") from error


def find(root: Node, root_path: str, dataset: str | None) -> Found:
    """Follow the metadata from `root` to one array, its axes and its size.

    Raises SourceNotFoundError if there is no such dataset, and SourceError if it is unclear which array is meant or
    which axes are z, y and x, the array is empty or absurd, or foreign files are among its chunks.
    """
    node = root
    parts = [p for p in (dataset or "").split("/") if p]
    above: list[tuple[zarr.Group, int]] = []  # groups on the way, and the number of parts of their paths
    for n, part in enumerate(parts):
        inner = _child(node, part, root_path) if isinstance(node, zarr.Group) else None
        if inner is None:
            members = _members(node) if isinstance(node, zarr.Group) else []
            raise SourceNotFoundError(
                f"{root_path} holds no {'/'.join(parts[: n + 1])!r}; "
                + (f"beside it there are: {', '.join(members[:10])}." if members else "there is nothing below it.")
            )
        assert isinstance(node, zarr.Group)
        above.append((node, n))
        node = inner
    while isinstance(node, zarr.Group):
        name = _choose(node, root_path, parts)
        above.append((node, len(parts)))
        parts += name.split("/")
        inner = _child(node, name, root_path)
        assert inner is not None  # `_choose` found it
        node = inner
    where = "/".join([root_path.rstrip("/"), *parts])
    parents: Above = [(attributes_of(where, group), "/".join(parts[depth:])) for group, depth in above]
    geometry = checked_geometry(where, node, parents)
    image = "labels" not in parts and any(ngff.is_image(attributes) for attributes, _ in parents[-1:])
    return Found(where, node, geometry, above[-1][0] if above else None, image)


def inside(group: zarr.Group) -> str:
    """Return the path of a group in its Zarr, which in a ZIP file may be in a folder."""
    if isinstance(group.store, ZipStore):
        return group.path.removeprefix(zip_root(group.store.path) or "").strip("/")
    return str(group.path)


def _child(group: zarr.Group, name: str, root_path: str) -> Node | None:
    """Return a node below a group; None if there is none."""
    if isinstance(group.store, LocalStore):
        for file in _METADATA:
            _refuse_large(group.store.root / group.path / name / file)
    try:
        return group[name]
    except (KeyError, FileNotFoundError):
        return None
    except Exception as error:  # zarr-python raises anything for wrong metadata
        raise unreadable(f"{root_path.rstrip('/')}/{name}", error) from error


def _members(group: zarr.Group) -> list[str]:
    """Return the names of nodes in a group; behind a web server, which does not list, from consolidated metadata."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # folders without a node
        try:
            names = sorted(group)
            if names or folder_of(group) is not None or isinstance(group.store, ZipStore):
                return names
            return sorted(zarr.open_group(group.store, mode="r", path=group.path))
        except Exception:  # a store that cannot be listed
            return []


def _refuse_large(file: Path) -> None:
    if file.is_file():
        refuse_large(str(file), file.stat().st_size)


def _choose(group: zarr.Group, root_path: str, parts: list[str]) -> str:
    """Return the path below a group of the next node on the way to the labels."""
    where = "/".join([root_path.rstrip("/"), *parts])
    attributes = attributes_of(where, group)
    names, prefix = ngff.label_names(attributes), ""
    labels = None if names else _child(group, "labels", root_path)
    if isinstance(labels, zarr.Group):
        names, prefix = ngff.label_names(attributes_of(where, labels)) or tuple(_members(labels)), "labels/"
    if not names:
        levels = datasets(attributes)
        if levels:
            if _child(group, levels[0], root_path) is None:
                raise SourceError(f"{where}: its metadata names the level {levels[0]!r}, which is missing.")
            return levels[0]
        names, prefix = _series(group, attributes) or _volumes(group), ""
    if len(names) == 1 and _child(group, prefix + names[0], root_path) is not None:
        return prefix + names[0]
    if not names:
        raise SourceError(f"{where} is a Zarr group with no volume in it.")
    choices = ", ".join("/".join([*parts, prefix + n]) for n in names[:20])
    raise SourceError(
        f"{where} holds {len(names)} candidates, and it is unclear which are the labels. {words().dataset}, with one of "
        f"{choices}."
    )


def _series(group: zarr.Group, attributes: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the images of a file that bioformats2raw converted: https://ngff.openmicroscopy.org/0.4/#bf2raw."""
    if "bioformats2raw.layout" not in ome(attributes):
        return ()
    listed: Any = None
    if "OME" in group:
        listed = ome(attributes_of("OME", group["OME"])).get("series")
    names = [str(n) for n in listed] if isinstance(listed, list) else [n for n in _members(group) if n.isdigit()]
    return tuple(n for n in names if n in group)


def _volumes(group: zarr.Group) -> tuple[str, ...]:
    """Return the nodes of a group that may hold labels: groups and arrays of at least three axes, or else all nodes."""
    names = [n for n in _members(group) if n not in _NOT_LABELS]
    if len(names) > 20:
        return tuple(names)
    nodes = {n: _child(group, n, group.path) for n in names}
    return tuple(n for n, node in nodes.items() if not isinstance(node, zarr.Array) or node.ndim >= 3) or tuple(names)
