"""Which array in a Zarr is meant, on disk, in a ZIP file or behind a URL, and what its metadata tell of axes and size."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zarr
from zarr.storage import LocalStore, ZipStore

from simexm.errors import SourceError, SourceNotFoundError, SpecError
from simexm.sources.kinds import TOLD, ingest_command, kind_of, zip_root
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
"""Groups that bioformats2raw adds, without voxels."""


@dataclass(frozen=True)
class Found:
    """An array, with what is known of it.

    Attributes
    ----------
    where
        What to call it in messages: path and dataset.
    group
        The group that holds it; None where it stands alone.
    is_image
        Whether the metadata say that it is an image and no labels.
    """

    where: str
    array: zarr.Array[Any]
    geometry: ngff.Geometry
    group: zarr.Group | None
    is_image: bool


def open_root(path: str, dataset: str | None = None) -> tuple[Node, str | None]:
    """Open what a path means, and say what is left of the dataset's name to find in it.

    Parameters
    ----------
    path
        Folder, ZIP file or URL; of a WEBKNOSSOS dataset, the array of a layer is opened.
    dataset
        What is wanted inside it.

    Raises
    ------
    SourceNotFoundError
        If there is nothing.
    SourceError
        If it is no Zarr, or its metadata cannot be read.
    """
    if is_url(path):
        return _open_url(path), dataset
    try:
        kind = kind_of(path)
    except SourceNotFoundError as error:
        raise SourceNotFoundError(
            f"{error} Correct the path, or make it from your segmentation: simexm ingest FILE -o {Path(path).name} --voxel-size "
            "Z Y X (nm)"
        ) from error
    if kind == "WEBKNOSSOS":
        mag = choose(path, dataset)
        if not mag.form.startswith("zarr"):
            raise SourceError(
                f"{path} is a WEBKNOSSOS dataset whose layer {mag.layer!r} is stored as {mag.form}, which cannot be read box by "
                f"box. Convert it once: {ingest_command(path, kind)}"
            )
        path, dataset, kind = str(mag.folder), None, kind_of(str(mag.folder))
    if kind != "Zarr":
        raise SourceError(
            f"{path} {TOLD[kind]}, which cannot be read box by box. Convert it once: {ingest_command(path, kind)}"
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
    except Exception as error:  # whatever zarr-python makes of metadata that are none
        raise unreadable(path, error) from error


def _open_url(path: str) -> Node:
    if path.endswith((".zip", ".ozx")):
        raise SourceError(f"{path} is a ZIP file, which is read from a disk only. Download it, and name the file.")
    try:
        where = location(path)
        if isinstance(where, Remote) and where.can_list:
            next(where.iterdir(), None)  # Zarr takes every refusal for absence
        return zarr.open(zarr_store(where), mode="r", use_consolidated=False)
    except SpecError as error:
        raise SourceError(str(error)) from error
    except RemoteError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from error
    except FileNotFoundError as error:
        raise SourceNotFoundError(
            f"{path}: there is no Zarr at this URL. Check it, or open it in a browser. (A Neuroglancer precomputed "
            f"volume is ingested first: simexm ingest precomputed://{path} -o NAME.zarr)"
        ) from error
    except Exception as error:  # remote file systems raise types of their own
        raise SourceError(f"{path} cannot be read: {type(error).__name__}: {error}") from error


def find(root: Node, root_path: str, dataset: str | None) -> Found:
    """Follow the metadata from `root` to one array and what is known of its axes and size.

    Raises
    ------
    SourceNotFoundError
        If there is no such dataset.
    SourceError
        If it is not known which array is meant or which axes are z, y and x, the array is empty or absurd, or there are files
        among its chunks that are none.
    """
    node = root
    parts = [p for p in (dataset or "").split("/") if p]
    above: list[tuple[zarr.Group, int]] = []  # the groups passed, each with the number of parts of its own path
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
        assert inner is not None  # for _choose saw it
        node = inner
    where = "/".join([root_path.rstrip("/"), *parts])
    told: Above = [(attributes_of(where, group), "/".join(parts[depth:])) for group, depth in above]
    geometry = checked_geometry(where, node, told)
    image = "labels" not in parts and any(ngff.is_image(attributes) for attributes, _ in told[-1:])
    return Found(where, node, geometry, above[-1][0] if above else None, image)


def inside(group: zarr.Group) -> str:
    """Path of a group below the Zarr that holds it, which in a ZIP file may lie in a folder."""
    if isinstance(group.store, ZipStore):
        return group.path.removeprefix(zip_root(group.store.path) or "").strip("/")
    return str(group.path)


def _child(group: zarr.Group, name: str, root_path: str) -> Node | None:
    """A node below a group, None where there is none."""
    if isinstance(group.store, LocalStore):
        for file in _METADATA:
            _refuse_large(group.store.root / group.path / name / file)
    try:
        return group[name]
    except (KeyError, FileNotFoundError):
        return None
    except Exception as error:  # whatever zarr-python makes of metadata that are none
        raise unreadable(f"{root_path.rstrip('/')}/{name}", error) from error


def _members(group: zarr.Group) -> list[str]:
    """Names of what is below a group. A web server does not tell them, but consolidated metadata may."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of folders below that are no nodes
        try:
            names = sorted(group)
            if names or folder_of(group) is not None or isinstance(group.store, ZipStore):
                return names
            return sorted(zarr.open_group(group.store, mode="r", path=group.path))
        except Exception:  # whatever a store or zarr-python makes of it: then nothing is known
            return []


def _refuse_large(file: Path) -> None:
    if file.is_file():
        refuse_large(str(file), file.stat().st_size)


def _choose(group: zarr.Group, root_path: str, parts: list[str]) -> str:
    """Path, below a group, of the next node on the way to the labels."""
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
                raise SourceError(f"{where}: its metadata names the level {levels[0]!r}, which is not there.")
            return levels[0]
        names, prefix = _series(group, attributes) or _volumes(group), ""
    if len(names) == 1 and _child(group, prefix + names[0], root_path) is not None:
        return prefix + names[0]
    if not names:
        raise SourceError(f"{where} is a Zarr group with no volume in it.")
    choices = ", ".join("/".join([*parts, prefix + n]) for n in names[:20])
    raise SourceError(
        f"{where} holds {len(names)} candidates, and it is not known which are the labels. {words().dataset}, with one of "
        f"{choices}."
    )


def _series(group: zarr.Group, attributes: Mapping[str, Any]) -> tuple[str, ...]:
    """Images of a file that bioformats2raw converted: https://ngff.openmicroscopy.org/0.4/#bf2raw."""
    if "bioformats2raw.layout" not in ome(attributes):
        return ()
    listed: Any = None
    if "OME" in group:
        listed = ome(attributes_of("OME", group["OME"])).get("series")
    names = [str(n) for n in listed] if isinstance(listed, list) else [n for n in _members(group) if n.isdigit()]
    return tuple(n for n in names if n in group)


def _volumes(group: zarr.Group) -> tuple[str, ...]:
    """What may hold labels below a group: groups, and arrays of three axes and more, else whatever is there."""
    names = [n for n in _members(group) if n not in _NOT_LABELS]
    if len(names) > 20:
        return tuple(names)
    nodes = {n: _child(group, n, group.path) for n in names}
    return tuple(n for n, node in nodes.items() if not isinstance(node, zarr.Array) or node.ndim >= 3) or tuple(names)
