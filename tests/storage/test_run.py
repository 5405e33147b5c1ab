"""A run from S3 to S3 is a run: the same bytes, resumed, verified, repaired, read."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import distributed
import numpy as np
import pytest
from typer.testing import CliRunner

from simexm.cli import app
from simexm.errors import OutputError, RunError, SourceError, SpecError
from simexm.export.export import export
from simexm.ingestion.ingest import ingest
from simexm.jobs.journal import Journal
from simexm.jobs.local_cluster import local_client
from simexm.jobs.lock import lock
from simexm.result.place import Place
from simexm.result.result import Result
from simexm.run import folders
from simexm.run.backend import Backend
from simexm.run.driver import carry_out
from simexm.run.output import begin
from simexm.run.repair import repair
from simexm.run.status import status
from simexm.run.verify import Verification
from simexm.sources.base import open_source
from simexm.store.claims import claim
from simexm.store.remote import Remote
from tests.run.conftest import VOXEL_NM
from tests.storage.conftest import contents, make_bucket, simulation

OWN_COURSE = ("run/journal/", "run/log.txt", "run/preview.png", "run/probe", "run/source.json")
"""What tells of a run's own course: hosts, seconds, times of the labels' files; and a picture, drawn by another library."""


@pytest.fixture(scope="package")
def client(server: str) -> Iterator[distributed.Client]:
    """Two worker processes, which know the server by their environment alone."""
    with local_client(2, dashboard=False) as client:
        yield client


@pytest.fixture(scope="package")
def here(labels: tuple[Path, Remote], tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A run from a disk to a disk."""
    return simulation(labels[0]).run(tmp_path_factory.mktemp("here") / "out.zarr", quiet=True)


@pytest.fixture(scope="package")
def there(labels: tuple[Path, Remote]) -> Result:
    """The same from S3 to S3."""
    return simulation(labels[1]).run(f"{make_bucket()}/runs/out.zarr", quiet=True)


def _told(result: Result) -> dict[str, bytes]:
    """All that must be the same, but the name of the source."""
    place = result.place
    found = {f"zarr/{k}": v for k, v in contents(place.zarr).items()}
    found |= {f"run/{k}": v for k, v in contents(place.run).items()}
    found = {k: v for k, v in found.items() if not k.startswith(OWN_COURSE)}
    for name in ("zarr/zarr.json", "run/plan.json"):
        whole = json.loads(found[name])
        spec = whole["spec"] if name.startswith("run") else whole["attributes"]["simexm"]["spec"]
        del spec["source"]
        found[name] = json.dumps(whole).encode()
    manifest = json.loads(found["run/files.json"])
    for group, name in (("zarr", "zarr.json"), ("run", "plan.json")):
        del manifest[group][name]
    del manifest["checksum"]  # of these two as well
    found["run/files.json"] = json.dumps(manifest).encode()
    return found


def test_ingest_writes_the_same_bytes(labels: tuple[Path, Remote]) -> None:
    here, there = map(contents, labels)
    assert here == there
    assert not [p for p in labels[1].parent.files() if ".partial" in str(p)]
    assert len({open_source(str(at)).identity for at in labels}) == 1
    assert [simulation(at).masks for at in labels] == [("synapse",), ("synapse",)]


def test_ingest_reads_what_is_there_and_replaces_only_its_own(labels: tuple[Path, Remote], bucket: Remote) -> None:
    target = f"{bucket}/copy.zarr"
    ingest(str(labels[1]), target)
    assert tuple(open_source(target).fields) == ("synapse",)
    with pytest.raises(OutputError, match=r"exists.*--overwrite"):
        ingest(str(labels[1]), target)
    ingest(str(labels[1]), target, overwrite=True)
    (bucket / "copy.zarr/mine/zarr.json").put(b"{}")
    with pytest.raises(OutputError, match="holds mine"):
        ingest(str(labels[1]), target, overwrite=True)
    assert (bucket / "copy.zarr/mine/zarr.json").is_file()


def test_an_ingest_that_fails_leaves_nothing(tif: Path, bucket: Remote) -> None:
    with pytest.raises(SourceError):
        ingest(tif, f"{bucket}/new.zarr", (40.0, 32.0, 32.0), roi="0:1,0:1,0:1")  # no cell
    assert not list(bucket.files())


def test_a_volume_that_ingest_did_not_write_is_known_by_its_content(
    labels: tuple[Path, Remote], bucket: Remote
) -> None:
    """The same on a disk and in a store, and another when a byte changes."""
    for name, data in contents(labels[0]).items():
        (bucket / "plain.zarr" / name).put(data if name != "zarr.json" else b'{"zarr_format": 3, "node_type": "group"}')
    source = {"path": f"{bucket}/plain.zarr/0", "voxel_size_nm": VOXEL_NM}
    first = simulation(f"{bucket}/plain.zarr/0").replace(source=source).source.open().identity
    local = simulation(labels[0]).replace(source={**source, "path": str(labels[0] / "0")}).source.open().identity
    assert first == local
    shard = next(p for p in (bucket / "plain.zarr/0").files() if p.name != "zarr.json")
    shard.put(shard.read_bytes()[:-1] + b"x")
    assert simulation(f"{bucket}/plain.zarr/0").replace(source=source).source.open().identity != first


def test_a_run_from_s3_to_s3_gives_the_bytes_of_a_local_one(here: Result, there: Result) -> None:
    local, remote = _told(here), _told(there)
    assert local.keys() == remote.keys()
    assert {k for k in local if local[k] != remote[k]} == set()
    assert not {k for k in contents(there.place.run) if k.startswith(("lock", "scratch", "probe"))}


def test_a_result_is_read_as_a_local_one(here: Result, there: Result, tmp_path: Path) -> None:
    again = Result.open(str(there.path))
    assert again.complete
    assert (again.levels(), again.label_names, again.channels) == (here.levels(), here.label_names, here.channels)
    np.testing.assert_array_equal(np.asarray(again.array()), np.asarray(here.array()))
    np.testing.assert_array_equal(np.asarray(again.dask(1)), np.asarray(here.array(1)))
    for table in ("cells", "emitters"):
        assert getattr(again, table)().equals(getattr(here, table)())
    for name, result in (("here", here), ("there", again)):
        export(result, tmp_path / name, "tiff", labels="merged")
    assert {k: len(v) for k, v in contents(tmp_path / "here").items()} == {
        k: len(v) for k, v in contents(tmp_path / "there").items()
    }
    assert status(str(there.path)).complete


@pytest.mark.slow
def test_commands_take_urls(there: Result, labels: tuple[Path, Remote], tmp_path: Path) -> None:
    def type_(*words: object) -> str:
        result = CliRunner().invoke(app, [str(w) for w in words])
        assert result.exit_code == 0, result.output
        return result.output

    assert "cell" in type_("info", there.path)
    assert "complete" in type_("status", there.path)
    assert "all as they were written" in type_("verify", there.path)
    type_("export", there.path, "-o", tmp_path / "files", "--format", "ome-tiff")
    type_("report", there.path, "--output", tmp_path / "report.html")
    assert "labelled cells" in (tmp_path / "report.html").read_text().lower()
    simulation(labels[1]).save(tmp_path / "spec.yaml")
    assert "blocks" in type_("plan", tmp_path / "spec.yaml")
    with pytest.raises(AssertionError, match="complete and with these parameters"):
        type_("run", tmp_path / "spec.yaml", "--output", there.path, "--quiet")


def test_no_secret_is_written_down(there: Result) -> None:
    secrets = [os.environ[k].encode() for k in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL")]
    found = {**contents(there.place.run), **contents(there.path)}
    assert [name for name, data in found.items() for secret in secrets if secret in data] == []


@pytest.mark.slow
def test_damage_is_found_and_only_it_is_made_again(there: Result, client: distributed.Client) -> None:
    before = {p: (p.stat(), p.read_bytes()) for p in [*there.path.files(), *there.place.tables.files()]}  # type: ignore[attr-defined]
    shards = sorted((p for p in before if "/c/" in str(p) and p.relative_to(there.path).parts[0] == "0"), key=str)
    flipped, gone = shards[0], shards[-1]
    data = flipped.read_bytes()
    flipped.put(data[:100] + bytes([data[100] ^ 1]) + data[101:])
    gone.unlink()
    table = there.place.tables / "cells.parquet"
    table.put(table.read_bytes()[:-1])  # type: ignore[attr-defined]
    found = Verification(Place.where(str(there.path)))
    assert {d.path for d in found} == {flipped, gone, table}
    told: list[Any] = []
    repair(str(there.path), told.append, client=client, quiet=True)
    assert {d.path for d in told} == {flipped, gone, table}
    assert {p: p.read_bytes() for p in before} == {p: data for p, (_, data) in before.items()}
    damaged = {d.block for d in told if d.block is not None}
    assert len(damaged) == 2
    assert not list(Verification(Place.where(str(there.path))))


def test_a_journal_in_a_store_merges_its_segments(bucket: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files do not follow the length of the run, and a second driver cannot slip in a segment of the same number."""
    monkeypatch.setattr("simexm.jobs.journal._MERGE_FILES", 4)
    claim(bucket / "scratch/mine")
    journal = Journal.open(bucket / "journal", "hash", bucket / "scratch/mine")
    for block in range(14):
        journal.append(block, attempt=1, host="here", seconds=1.0, result={})
        journal.commit()
    names = sorted(p.name for p in (bucket / "journal").iterdir())
    assert names == [
        "000000-000003.jsonl",
        "000004-000007.jsonl",
        "000008-000011.jsonl",
        "000012.jsonl",
        "000013.jsonl",
    ]
    again = Journal.open(bucket / "journal", "hash", bucket / "scratch/mine")
    assert sorted(r.block for r in again.records()) == list(range(14))
    for driver in (again, journal):
        driver.append(99, attempt=1, host="here", seconds=1.0, result={"of": id(driver)})
    again.commit()
    with pytest.raises(OutputError, match="cannot write the journal"):
        journal.commit()


def _journal(output: Remote) -> Remote:
    return cast(Remote, Place.where(output).journal)


def _driver(spec: Path, output: Remote) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "simexm.cli",
        "run",
        spec,
        "--output",
        output,
        "--workers",
        "2",
        "-q",
    ]
    return subprocess.Popen([str(c) for c in command], start_new_session=True, stderr=subprocess.DEVNULL)


@pytest.mark.slow
def test_a_killed_driver_is_resumed(
    here: Result, labels: tuple[Path, Remote], bucket: Remote, tmp_path: Path, client: distributed.Client
) -> None:
    """Killed with its workers in the middle; what the journal holds is not done again, and the bytes are the same."""
    output = bucket / "killed.zarr"
    simulation(labels[1]).save(tmp_path / "spec.yaml")
    driver = _driver(tmp_path / "spec.yaml", output)
    try:
        end_s = time.monotonic() + 120
        while not _journal(output).is_dir():
            assert driver.poll() is None
            assert time.monotonic() < end_s
            time.sleep(0.05)
        with pytest.raises(OutputError, match=rf"is held by process {driver.pid}"):
            simulation(labels[1]).run(str(output), client=client, quiet=True)
    finally:
        os.killpg(driver.pid, signal.SIGKILL)
        driver.wait()
    told = status(str(output))
    assert told.driver is not None
    assert not told.driver.alive
    assert not told.complete
    result = simulation(labels[1]).run(str(output), client=client, quiet=True)
    assert _told(result) == _told(here)
    mark = Place.where(output).mark()
    assert mark is not None
    records = list(Journal(_journal(output), mark["hash"]).records())
    lines = [line for p in _journal(output).files() if "levels" not in str(p) for line in p.read_bytes().splitlines()]
    assert (
        len(records) == len(lines) == json.loads((Place.where(output).run / "plan.json").read_text())["blocks"]["count"]
    )


@pytest.mark.slow
def test_workers_of_a_run_whose_claim_was_taken_write_nothing(
    labels: tuple[Path, Remote], bucket: Remote, client: distributed.Client
) -> None:
    """A claim is taken away while blocks are made: the run stops, and says why."""

    output = Place.at(bucket / "taken.zarr").claimed()
    made = simulation(labels[1]).plan()
    with lock(output.run / "lock"):
        begin(output, False, lambda: folders.prepare(made, output))
        other = output.claimed()
        folders.prepare(made, other)
        before = contents(output.zarr)
        with pytest.raises(RunError, match="another run has taken"):
            carry_out(made, output, Backend.of(made, client), quiet=True)
        assert contents(output.zarr) == before


@pytest.mark.parametrize(
    "missing", ["bucket", *(pytest.param(m, marks=pytest.mark.slow) for m in ("credentials", "write", "server"))]
)
def test_what_a_store_refuses_is_told_before_any_work(
    missing: str, labels: tuple[Path, Remote], bucket: Remote, tmp_path: Path
) -> None:
    simulation(labels[0]).save(tmp_path / "spec.yaml")
    output = {"bucket": "s3://no-such-bucket-here/out.zarr", "write": "https://127.0.0.1:9/out.zarr"}
    environment = {**os.environ, "AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null"}
    if missing == "server":
        environment["AWS_ENDPOINT_URL"] = "http://127.0.0.1:9"
    if missing == "credentials":
        del environment["AWS_ACCESS_KEY_ID"], environment["AWS_SECRET_ACCESS_KEY"]
    command = [sys.executable, "-m", "simexm.cli", "run", tmp_path / "spec.yaml", "--output"]
    command.append(output.get(missing, f"{bucket}/out.zarr"))
    done = subprocess.run([str(c) for c in command], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    expected = {
        "bucket": "there is no bucket s3://no-such-bucket-here; make it, or correct the name",
        "credentials": "no credentials were found",
        "write": "can be read, but not written to",
        "server": "the store cannot be reached",
    }
    assert expected[missing] in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(bucket.files())


def test_what_is_not_there_is_told(bucket: Remote) -> None:
    with pytest.raises(OutputError, match="does not exist"):
        Result.open(f"{bucket}/nothing.zarr")
    with pytest.raises(SpecError, match="holds no run"):
        status(f"{bucket}/nothing.zarr")
    with pytest.raises(OutputError, match="nothing to verify"):
        Verification(Place.where(f"{bucket}/nothing.zarr"))
    with pytest.raises(SourceError, match="no bucket s3://no-such-bucket-here"):
        simulation("s3://no-such-bucket-here/x.zarr").plan()
    with pytest.raises(SourceError, match="no Zarr at this URL"):
        simulation(f"{bucket}/nothing.zarr").plan()


def test_what_is_no_result_is_left_alone(labels: tuple[Path, Remote], bucket: Remote) -> None:
    (bucket / "mine.zarr/data").put(b"mine")
    (bucket / "other.run/data").put(b"mine")
    for name in ("mine.zarr", "other.zarr"):
        with pytest.raises(OutputError, match="left as it is"):
            simulation(labels[1]).run(f"{bucket}/{name}", overwrite=True, quiet=True)
    with pytest.raises(OutputError, match="is read from"):
        simulation(labels[1]).run(str(labels[1]), overwrite=True, quiet=True)
    assert sorted(p.read_bytes() for p in bucket.files()) == [b"mine", b"mine"]


@pytest.mark.slow
def test_overwrite_replaces_a_result_of_other_parameters(
    labels: tuple[Path, Remote], bucket: Remote, client: distributed.Client
) -> None:
    output = f"{bucket}/out.zarr"
    simulation(labels[1], crop={"offset": [0, 0, 0], "shape": [8, 24, 24]}).run(output, client=client, quiet=True)
    other = simulation(labels[1], seed=12, crop={"offset": [0, 0, 0], "shape": [8, 24, 24]})
    with pytest.raises(OutputError, match=r"other parameters.*--overwrite"):
        other.run(output, client=client, quiet=True)
    result = other.run(output, client=client, quiet=True, overwrite=True)
    assert result.provenance["seed"] == 12
    assert not list(Verification(result.place))
