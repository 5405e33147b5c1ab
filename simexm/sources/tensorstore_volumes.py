"""N5 and Neuroglancer precomputed volumes, read by TensorStore.

Both keep x, y, z in this order; here all is z, y, x.
https://github.com/saalfeldlab/n5, https://neuroglancer-docs.web.app/datasource/precomputed
"""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.errors import SourceError, SourceNotFoundError
from simexm.grid import Box, Spacing, Triple, exact, exact3, triple
from simexm.sources.axes import nm_per
from simexm.sources.needs import need
from simexm.sources.stack import ORIGIN
from simexm.sources.state import FilesState, state_below, state_of_grid

_LOSSY = "jpeg"
_DEEPEST = 6


class TensorStoreVolume:
    """A volume that TensorStore reads; obeys `simexm.sources.stack.Stack`.

    Parameters
    ----------
    where
        What to call it in messages.
    store
        The opened store, with the axes z, y, x in this order.
    voxel_size_nm, origin_nm
        As in `Stack`.
    metadata
        The file in the store's folder that is there as long as the volume is.
    chunks
        Folder of the chunks below the store's.
    order
        Positions of z, y, x in the names of chunks, where these are such as 3/0/2; None for names of another kind.
    """

    def __init__(
        self,
        where: str,
        store: Any,
        voxel_size_nm: Spacing | None,
        origin_nm: Spacing,
        metadata: str,
        chunks: str = "",
        order: Sequence[int] | None = None,
    ) -> None:
        self.where = where
        self._order = order
        self._store = store
        self._metadata = metadata
        base = store.kvstore.spec().to_json()
        self._folder = Path(base["path"]) / chunks if base["driver"] == "file" else None
        self.shape: Triple = triple(store.shape)
        self.dtype: np.dtype[Any] = np.dtype(store.dtype.numpy_dtype)
        self.grain: Triple = triple(store.chunk_layout.read_chunk.shape or (1, 1, 1))
        self.voxel_size_nm = voxel_size_nm
        self.origin_nm = origin_nm

    def plane(self, z: int) -> str:
        """The volume and the plane."""
        return f"{self.where}, z = {z}"

    def read(self, box: Box) -> NDArray[Any]:
        """Return what is stored in a box, (z, y, x).

        Raises
        ------
        SourceError
            If a chunk cannot be decoded.
        FileNotFoundError
            If the volume is gone. TensorStore takes a missing chunk for one that was never written.
        """
        try:
            data = np.ascontiguousarray(self._store[box.slices].read().result())
            there = self._store.kvstore.read(self._metadata).result().state == "value"
        except (ValueError, OSError, RuntimeError) as error:
            raise SourceError(
                f"{self.where}: voxels {list(box.start)} to {list(box.stop)} cannot be read, a chunk is damaged: "
                f"{_short(error)}. Copy it again from where it came."
            ) from error
        if not there:
            raise FileNotFoundError(errno.ENOENT, "its metadata are gone", self._metadata)
        return data

    def state(self, box: Box) -> FilesState | None:
        """How the files of a volume on a disk are that hold a box, or all files; None for one behind a URL."""
        if self._folder is None:
            return None
        if self._order is None:
            return state_below(self.where, self._folder)
        ranges = [range(1)] * 3
        for i, a, b, n in zip(self._order, box.start, box.stop, self.grain, strict=True):
            ranges[i] = range(a // n, -(-b // n))
        return state_of_grid(self.where, self._folder, ranges)


def open_precomputed(path: str, scale: str | None) -> TensorStoreVolume:
    """Open a Neuroglancer precomputed volume on disk or behind a URL.

    Parameters
    ----------
    path
        Its folder or URL (gs://, s3://, https://, with or without precomputed:// before it).
    scale
        Key of the scale, such as "8_8_40"; None for the finest.

    Raises
    ------
    SourceError
        If TensorStore is missing, or it cannot be read.
    """
    ts = need("tensorstore", f"{path} is a Neuroglancer precomputed volume")
    kvstore = _kvstore(path.removeprefix("precomputed://"))
    spec: dict[str, Any] = {"driver": "neuroglancer_precomputed", "kvstore": kvstore}
    if scale is not None:
        spec["scale_metadata"] = {"key": scale}
    store = _open(ts, path, spec)
    metadata = store.spec().to_json()["scale_metadata"]
    if metadata["encoding"] == _LOSSY:
        raise SourceError(
            f"{path} is encoded by JPEG, which changes values: it is a picture, not labels. Name a segmentation."
        )
    if store.shape[3] != 1:
        raise SourceError(f"{path} has {store.shape[3]} channels, and labels have one. Name a segmentation.")
    size = exact3(metadata["resolution"][::-1])
    begin = _spacing([exact(o) * s for o, s in zip(metadata["voxel_offset"][::-1], size, strict=True)])
    return TensorStoreVolume(path, store[..., 0].T[ts.d[:].translate_to[0]], size, begin, "info", str(metadata["key"]))


def open_n5(path: str, dataset: str | None) -> TensorStoreVolume:
    """Open a data set in an N5 container.

    Axes are x, y, z, unless the attribute `axes` says otherwise. Sizes are read from `pixelResolution`, or `resolution`
    (with `units`, or in nm, as Paintera and Daisy write it) and `offset`.

    Parameters
    ----------
    path
        Folder of the container or of something inside it.
    dataset
        Path of the data set inside it; None for the only one, or the finest scale of the only multiscale group.

    Raises
    ------
    SourceError
        If TensorStore is missing, it cannot be read, or it is not known which data set is meant.
    """
    ts = need("tensorstore", f"{path} is an N5 container")
    root = Path(path).expanduser()
    folder = _choose(path, root, dataset)
    attributes = _attributes(folder)
    where = str(folder)
    if attributes.get("isLabelMultiset") or _attributes(folder.parent).get("isLabelMultiset"):
        raise SourceError(
            f"{where} holds Paintera's label multisets, which are no plain ids. Export it to scalar labels."
        )
    store = _open(ts, where, {"driver": "n5", "kvstore": _kvstore(where)})
    names = [str(a).lower() for a in attributes.get("axes", ())] or ["x", "y", "z"]
    if store.ndim != 3 or sorted(names) != ["x", "y", "z"]:
        raise SourceError(
            f"{where} has {store.ndim} axes ({', '.join(names)}), and labels have three, x, y, z. Name a volume: --dataset"
        )
    order = [names.index(a) for a in "zyx"]
    size, origin = _n5_geometry(folder, attributes, order)
    return TensorStoreVolume(where, store.transpose(order), size, origin, "attributes.json", order=order)


def _open(ts: Any, where: str, spec: dict[str, Any]) -> Any:
    try:
        return ts.open(spec, open=True, read=True).result()
    except (ValueError, OSError, RuntimeError, NotImplementedError) as error:
        raise SourceError(f"{where} cannot be read: {_short(error)}. Check the path, or copy it again.") from error


def _short(error: Exception) -> str:
    """What TensorStore says, without the whole specification."""
    return str(error).partition(" [")[0]


def _kvstore(path: str) -> Any:
    if "://" in path:
        return path.rstrip("/") + "/"
    return {"driver": "file", "path": f"{Path(path).expanduser().resolve()}/"}


def _choose(path: str, root: Path, dataset: str | None) -> Path:
    if dataset is not None:
        root /= dataset.strip("/")
        if not root.is_dir():
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
        f"{root} holds {_listed(found, root)}, and it is not known which are the labels. Name one: --dataset NAME"
        if found
        else f"{root} holds no N5 data set (a folder with attributes.json that tells dimensions). Name one that does."
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
    try:
        found = json.loads((folder / "attributes.json").read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise SourceError(
            f"{folder}/attributes.json cannot be read: {error}. Copy it again from where it came."
        ) from error
    return found if isinstance(found, dict) else {}


def _n5_geometry(folder: Path, attributes: Mapping[str, Any], order: list[int]) -> tuple[Spacing | None, Spacing]:
    """Voxel size and origin, nm, z y x, from the data set's attributes or, times its downsampling, its group's."""
    factors = attributes.get("downsamplingFactors", (1, 1, 1))
    for known, by in ((attributes, (1, 1, 1)), (_attributes(folder.parent), factors)):
        pixel = known.get("pixelResolution")
        if isinstance(pixel, Mapping):
            sizes, units = pixel.get("dimensions"), [pixel.get("unit", "nm")] * 3
        else:
            sizes, units = known.get("resolution"), known.get("units", ["nm"] * 3)
        if sizes is None:
            continue
        try:
            per = [n for n in map(nm_per, units) if n is not None]
            nm = [exact(s) * n * exact(f) for s, n, f in zip(sizes, per, by, strict=True)]
            begin = [exact(o) * n for o, n in zip(known.get("offset", (0, 0, 0)), per, strict=True)]
            if len(nm) != 3 or min(nm) <= 0:
                raise ValueError
        except (KeyError, ValueError, TypeError):  # not three lengths
            continue
        return _spacing([nm[i] for i in order]), _spacing([begin[i] for i in order])
    return None, ORIGIN


def _spacing(values: Sequence[Fraction]) -> Spacing:
    z, y, x = values
    return z, y, x
