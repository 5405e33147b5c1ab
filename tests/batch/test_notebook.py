"""`simexm.cluster` from Python: jobs that end at their walltime, what listens where, and how many jobs there are."""

from __future__ import annotations

import ssl
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import distributed
import psutil
import pytest

import simexm
from simexm.errors import OutputError
from simexm.jobs.clusters import jobs_of
from simexm.jobs.events import Event, WorkerLost
from simexm.jobs.executor import execute
from simexm.jobs.journal import Journal
from tests.batch.conftest import Lab, cluster_file, fingerprint, until

pytestmark = [
    pytest.mark.batch,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::simexm.errors.SimexmWarning"),
    pytest.mark.filterwarnings("ignore:.*:ResourceWarning"),
]


def test_three_lines(my_yaml: Path, reference: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with simexm.cluster(cluster_file(tmp_path), jobs=2) as client:
        result = simexm.Simulation.load(my_yaml).run("out.zarr", client=client, quiet=True)
    assert fingerprint(result.path) == reference


def test_nothing_listens_but_on_the_interface_and_strangers_are_refused(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with simexm.cluster(cluster_file(tmp_path), jobs=1) as client:
        until(lambda: len(cast(Any, client).nthreads()) == 2, 180, "both workers are there")
        mine = [psutil.Process()]
        workers = [p for p in psutil.process_iter(["cmdline"]) if _belongs(p, str(tmp_path), client)]
        assert workers
        listening = {
            c.laddr.ip for p in [*mine, *workers] for c in p.net_connections("inet") if c.status == psutil.CONN_LISTEN
        }
        assert listening == {"127.0.0.1"}
        address = _address_of(client)
        assert address.startswith("tls://127.0.0.1:")
        for stranger in (address.replace("tls://", "tcp://"), address):
            security = None if stranger.startswith("tcp") else cast(Any, distributed.Security).temporary()
            with pytest.raises((OSError, ssl.SSLError)):
                cast(Any, distributed.Client)(stranger, security=security, timeout="2s", set_as_default=False)
        jobs = tmp_path / "simexm-jobs"
        private = [*jobs.glob("tls*"), jobs / "dashboard.txt"]
        assert len(private) == 4
        assert {path.stat().st_mode & 0o777 for path in private} == {0o600}
        assert not [w for w in client.scheduler_info(n_workers=-1)["workers"].values() if "dashboard" in w["services"]]
        link = private[-1].read_text().strip()
        assert link == client.dashboard_link
        with urllib.request.urlopen(link, timeout=20) as page:
            assert page.status == 200
        for path in ("", "status", "sitemap.json"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen("/".join([*link.split("/")[:3], path]), timeout=20)
    assert not any(path.exists() for path in private)


def _address_of(client: distributed.Client) -> str:
    return str(cast(Any, client.scheduler).address)


def _belongs(process: psutil.Process, folder: str, client: distributed.Client) -> bool:
    """Whether a process is one of the job's: the worker's command, or a child of it."""
    try:
        family = [process, *process.parents()]
        return any(_address_of(client) in " ".join(p.cmdline()) for p in family)
    except psutil.Error:
        return False


def test_fewer_jobs_when_fewer_blocks_are_left(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with simexm.cluster(cluster_file(tmp_path), jobs=(1, 3)) as client:
        jobs = jobs_of(client)
        assert jobs is not None
        until(lambda: len(cast(Any, client).nthreads()) == 6, 180, "six workers in three jobs")
        until(lambda: not jobs.keep(3) and len(lab.queue()) == 2, 90, "two jobs of two workers for three blocks")
        until(lambda: not jobs.keep(0) and len(lab.queue()) == 1, 90, "one job at least")
        assert len(cast(Any, client).nthreads()) == 2


def sleep(folder: Path, block: int) -> Mapping[str, Any]:
    """A block that writes down that it was begun, and takes three seconds."""
    with (folder / "begun").open("a") as file:
        file.write(f"{block}\n")
    time.sleep(3)
    return {}


def test_jobs_that_reach_their_walltime_hand_back_and_are_replaced(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The least walltime is a minute; work for a third more. No block is begun twice, and no job is killed for its time."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{Path(__file__).parents[2]}")
    events: list[Event] = []
    file = cluster_file(tmp_path, "slurm", walltime="00:01:00")
    with simexm.cluster(file, jobs=2) as client:
        until(lambda: len(cast(Any, client).nthreads()) == 4, 180, "all workers are there")
        keep = jobs_of(client)
        assert keep is not None
        journal = Journal.open(tmp_path / "journal", "hash")
        outcome = execute(
            client=client, function=sleep, context=tmp_path, blocks=range(80), journal=journal,
            listeners=[events.append], keep=keep.keep,
        )  # fmt: skip
        used = {entry["id"] for entry in keep.record.jobs()}
    assert (outcome.done, outcome.failed_count) == (80, 0)
    begun = Counter((tmp_path / "begun").read_text().split())
    assert len(begun) == 80
    assert set(begun.values()) == {1}
    assert not [e for e in events if isinstance(e, WorkerLost)]
    assert len(used) >= 4, "both jobs were replaced"
    until(lambda: all(lab.ended(job) for job in used), 10, "all have ended")
    assert "TIMEOUT" not in {lab.ended(job) for job in used}


def test_second_cluster_in_one_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would cancel the first one's jobs as leftovers."""
    monkeypatch.chdir(tmp_path)
    cluster = simexm.cluster(cluster_file(tmp_path, workers=1), jobs=1)
    with cluster, pytest.raises(OutputError, match="held by"):
        simexm.cluster(cluster_file(tmp_path, workers=1), jobs=1).__enter__()
