"""Laws of the journal: what was committed is read back, what was torn is not, and no two hashes mix."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simexm.errors import OutputError
from simexm.jobs import journal as module
from simexm.jobs.bitmap import Bitmap
from simexm.jobs.journal import Journal


def add(journal: Journal, *blocks: int, attempt: int = 1) -> None:
    for block in blocks:
        journal.append(block, attempt=attempt, host="here", seconds=0.5, result={"bytes": block})


def reopen(path: Path) -> Journal:
    return Journal.open(path, "hash")


def done(path: Path) -> set[int]:
    journal = reopen(path)
    blocks = {record.block for record in journal.records()}
    assert all(block in journal.done for block in blocks)
    assert len(journal.done) == len(blocks)
    return blocks


def test_committed_blocks_are_read_back(tmp_path: Path) -> None:
    journal = reopen(tmp_path)
    add(journal, 3, 1)
    journal.commit()
    add(journal, 2)
    journal.commit()
    (record,) = [r for r in reopen(tmp_path).records() if r.block == 3]
    assert (record.attempt, record.host, record.seconds, record.result) == (1, "here", 0.5, {"bytes": 3})
    assert done(tmp_path) == {1, 2, 3}


def test_block_counts_as_done_at_once_but_is_safe_after_commit(tmp_path: Path) -> None:
    journal = reopen(tmp_path)
    add(journal, 1)
    assert 1 in journal.done
    assert done(tmp_path) == set()
    journal.commit()
    assert done(tmp_path) == {1}


def test_segments_never_change(tmp_path: Path) -> None:
    journal = reopen(tmp_path)
    add(journal, 1)
    journal.commit()
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    later = reopen(tmp_path)
    add(later, 2)
    later.commit()
    later.commit()
    assert {path: path.read_bytes() for path in before} == before
    assert len(list(tmp_path.iterdir())) == 2


def test_last_record_of_a_block_wins(tmp_path: Path) -> None:
    for attempt in (1, 2, 3):
        journal = reopen(tmp_path)
        add(journal, 7, attempt=attempt)
        journal.commit()
    assert [record.attempt for record in reopen(tmp_path).records()] == [3]


@given(cut=st.integers(0, 400))
def test_torn_segment_loses_only_what_was_torn(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("journal")
    journal = reopen(path)
    add(journal, 0, 1)
    journal.commit()
    add(journal, 2, 3, 4)
    journal.commit()
    segment = path / "000001.jsonl"
    whole = segment.read_bytes()
    segment.write_bytes(whole[:cut])
    kept = {2 + i for i, end in enumerate(_line_ends(whole)) if end <= cut}
    assert done(path) == {0, 1} | kept
    resumed = reopen(path)
    add(resumed, 9)
    resumed.commit()
    assert done(path) == {0, 1, 9} | kept


def _line_ends(text: bytes) -> list[int]:
    """Offsets at which a line's JSON is whole, its newline not counted."""
    return [i for i, byte in enumerate(text) if byte == ord("\n")]


def test_unreadable_lines_are_counted(tmp_path: Path) -> None:
    (tmp_path / "000000.jsonl").write_bytes(b'{"block":1,"ha')
    (tmp_path / "000001.jsonl").write_bytes(b"[]\n\xff\n")
    assert reopen(tmp_path).unreadable == 3


def test_leftover_temporary_file_is_no_segment(tmp_path: Path) -> None:
    journal = reopen(tmp_path)
    add(journal, 1)
    journal.commit()
    (tmp_path / "000001.partial").write_bytes(b"half a li")
    assert done(tmp_path) == {1}
    assert [path.name for path in tmp_path.iterdir()] == ["000000.jsonl"]


def test_another_parameter_hash_is_refused(tmp_path: Path) -> None:
    journal = reopen(tmp_path)
    add(journal, 1)
    journal.commit()
    with pytest.raises(OutputError, match=r"other parameters.*--output"):
        Journal.open(tmp_path, "another")


def test_disk_that_cannot_be_written_keeps_the_lines(tmp_path: Path) -> None:
    journal = reopen(tmp_path / "journal")
    add(journal, 1)
    (tmp_path / "journal").rename(tmp_path / "away")
    with pytest.raises(OutputError, match="type the same command"):
        journal.commit()
    (tmp_path / "away").rename(tmp_path / "journal")
    journal.commit()
    assert done(tmp_path / "journal") == {1}


def test_merging_bounds_the_files_and_changes_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MERGE_FILES", 4)
    for block in range(23):
        journal = reopen(tmp_path)
        add(journal, block, block // 2)
        journal.commit()
    assert len(list(tmp_path.iterdir())) <= 23 // 4 + 4
    assert done(tmp_path) == set(range(23))


def test_merge_cut_off_at_any_point_changes_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MERGE_FILES", 3)
    journal = reopen(tmp_path)
    for block in range(2):
        add(journal, block)
        journal.commit()
    singles = {path: path.read_bytes() for path in tmp_path.iterdir()}
    add(journal, 2)
    journal.commit()
    assert [path.name for path in tmp_path.iterdir()] == ["000000-000002.jsonl"]
    for path, text in singles.items():  # as if the merged segment was there, but the old ones not yet removed
        path.write_bytes(text)
        assert sorted(record.block for record in reopen(tmp_path).records()) == [0, 1, 2]
    later = reopen(tmp_path)
    add(later, 3)
    later.commit()
    assert done(tmp_path) == {0, 1, 2, 3}


def test_lines_are_plain_json(tmp_path: Path) -> None:
    journal = reopen(tmp_path)
    add(journal, 5)
    journal.commit()
    (line,) = (tmp_path / "000000.jsonl").read_text().splitlines()
    assert json.loads(line).keys() == {"block", "hash", "attempt", "host", "seconds", "time", "result", "crc32c"}


@given(added=st.sets(st.integers(0, 300)), removed=st.sets(st.integers(0, 300)), stop=st.integers(0, 310))
def test_bitmap_is_a_set(added: set[int], removed: set[int], stop: int) -> None:
    bitmap = Bitmap()
    for number in [*added, *added]:
        bitmap.add(number)
    for number in removed:
        bitmap.discard(number)
    kept = added - removed
    assert len(bitmap) == len(kept)
    assert [n for n in range(310) if n in bitmap] == sorted(kept)
    assert list(bitmap.missing(stop)) == [n for n in range(stop) if n not in kept]
