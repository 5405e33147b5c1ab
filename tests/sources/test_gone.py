"""A chunk that is missing is a chunk of zeros only while the store itself says so; whatever vanishes or changes is noticed."""

from __future__ import annotations

import errno
import itertools
import os
import re
import shutil
import threading
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

import h5py  # type: ignore[import-untyped]
import numpy as np
import pytest
import tensorstore as ts
import tifffile
import zarr
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from simexm.errors import GoneError, SourceError, SourceGoneError
from simexm.geometry.grid import Box, exact3
from simexm.ingestion.ingest import ingest
from simexm.sources.base import ZarrSource, open_source
from simexm.sources.state import FilesState
from simexm.sources.zarr.source import ZarrLabels
from simexm.store.reading import Reader
from simexm.store.shard_list import ShardList, chunk_position
from tests.sources.volumes import write_slices

SHAPE = (8, 40, 800)
WHOLE = Box.of_shape(SHAPE)
SIZE = exact3((40, 32, 32))


def _ids() -> NDArray[np.uint32]:
    """Ids without a zero but for x = 256 to 511, which is a shard of its own."""
    a = np.random.default_rng(3).integers(1, 1000, SHAPE, dtype=np.uint32)
    a[:, :, 256:512] = 0
    return a


IDS = _ids()


def _zarr(path: Path, a: NDArray[Any] = IDS, zarr_format: Literal[2, 3] = 3, separator: str = "/", **how: Any) -> Path:
    encoding: Any = {"name": "default" if zarr_format == 3 else "v2", "separator": separator}
    array = zarr.create_array(
        path, shape=a.shape, dtype=a.dtype, zarr_format=zarr_format, chunk_key_encoding=encoding, **{"chunks": (8, 8, 128), **how}
    )  # fmt: skip
    array[...] = a
    return path


KINDS: dict[str, dict[str, Any]] = {
    "version 3": {},
    "version 3, dots": {"separator": "."},
    "version 2": {"zarr_format": 2, "separator": "."},
    "version 2, folders": {"zarr_format": 2},
    "sharded by others": {"shards": (8, 40, 256), "compressors": zarr.codecs.BloscCodec()},
    "sharded like ours": {"shards": (8, 40, 256), "compressors": zarr.codecs.ZstdCodec(level=1)},
}


def _open(path: Path) -> ZarrLabels:
    found = ZarrSource(path=str(path), voxel_size_nm=(40, 32, 32)).open()
    assert isinstance(found, ZarrLabels)
    return found


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labels with a mask, of four shards each, of which the second is empty and has no file; and coarser levels."""
    folder = tmp_path_factory.mktemp("ingested")
    _zarr(folder / "ids")
    _zarr(folder / "mask", (IDS % 2).astype(np.uint8))
    ingest(str(folder / "ids"), folder / "a.zarr", SIZE, regions={"odd": folder / "mask"})
    assert sorted(p.name for p in (folder / "a.zarr/0/c/0/0").iterdir()) == ["0", "2", "3"]
    return folder / "a.zarr"


@pytest.mark.parametrize("how", KINDS.values(), ids=KINDS)
def test_an_array_that_vanishes_is_not_zeros(tmp_path: Path, how: dict[str, Any]) -> None:
    """Chunks that were never written stay zeros; without the array none is; and it goes on when the array is back."""
    source = _open(_zarr(tmp_path / "a", **how))
    empty = Box((0, 0, 256), (8, 40, 512))
    assert not source.read(empty).any()
    (tmp_path / "a").rename(tmp_path / "away")
    for box in (WHOLE, Box((0, 0, 600), (1, 9, 700))):
        with pytest.raises(SourceGoneError, match=r"is gone: .*same command again") as told:
            source.read(box)
        assert told.value.exit_code == 1
    (tmp_path / "a").mkdir()  # as an empty mount point
    with pytest.raises(SourceGoneError):
        source.read(WHOLE)
    (tmp_path / "a").rmdir()
    (tmp_path / "away").rename(tmp_path / "a")
    np.testing.assert_array_equal(source.read(WHOLE), IDS)


def test_a_mask_that_vanishes_is_not_zeros(tmp_path: Path) -> None:
    _zarr(tmp_path / "a")
    _zarr(tmp_path / "m", (IDS % 2).astype(np.uint8))
    source = ZarrSource(
        path=str(tmp_path / "a"), voxel_size_nm=(40, 32, 32), regions={"odd": str(tmp_path / "m")}
    ).open()
    (tmp_path / "m").rename(tmp_path / "away")
    with pytest.raises(SourceGoneError, match=r"/m.* is gone"):
        source.read_field("odd", WHOLE)
    np.testing.assert_array_equal(source.read(WHOLE), IDS)


READERS: dict[str, Callable[[ZarrLabels], Any]] = {
    "0": lambda source: source.read(WHOLE),
    "odd/0": lambda source: source.read_field("odd", WHOLE),
    "1": lambda source: source.coarser[0].read(Box.of_shape(source.coarser[0].shape)),
    "2": lambda source: source.coarser[1].read(Box.of_shape(source.coarser[1].shape)),
}


@pytest.mark.parametrize("array", READERS)
def test_a_shard_that_ingest_wrote_must_be_there(ingested: Path, tmp_path: Path, array: str) -> None:
    copy = Path(shutil.copytree(ingested, tmp_path / "a.zarr"))
    source = open_source(copy)
    assert isinstance(source, ZarrLabels)
    READERS[array](source)
    shutil.rmtree(copy / array / "c")
    source = open_source(copy)
    assert isinstance(source, ZarrLabels)
    with pytest.raises(SourceError, match=r"was written, but is not there any more: .*/c/0/0/0"):
        READERS[array](source)


def test_the_list_of_shards_counts_in_identity_and_is_checked(ingested: Path, tmp_path: Path) -> None:
    mark: dict[str, Any] = dict(zarr.open_group(ingested, mode="r").attrs["simexm"])  # type: ignore[arg-type]
    identity = open_source(ingested).identity
    copy = Path(shutil.copytree(ingested, tmp_path / "a.zarr"))

    def put(**changes: Any) -> None:
        kept = {k: v for k, v in {**mark, **changes}.items() if v is not None}
        zarr.open_group(copy, mode="r+").update_attributes({"simexm": kept})

    none = ShardList.empty((0, 0, 0), (1, 1, 4)).to_text()
    for changes in (
        {"shards": {**mark["shards"], "0": none}}, {"shards": {**mark["shards"], "0": "?"}}, {"shards": None},
        {"shards_digest": "0"}, {"digest": "0"}, {"shards_digest": None}, {"shards": 7},
    ):  # fmt: skip
        put(**changes)
        with pytest.raises(SourceError, match=r"list of its shards .* is damaged"):
            open_source(copy)
    put(shards=None, shards_digest=None)  # as earlier versions left it
    np.testing.assert_array_equal(open_source(copy).read(WHOLE), IDS)
    assert open_source(copy).identity != identity
    put()
    assert open_source(copy).identity == identity


@given(st.data())
def test_a_list_of_shards_holds_what_was_put_in(data: st.DataObject) -> None:
    axes = data.draw(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 5)), min_size=1, max_size=4))
    first, counts = zip(*axes, strict=True)
    every = list(itertools.product(*(range(a, a + n) for a, n in axes)))
    chosen = set(data.draw(st.lists(st.sampled_from(every))))
    found = ShardList.empty(first, counts)
    for position in chosen:
        found.add(position)
    assert {p for p in every if p in found} == chosen
    assert tuple(a + n for a, n in axes) not in found
    again = ShardList.from_text(counts, found.to_text())
    assert {
        tuple(p + a for p, a in zip(q, first, strict=True))
        for q in itertools.product(*map(range, counts))
        if q in again
    } == chosen
    with pytest.raises(ValueError, match="shards"):
        ShardList.from_text((*counts, 9), found.to_text())


@pytest.mark.parametrize(
    ("name", "position"),
    [
        ("c/0/1/2", (0, 1, 2)),
        ("c.0.12", (0, 12)),
        ("3.4", (3, 4)),
        ("3/4", (3, 4)),
        ("zarr.json", ()),
        ("c", ()),
        ("1.x", ()),
    ],
)
def test_a_chunks_position_is_told_by_its_name(name: str, position: tuple[int, ...]) -> None:
    assert chunk_position(name) == position


def _change(path: Path) -> None:
    path.write_bytes(path.read_bytes()[::-1])


CHANGES: dict[str, Callable[[Path], Any]] = {
    "deleted": Path.unlink,
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"x"),
    "edited": _change,
    "touched": lambda path: os.utime(path, (1, 1)),
}


def _state(source: ZarrLabels, box: Box) -> FilesState:
    return source.state(box, ())[""]


@pytest.mark.parametrize("how", KINDS.values(), ids=KINDS)
def test_the_state_follows_every_file_of_the_box_and_no_other(tmp_path: Path, how: dict[str, Any]) -> None:
    source = _open(_zarr(tmp_path / "a", **how))
    box = Box((0, 0, 520), (8, 40, 530))  # of the third shard, or the fifth chunk
    before = _state(source, box)
    files = [
        p
        for p in (tmp_path / "a").rglob("*")
        if p.is_file() and chunk_position(p.relative_to(tmp_path / "a").as_posix())
    ]
    inside = {
        p for p in files if chunk_position(p.relative_to(tmp_path / "a").as_posix())[2] == (2 if "shards" in how else 4)
    }
    assert 0 < len(inside) == before.files < len(files)
    assert before.listed is not None
    assert all(
        (chunk_position(p.relative_to(tmp_path / "a").as_posix()) in before.listed) == (p in inside) for p in files
    )
    for path in set(files) - inside:
        path.unlink()
    (tmp_path / "a" / ".hidden").touch()
    (tmp_path / "a" / "notes.txt").touch()
    assert _state(source, box) == before
    for n, change in enumerate(CHANGES.values()):
        copy = Path(shutil.copytree(tmp_path / "a", tmp_path / f"{n}"))
        source = _open(copy)
        before = _state(source, box)
        change(copy / max(inside).relative_to(tmp_path / "a"))
        assert _state(source, box) != before
    shutil.rmtree(copy)
    with pytest.raises(SourceError):
        source.state(box, ())


def test_files_that_existed_before_must_be_there(tmp_path: Path) -> None:
    """What ingest did not write has no list of its own: a run makes one when it begins."""
    source = _open(_zarr(tmp_path / "a"))
    state = _state(source, WHOLE)
    assert state.listed is not None
    shutil.rmtree(tmp_path / "a/c/0/1")
    assert not source.read(Box((0, 8, 0), (8, 16, 128))).any()  # nobody can know
    expecting = _open(tmp_path / "a").expecting({"": state.listed})
    with pytest.raises(SourceError, match=r"was written, but is not there any more"):
        expecting.read(Box((0, 8, 0), (8, 16, 128)))
    assert not expecting.read(Box((0, 0, 256), (8, 8, 512))).any()


def test_other_readers_of_arrays_notice_it_too(tmp_path: Path) -> None:
    for n, how in enumerate(KINDS.values()):
        path = _zarr(tmp_path / f"{n}", **how)
        reader = Reader.of(zarr.open_array(path, mode="r"))
        path.rename(tmp_path / "away")
        with pytest.raises(GoneError) as told:
            reader.read(WHOLE)
        assert told.value.errno == errno.ENOENT
        shutil.rmtree(tmp_path / "away")


class _Ranges(SimpleHTTPRequestHandler):
    """Sends parts of files, as the web servers do that Zarrs are read from."""

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        data, part = path.read_bytes(), re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if part:
            first = int(part[1]) if part[1] else max(0, len(data) - int(part[2]))
            data = data[first : int(part[2]) + 1 if part[1] and part[2] else None]
        self.send_response(206 if part else 200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@pytest.mark.filterwarnings("ignore:.*:ResourceWarning")
def test_a_web_server_that_has_it_no_more_is_no_proof_of_zeros(ingested: Path, tmp_path: Path) -> None:
    """It tells nobody what is in a folder; but the list that ingest left is read from it."""
    shutil.copytree(ingested, tmp_path / "a.zarr")
    _zarr(tmp_path / "b")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Ranges, directory=tmp_path)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_port}"
            own = open_source(f"{url}/a.zarr")
            other = ZarrSource(path=f"{url}/b", voxel_size_nm=(40, 32, 32)).open()
            np.testing.assert_array_equal(own.read(WHOLE), IDS)
            assert not other.read(Box((0, 0, 256), (8, 8, 384))).any()
            assert other.state(WHOLE, ()) == {}
            (tmp_path / "a.zarr/0/c/0/0/2").unlink()
            with pytest.raises(SourceError, match="was written, but is not there any more"):
                open_source(f"{url}/a.zarr").read(WHOLE)
            shutil.rmtree(tmp_path / "b")
            with pytest.raises(SourceGoneError, match="is gone"):
                other.read(WHOLE)
        finally:
            server.shutdown()
            thread.join()


# Ingest


def _n5(path: Path) -> Path:
    z, y, x = SHAPE
    metadata = {
        "dataType": "uint32",
        "dimensions": [x, y, z],
        "blockSize": [128, 40, 8],
        "compression": {"type": "gzip"},
    }
    kvstore = {"driver": "file", "path": str(path)}
    ts.open({"driver": "n5", "kvstore": kvstore, "metadata": metadata, "create": True}).result()[...] = IDS.T
    return path


def _precomputed(path: Path) -> Path:
    z, y, x = SHAPE
    scale = {"size": [x, y, z], "chunk_size": [128, 40, 8], "encoding": "raw", "resolution": [32, 32, 40]}
    multiscale = {"type": "segmentation", "data_type": "uint32", "num_channels": 1}
    spec = {
        "driver": "neuroglancer_precomputed", "kvstore": {"driver": "file", "path": str(path)}, "create": True,
        "multiscale_metadata": multiscale, "scale_metadata": scale,
    }  # fmt: skip
    ts.open(spec).result()[...] = IDS.T[..., None]
    return path


def _hdf5(path: Path) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset("ids", data=IDS, chunks=(8, 40, 128))
    return path


def _tiff(path: Path, **how: Any) -> Path:
    tifffile.imwrite(path, IDS, **how)
    return path


SOURCES: dict[str, Callable[[Path], Path]] = {
    "Zarr": _zarr,
    "Zarr of one file a shard": lambda path: _zarr(path, **KINDS["sharded like ours"]),
    "N5": _n5,
    "precomputed": _precomputed,
    "HDF5": _hdf5,
    "slices": lambda path: write_slices(path, IDS.astype(np.uint16)),
    "TIFF": _tiff,
    "TIFF, compressed": lambda path: _tiff(path, compression="zlib"),
}


@pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES)
def test_ingest_of_a_source_that_vanishes_leaves_nothing(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    """Whenever that is; and when it is back the same command does it."""
    source = make(tmp_path / "source")

    def vanish(done: int, total: int) -> None:
        if source.exists():
            source.rename(tmp_path / "away")

    with pytest.raises(SourceGoneError, match=r"(?s)(cannot be read any more|is gone).*same command again") as told:
        ingest(str(source), tmp_path / "a.zarr", SIZE, workers=1, progress=vanish)
    assert told.value.exit_code == 1
    assert [p.name for p in tmp_path.iterdir()] == ["away"]
    (tmp_path / "away").rename(source)
    ingest(str(source), tmp_path / "a.zarr", SIZE, workers=1)
    np.testing.assert_array_equal(open_source(tmp_path / "a.zarr").read(WHOLE), IDS)


@pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES)
def test_ingest_of_a_source_that_is_changed_leaves_nothing(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    source = make(tmp_path / "source")

    def change(done: int, total: int) -> None:
        if done == total:
            files = [source] if source.is_file() else [p for p in source.rglob("*") if p.is_file()]
            os.utime(max(files, key=lambda p: p.stat().st_size), (1, 1))

    with pytest.raises(SourceGoneError, match=r"was changed while it was read.*same command again"):
        ingest(str(source), tmp_path / "a.zarr", SIZE, workers=1, progress=change)
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


def test_parts_of_a_virtual_data_set_must_be_there(tmp_path: Path) -> None:
    """HDF5 itself takes what is in a missing file for fill values."""
    layout = h5py.VirtualLayout((2, *SHAPE[1:]), "u4")
    for n in range(2):
        with h5py.File(tmp_path / f"part{n}.h5", "w") as file:
            file["ids"] = IDS[n]
        layout[n] = h5py.VirtualSource(f"part{n}.h5", "ids", shape=SHAPE[1:])
    with h5py.File(tmp_path / "all.h5", "w") as file:
        file.create_virtual_dataset("ids", layout)
    ingest(tmp_path / "all.h5", tmp_path / "a.zarr", SIZE)
    np.testing.assert_array_equal(open_source(tmp_path / "a.zarr").read(Box.of_shape((2, *SHAPE[1:]))), IDS[:2])
    (tmp_path / "part1.h5").unlink()
    with pytest.raises(SourceError, match=r"part1\.h5 is missing"):
        ingest(tmp_path / "all.h5", tmp_path / "b.zarr", SIZE)
