"""A folder of files obeys the same laws on a disk and in a store."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from simexm.errors import OutputError, SpecError
from simexm.geometry.grid import Box
from simexm.store.claims import claim, has_claim, retire_claims
from simexm.store.files import EMPTY, Files, Stored, append, checksum, measure, remove_tree, writing
from simexm.store.listing import files_below, presence, read_ahead, read_begin, scan
from simexm.store.location import from_text, location, refuse_url
from simexm.store.omezarr import ShardedArray
from simexm.store.reading import Reader
from simexm.store.refusals import RemoteError
from simexm.store.remote import Remote
from simexm.store.shards import GAP_BYTES, TAIL_BYTES
from tests.storage.conftest import PAGE


@pytest.fixture(params=["disk", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """An empty folder on a disk, and one in a bucket."""
    if request.param == "disk":
        return tmp_path
    bucket: Remote = request.getfixturevalue("bucket")
    return bucket / "a/b"


def _files(folder: Path) -> Files:
    files = Files(folder / "out", folder / "scratch/mine")
    claim(files.scratch)
    return files


def test_a_file_is_the_former_one_the_new_one_or_absent(folder: Path) -> None:
    files = _files(folder)
    path = files.root / "x/y"
    assert measure(path) == EMPTY
    for data in (b"first", b"second, and longer"):
        assert files.put("x/y", data) == Stored(len(data), checksum(data)) == measure(path)
        assert path.read_bytes() == data
        assert read_begin(path, 3) == data[:3]
    assert files.put("x/y", b"") == EMPTY == files.put("x/y", b"")
    assert not path.exists()
    with contextlib.suppress(ZeroDivisionError), writing(path, files.scratch) as partial:
        partial.write_bytes(b"half")
        raise ZeroDivisionError
    assert not path.exists()
    with writing(path, files.scratch) as partial:
        partial.write_bytes(b"whole")
    assert path.read_text() == "whole"


def test_whoever_lost_the_claim_changes_nothing(folder: Path) -> None:
    files = _files(folder)
    files.put("kept", b"as it was")
    assert has_claim(files.scratch)
    retire_claims(folder / "scratch")
    assert not has_claim(files.scratch)
    for key, data in (("kept", b"late"), ("kept", b""), ("new", b"late")):
        with pytest.raises(FileNotFoundError):
            files.put(key, data)
    with pytest.raises(FileNotFoundError), writing(files.root / "table", files.scratch) as partial:
        partial.write_bytes(b"late")
    assert {p.name: p.read_bytes() for p in files_below(files.root)} == {"kept": b"as it was"}


def test_listings_tell_what_is_there(folder: Path) -> None:
    files = _files(folder)
    names = [f"a/c/{z}/{y}/0" for z in range(3) for y in range(3)] + ["b/zarr.json"]
    for name in names:
        files.put(name, name.encode())
    is_there = presence(files.root / "a", files.root / "missing")
    assert all(is_there(str(files.root / n)) for n in names[:-1])
    assert not is_there(str(files.root / "a/c/3/0/0"))
    assert not is_there(str(files.root / "a/c/0"))
    assert sorted(str(p.relative_to(files.root)) for p in files_below(files.root)) == sorted(names)
    assert sorted(scan(files.root)) == [("a", None), ("b", None)]
    assert dict(scan(files.root / "b")) == {"zarr.json": len("b/zarr.json")}
    assert sorted(p.name for p in (files.root / "a/c").iterdir()) == ["0", "1", "2"]
    paths = [files.root / n for n in names]
    assert list(read_ahead(lambda p: p.read_text(), paths, folder)) == names
    remove_tree(files.root / "a")
    assert not (files.root / "a").exists()
    assert (files.root / "b/zarr.json").is_file()


def test_a_listing_of_many_pages_misses_nothing(bucket: Remote) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: (bucket / f"many/{n:04d}").put(b"x"), range(2 * PAGE + 3)))
    assert sorted(p.name for p in (bucket / "many").files()) == [f"{n:04d}" for n in range(2 * PAGE + 3)]


def test_one_only_of_many_makes_a_file(bucket: Remote) -> None:
    path = bucket / "lock"

    def make(n: int) -> bool:
        try:
            path.create(b"%d" % n)
        except FileExistsError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(make, range(24)))
    assert sum(made) == 1
    assert path.read_bytes() == b"%d" % made.index(True)
    path.create(path.read_bytes())  # as when an answer was lost


def test_a_version_is_replaced_once(bucket: Remote) -> None:
    path = bucket / "lock"
    first = path.create(b"1")
    second = path.replace_version(b"2", first)
    for version in (first, "0" * 32):
        with pytest.raises(FileExistsError):
            path.replace_version(b"3", version)
    assert path.read_bytes() == b"2"
    path.replace_version(b"4", second)
    path.unlink()
    with pytest.raises(OSError):
        path.replace_version(b"5", second)
    assert not path.exists()


def test_text_is_added_at_the_end(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    append(folder / "log.txt", "one\n")
    append(folder / "log.txt", "two\n")
    assert (folder / "log.txt").read_text() == "one\ntwo\n"


def test_names_of_urls_are_cut_as_those_of_paths_are() -> None:
    url, path = Remote("s3://bucket/a/b.zarr"), Path("/bucket/a/b.zarr")
    assert (url.name, url.stem, url.suffix) == (path.name, path.stem, path.suffix)
    acts: tuple[Callable[[Path], Path], ...] = (
        lambda p: p.parent,
        lambda p: p / "c/d",
        lambda p: p.with_suffix(".run"),
        lambda p: p.with_name("x"),
    )
    for act in acts:
        assert str(act(url)) == f"s3:/{act(path)}"
    assert [str(p) for p in url.parents] == ["s3://bucket/a", "s3://bucket"]
    assert str((url / "c/0").relative_to(url)) == "c/0"
    assert from_text(str(url)) == location("s3://bucket/a/b.zarr/") == url
    with pytest.raises(TypeError):  # or it would be taken for a folder named s3:
        os.fspath(url)


@pytest.mark.parametrize("long", [False, True], ids=["short index", "long index"])
def test_a_box_of_a_shard_is_read_by_ranges(bucket: Remote, monkeypatch: pytest.MonkeyPatch, long: bool) -> None:
    """Of large shards only the chunks that a box meets are fetched; bytes are as written."""
    side, chunk = (64, 4) if long else (64, 16)
    data = np.random.default_rng(1).integers(0, 2**32, (side, side, side), dtype=np.uint64)
    data[:16, :16] = 0
    files = _files(bucket)
    array = ShardedArray(files, "0", data.shape, data.shape, (chunk,) * 3, "uint64", "zyx")
    array.create()
    nbytes = array.write((0, 0, 0), data).nbytes
    fetched: list[int] = []
    read = Remote.read_ranges

    def counted(path: Remote, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        found = read(path, ranges)
        fetched.extend(map(len, found))
        return found

    monkeypatch.setattr(Remote, "read_ranges", counted)
    reader = Reader.of(array.open())
    assert reader.folder == files.root / "0"
    for box in (Box((0, 0, 0), (64, 64, 64)), Box((3, 17, 5), (40, 18, 64)), Box((0, 0, 0), (9, 9, 9))):
        fetched.clear()
        np.testing.assert_array_equal(reader.read(box), data[box.slices])
        index = side**3 // chunk**3 * 16
        assert sum(fetched) <= min(nbytes, box.size * 8 * 8 + 16 * GAP_BYTES) + TAIL_BYTES + index + 4
    assert sum(fetched) <= TAIL_BYTES + index + 4  # zeros
    files.put(array.key((0, 0, 0)), b"")
    assert not reader.read(Box((0, 0, 0), (9, 9, 9))).any()


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("s3://name:word@bucket/x.zarr", r"holds a name or password.*AWS_PROFILE"),
        ("nothing://bucket/x.zarr", r"no kind of storage nothing://"),
        ("gs://bucket/x.zarr", r"pip install gcsfs"),
    ],
)
def test_urls_that_lead_nowhere(url: str, told: str) -> None:
    if url.startswith("gs:") and importlib.util.find_spec("gcsfs"):
        pytest.skip("gcsfs is installed")
    with pytest.raises(SpecError, match=told) as caught:
        location(url)
    assert "word@" not in str(caught.value)


def test_a_store_that_refuses_is_told_by_url(server: str) -> None:
    missing = Remote("s3://there-is-no-such-bucket/x")
    with pytest.raises(RemoteError, match="no bucket s3://there-is-no-such-bucket"):
        missing.put(b"x")
    with pytest.raises(RemoteError, match="no bucket"):
        missing.read_bytes()


def test_a_url_is_no_folder_of_this_disk() -> None:
    for named in ("s3://bucket/files", Path("s3://bucket/files"), Path("gs:/x")):
        with pytest.raises(OutputError, match="is a URL, and this is written to a disk"):
            refuse_url(named)
        if isinstance(named, Path):
            with pytest.raises(SpecError, match=r"lost a slash.*: (s3://bucket/files|gs://x)"):
                location(named)
    refuse_url("a:b/c")
    refuse_url(Path("/tmp/s3:/x"))
