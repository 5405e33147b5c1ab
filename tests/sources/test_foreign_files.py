"""Files that lie among chunks under names that no chunk has are named, and not taken for chunks that were never written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest

from simexm.errors import SourceError
from simexm.geometry.grid import Box
from simexm.sources.base import ZarrSource
from simexm.sources.opening import open_stack
from tests.sources.containers import A, n5, precomputed, zarr_array
from tests.sources.volumes import whole


def _v2(path: Path) -> Path:
    return zarr_array(path)


def _v2_folders(path: Path) -> Path:
    return zarr_array(path, chunk_key_encoding={"name": "v2", "separator": "/"})


def _v3(path: Path) -> Path:
    return zarr_array(path, zarr_format=3)


def _n5(path: Path) -> Path:
    n5(path.with_name("root.n5"), "a", {})
    return path.with_name("root.n5") / "a"


def _sharded(path: Path) -> Path:
    sharding = {
        "@type": "neuroglancer_uint64_sharded_v1", "hash": "identity", "preshift_bits": 0, "minishard_bits": 1, "shard_bits": 1,
        "data_encoding": "gzip", "minishard_index_encoding": "gzip",
    }  # fmt: skip
    return precomputed(path, sharding=sharding)


def _wkw(path: Path) -> Path:
    wkw = pytest.importorskip("wkw")  # has no wheel for Linux on ARM
    data = wkw.Dataset.create(str(path), wkw.Header(np.uint32, block_len=8, file_len=2))
    data.write((0, 0, 0), np.asfortranarray(A.T))
    return path


def _rename(old: str, new: str) -> Callable[[Path], object]:
    def spoil(path: Path) -> None:
        (path / new).parent.mkdir(parents=True, exist_ok=True)
        (path / old).rename(path / new)

    return spoil


def _lose_separator(path: Path) -> None:
    metadata = json.loads((path / ".zarray").read_text())
    del metadata["dimension_separator"]
    (path / ".zarray").write_text(json.dumps(metadata))


STRANGERS: dict[str, tuple[Callable[[Path], Path], Callable[[Path], object], str]] = {
    "Zarr v2, separator lost": (_v2_folders, _lose_separator, r'0/0/0.*"dimension_separator": "/"'),
    "Zarr v2, one in folders": (_v2, _rename("0.0.1", "0/0/1"), "0/0/1"),
    "Zarr v2, compressed": (_v2, _rename("0.1.1", "0.1.1.gz"), r"0\.1\.1\.gz"),
    "Zarr v2, copied by a browser": (_v2, _rename("0.1.1", "0.1.1 (1)"), r"0\.1\.1 \(1\)"),
    "Zarr v2, beyond the shape": (_v2, _rename("0.1.1", "1.0.0"), r"1\.0\.0"),
    "Zarr v2 in folders, flat": (_v2_folders, _rename("0/1/1", "0.1.1"), r'0\.1\.1.*"dimension_separator": "\."'),
    "Zarr v3, without c": (_v3, _rename("c/0/1/1", "0/1/1"), "0/1/1"),
    "Zarr v3, flat": (_v3, _rename("c/0/1/1", "c.0.1.1"), r'c\.0\.1\.1.*separator.*"\."'),
    "N5, flat": (_n5, _rename("0/1/0", "0.1.0"), r"0\.1\.0"),
    "N5, compressed": (_n5, _rename("0/1/0", "0/1/0.gz"), r"0/1/0\.gz"),
    "precomputed, other name": (precomputed, _rename("s/0-8_0-8_0-4", "s/0-8_0-8_0-5"), "0-8_0-8_0-5"),
    "precomputed, packed twice": (
        precomputed, lambda p: shutil.copy(p / "s/0-8_0-8_0-4", p / "s/0-8_0-8_0-4.br"), r"0-8_0-8_0-4\.br.*keep the newer"
    ),
    "precomputed, sharded": (_sharded, _rename("s/0.shard", "s/00.shard"), r"00\.shard"),
    "WKW": (_wkw, _rename("z0/y0/x1.wkw", "z0/y0/x1.wkw.bak"), r"x1\.wkw\.bak"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "spoil", "named"), STRANGERS.values(), ids=STRANGERS)
def test_a_file_that_is_no_chunk_is_named(tmp_path: Path, make: Any, spoil: Any, named: str) -> None:
    path = make(tmp_path / "a")
    np.testing.assert_array_equal(whole(open_stack(str(path)))[: A.shape[0], : A.shape[1], : A.shape[2]], A)
    spoil(path)
    with pytest.raises(SourceError, match=named):
        open_stack(str(path))
    if path.name == "a" and (path / ".zarray").exists():
        with pytest.raises(SourceError, match=named):
            ZarrSource(path=str(path), voxel_size_nm=(40, 8, 4)).open()


def test_what_file_managers_and_broken_writers_leave_is_no_chunk(tmp_path: Path) -> None:
    path = _v3(tmp_path / "a")
    for name in (".DS_Store", "Thumbs.db", "c/.nfs0001", "c/0/0/0.1b2c.partial", "README.md"):
        (path / name).write_text("x")
    np.testing.assert_array_equal(whole(open_stack(str(path))), A)


PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": lambda data: bytes(imagecodecs.gzip_encode(data)),
    ".br": lambda data: bytes(imagecodecs.brotli_encode(data)),
    ".zstd": lambda data: bytes(imagecodecs.zstd_encode(data)),
    "": lambda data: bytes(imagecodecs.gzip_encode(data)),
}


@pytest.mark.parametrize("encoding", ["raw", "compressed_segmentation"])
@pytest.mark.parametrize(("suffix", "pack"), PACKINGS.items(), ids=["gz", "br", "zstd", "gz under its own name"])
@pytest.mark.parametrize("share", [1, 2], ids=["all", "half"])
def test_chunks_that_were_compressed_as_a_whole(
    tmp_path: Path, encoding: str, suffix: str, pack: Any, share: int
) -> None:
    path = precomputed(tmp_path / "a", encoding, voxel_offset=[8, -3, 2])
    for chunk in sorted((path / "s").iterdir())[::share]:
        data = pack(chunk.read_bytes())
        chunk.unlink()
        chunk.with_name(chunk.name + suffix).write_bytes(data)
    stack = open_stack(str(path))
    np.testing.assert_array_equal(whole(stack), A)
    box = Box((1, 3, 5), (5, 13, 20))
    np.testing.assert_array_equal(stack.read(box), A[box.slices])


@pytest.mark.parametrize(
    "spoil", [lambda d: d[: len(d) // 2], lambda _: bytes(imagecodecs.gzip_encode(bytes(2**24)))], ids=["cut", "bomb"]
)
def test_a_packed_chunk_that_is_damaged_is_named(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    path = precomputed(tmp_path / "a")
    chunk = path / "s/0-8_0-8_0-4"
    data = bytes(imagecodecs.gzip_encode(chunk.read_bytes()))
    chunk.unlink()
    chunk.with_name(chunk.name + ".gz").write_bytes(spoil(data))
    with pytest.raises(SourceError, match=r"0-8_0-8_0-4\.gz cannot be unpacked"):
        whole(open_stack(str(path)))


@pytest.mark.parametrize("make", [_n5, precomputed, _wkw], ids=["N5", "precomputed", "WKW"])
def test_a_volume_that_vanishes_is_no_volume_of_zeros(tmp_path: Path, make: Any) -> None:
    path = make(tmp_path / "a")
    stack = open_stack(str(path))
    path.rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError):  # of which `ingest` makes a message
        whole(stack)


def test_an_image_is_no_segmentation(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match='"type": "image"'):
        open_stack(str(precomputed(tmp_path / "a", kind="image", a=A.astype(np.uint8))))
    path = precomputed(tmp_path / "b")
    info = json.loads((path / "info").read_text())
    info["scales"][0]["encoding"] = "crackle"
    (path / "info").write_text(json.dumps(info))
    with pytest.raises(SourceError, match="encoded by 'crackle'"):
        open_stack(str(path))
