"""Metadata and chunks that are absurd or hostile end in one message, before anything large is read or made."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numcodecs  # type: ignore[import-untyped]
import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec, GzipCodec, ZstdCodec

from simexm.errors import SourceError, SpecError
from simexm.geometry.grid import Box
from simexm.ingestion.ingest import ingest
from simexm.sources.base import ZarrSource
from simexm.sources.opening import open_stack
from tests.sources.containers import n5, precomputed, zarr_array

NM = (40, 8, 4)


BOMBS: dict[str, dict[str, Any]] = {
    "Zstd": {"zarr_format": 3, "compressors": ZstdCodec()},
    "Zstd behind a checksum": {"zarr_format": 3, "compressors": [ZstdCodec(), Crc32cCodec()]},
    "gzip": {"zarr_format": 3, "compressors": GzipCodec()},
    "Blosc": {"zarr_format": 3, "compressors": BloscCodec()},
    "Zstd, v2": {"zarr_format": 2, "compressors": numcodecs.Zstd()},
    "LZ4, v2": {"zarr_format": 2, "compressors": numcodecs.LZ4()},
    "gzip, v2": {"zarr_format": 2, "compressors": numcodecs.GZip()},
    "a shard": {"zarr_format": 3, "shards": (8, 8, 8)},
}


@pytest.mark.parametrize("how", BOMBS.values(), ids=BOMBS)
def test_a_chunk_that_would_fill_the_memory_is_not_decoded(tmp_path: Path, how: dict[str, Any]) -> None:
    """Its metadata say 512 bytes, and it holds 4 MiB."""
    made = {**how, **({"shards": (256, 256, 256)} if "shards" in how else {})}
    bomb = np.zeros((160,) * 3, np.uint8)
    bomb[0, 0, 0] = 1
    array = zarr.create_array(
        tmp_path / "a", shape=bomb.shape, chunks=(128,) * 3 if "shards" in how else bomb.shape, dtype="u1", **made
    )
    array[...] = bomb
    if array.shards:
        sharding = json.loads((tmp_path / "a/zarr.json").read_text())["codecs"]
        sharding[0]["configuration"]["chunk_shape"] = [4, 4, 4]
        _edit(tmp_path / "a", shape=[8] * 3, codecs=sharding, **_grid(8, 8, 8))
    elif array.metadata.zarr_format == 2:
        _edit(tmp_path / "a", shape=[8] * 3, chunks=[8] * 3)
    else:
        _edit(tmp_path / "a", shape=[8] * 3, **_grid(8, 8, 8))
    source = ZarrSource(path=str(tmp_path / "a"), voxel_size_nm=NM).open()
    tracemalloc.start()
    with pytest.raises(SourceError, match="would decode to"):
        source.read(Box.of_shape(source.shape))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


def _edit(path: Path, **changes: Any) -> None:
    file = path / (".zarray" if (path / ".zarray").exists() else "zarr.json")
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def _grid(*chunk: float) -> dict[str, Any]:
    return {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk}}}


ABSURD: dict[str, tuple[int, Callable[[Path], Any]]] = {
    "10^12 chunks": (2, lambda p: _edit(p, shape=[10**4] * 3, chunks=[1, 1, 1])),
    "10^18 chunks": (3, lambda p: _edit(p, shape=[10**6] * 3, **_grid(1, 1, 1))),
    "zero chunk": (2, lambda p: _edit(p, chunks=[0, 7, 8])),
    "zero chunk, v3": (3, lambda p: _edit(p, **_grid(0, 7, 8))),
    "negative shape": (2, lambda p: _edit(p, shape=[-5, 14, 23])),
    "fractions": (3, lambda p: _edit(p, shape=[5.5, 14, 23])),
    "fractions of chunks": (2, lambda p: _edit(p, chunks=[2.5, 7, 8])),
    "a chunk of 4 EB": (2, lambda p: _edit(p, chunks=[10**6] * 3)),
    "no numbers": (2, lambda p: _edit(p, shape="many")),
    "other dimensions": (2, lambda p: _edit(p, chunks=[2, 7])),
    "unknown codec": (2, lambda p: _edit(p, compressor={"id": "mine"})),
    "unknown codec, v3": (3, lambda p: _edit(p, codecs=[{"name": "mine"}])),
    "attributes in a list": (3, lambda p: _edit(p, attributes=[1])),
    "nested deep": (3, lambda p: (p / "zarr.json").write_text("[" * 10**5)),
    "attributes nested deep": (2, lambda p: (p / ".zattrs").write_text('{"a":' * 10**5)),
    "an integer of 6000 digits": (2, lambda p: (p / ".zarray").write_text('{"shape": [' + "9" * 6000)),
    "metadata of 65 MB": (3, lambda p: (p / "zarr.json").open("wb").truncate(65 * 2**20)),
}  # fmt: skip


@pytest.mark.parametrize(("zarr_format", "spoil"), ABSURD.values(), ids=ABSURD)
def test_absurd_metadata_are_refused_in_one_message(
    tmp_path: Path, zarr_format: Any, spoil: Callable[[Path], Any]
) -> None:
    path = zarr_array(tmp_path / "a", zarr_format=zarr_format)
    spoil(path)
    for open_ in (lambda: ZarrSource(path=str(path), voxel_size_nm=NM).open(), lambda: open_stack(str(path))):
        with pytest.raises(SourceError) as caught:
            open_()
        assert str(path) in str(caught.value)
        assert "no zarr.json" not in str(caught.value)
        assert len(str(caught.value)) < 600


N5_ATTRIBUTES, PROPERTIES = "lab/attributes.json", "datasource-properties.json"
DEEP = "[" * 10**5


def _n5(path: Path) -> Path:
    return n5(path, "lab", {"transform": {"axes": ["z", "y", "x"], "scale": [40, 8, 4]}})


def _with(file: str, **changes: Any) -> Callable[[Path], Any]:
    return lambda p: (p / file).write_text(json.dumps({**json.loads((p / file).read_text()), **changes}))


def _scale(**changes: Any) -> Callable[[Path], Any]:
    def edit(path: Path) -> None:
        info = json.loads((path / "info").read_text())
        info["scales"][0].update(changes)
        (path / "info").write_text(json.dumps(info))

    return edit


def _layer(**changes: Any) -> Callable[[Path], Any]:
    box = {"topLeft": [0, 0, 0], "width": 8, "height": 8, "depth": 8}
    layer = {"name": "seg", "category": "segmentation", "boundingBox": box, "mags": [{"mag": 1}], **changes}

    def write(path: Path) -> None:
        (path / "seg/1").mkdir(parents=True)
        (path / "seg/1/header.wkw").write_bytes(b"WKW\x01\x13\x02\x03\x04" + bytes(8))
        (path / PROPERTIES).write_text(json.dumps({"scale": [4, 8, 40], "dataLayers": [layer]}))

    return write


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


OTHERS: dict[str, tuple[Callable[[Path], Path], Callable[[Path], Any]]] = {
    "N5, 10^18 chunks": (_n5, _with(N5_ATTRIBUTES, dimensions=[10**6] * 3, blockSize=[1, 1, 1])),
    "N5, zero chunk": (_n5, _with(N5_ATTRIBUTES, blockSize=[0, 9, 9])),
    "N5, fractions": (_n5, _with(N5_ATTRIBUTES, dimensions=[5.5, 9, 9])),
    "N5, a chunk of 1 EB": (_n5, _with(N5_ATTRIBUTES, blockSize=[10**6] * 3)),
    "N5, unknown codec": (_n5, _with(N5_ATTRIBUTES, compression={"type": "mine"})),
    "N5, nested deep": (_n5, lambda p: (p / N5_ATTRIBUTES).write_text(DEEP)),
    "N5, metadata of 65 MB": (_n5, lambda p: (p / N5_ATTRIBUTES).open("wb").truncate(65 * 2**20)),
    "N5, axes of a transform": (_n5, _with(N5_ATTRIBUTES, transform={"axes": 5, "scale": 3})),
    "precomputed, 10^18 chunks": (precomputed, _scale(size=[10**6] * 3, chunk_sizes=[[1, 1, 1]])),
    "precomputed, zero chunk": (precomputed, _scale(chunk_sizes=[[0, 1, 1]])),
    "precomputed, negative": (precomputed, _scale(size=[-1, 1, 1])),
    "precomputed, a chunk of 4 EB": (precomputed, _scale(size=[10**6] * 3, chunk_sizes=[[10**6] * 3])),
    "precomputed, no such scale": (precomputed, _scale(key="../elsewhere")),
    "precomputed, nested deep": (precomputed, lambda p: (p / "info").write_text(DEEP)),
    "WEBKNOSSOS, 10^24 chunks": (Path, _layer(boundingBox={"topLeft": [0] * 3, "width": 10**9, "height": 10**9, "depth": 10**9})),
    "WEBKNOSSOS, negative box": (Path, _layer(boundingBox={"topLeft": [-8, 0, 0], "width": 8, "height": 8, "depth": 8})),
    "WEBKNOSSOS, no magnification": (Path, _layer(mags=[{"mag": [0, 0, 0]}])),
    "WEBKNOSSOS, a name that leads out": (Path, _layer(name="../seg")),
    "WEBKNOSSOS, nested deep": (_folder, lambda p: (p / PROPERTIES).write_text(DEEP)),
}  # fmt: skip


@pytest.mark.parametrize(("make", "spoil"), OTHERS.values(), ids=OTHERS)
def test_absurd_metadata_of_other_containers_are_refused(
    tmp_path: Path, make: Any, spoil: Callable[[Path], Any]
) -> None:
    path = make(tmp_path / "a")
    spoil(path)
    with pytest.raises((SourceError, SpecError)) as caught:
        ingest(path, tmp_path / "b.zarr")
    assert str(path) in str(caught.value)
    assert "holds no labels" not in str(caught.value)
