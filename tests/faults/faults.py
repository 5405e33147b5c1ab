"""What the tests of faults share: the run that is disturbed, the faults, and what must hold after them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import distributed
from distributed.security import Security

from simexm.api import Simulation
from simexm.jobs.journal import Journal
from simexm.result.place import Place
from simexm.result.result import Result
from tests.model2017 import small_2017
from tests.run.conftest import fingerprint, spec

INJECT = Path(__file__).parent / "inject"
ROOT = Path(__file__).parents[2]


def simulation(**changes: Any) -> Simulation:
    """Sixteen blocks of a tenth of a second, with a table of emitters, and a level that no block owns."""
    source = {"kind": "phantom", "shape": (32, 140, 140)}
    return Simulation.from_mapping({**spec("x"), "source": source, "keep": ["emitters"], **changes})


def model_of_2017() -> Simulation:
    """A small run with passes before the images."""
    return Simulation.from_mapping({**small_2017(), "source": {"kind": "phantom", "shape": (20, 60, 60)}})


@dataclass(frozen=True)
class Fault:
    """What shall happen.

    Attributes
    ----------
    action
        `kill`, `stop` (SIGSTOP), `raise`, `memory` (take all there is), or the name of an error of the system.
    point
        `before block`, `after block`, `before publish` (a file is written, but has not its name yet), `after publish`.
    match
        Regular expression of the file's path, or of the function's name.
    block
        Only in this block.
    times
        How often, among all processes.
    """

    action: str
    point: str
    match: str = ""
    block: int | None = None
    times: int = 1


class Faults:
    """The folder through which processes under test are told what shall happen, and tell what did."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def clear(self) -> None:
        """Forget what was told."""
        for path in self.folder.iterdir():
            if not path.name.startswith("tls-"):
                path.unlink()

    def set(self, fault: Fault | None) -> None:
        """From now on, this shall happen."""
        if fault is None:
            (self.folder / "fault.json").unlink(missing_ok=True)
            return
        partial = self.folder / "fault.tmp"
        partial.write_text(json.dumps(asdict(fault)))
        partial.replace(self.folder / "fault.json")

    @property
    def fired(self) -> list[int]:
        """Processes in which it happened."""
        return [int(p.read_text() or 0) for p in sorted(self.folder.glob("fired-*"))]

    def begun(self, process: int | str = "*") -> Counter[int]:
        """How often each block was begun, by all processes or one."""
        return Counter(int(n) for n in self._lines(f"begun-{process}") if not n.startswith("pass"))

    def ended(self) -> list[str]:
        """A line for each block that came to its end: its number, and what it raised."""
        return self._lines("ended-*")

    def _lines(self, pattern: str) -> list[str]:
        return [line for p in self.folder.glob(pattern) for line in p.read_text().splitlines()]


def write_credentials(security: Security, folder: Path) -> None:
    """The certificate and key of a cluster, for processes that are to talk to it."""
    for name, text in security.get_tls_config_for_role("client").items():  # type: ignore[no-untyped-call]
        if text is not None:
            (folder / f"tls-{name}").write_text(text)


def environment(folder: Path) -> dict[str, str]:
    """Environment of processes in which faults may happen, and which have the credentials in the folder, if there are any."""
    tls = {"DASK_DISTRIBUTED__COMM__TLS__CA_FILE": str(folder / "tls-ca_file")}
    for role in ("CLIENT", "WORKER", "SCHEDULER"):
        tls |= {f"DASK_DISTRIBUTED__COMM__TLS__{role}__{k.upper()}": str(folder / f"tls-{k}") for k in ("cert", "key")}
    path = os.pathsep.join([str(INJECT), str(ROOT), os.environ.get("PYTHONPATH", "")])
    return {
        **os.environ,
        **(tls if (folder / "tls-key").exists() else {}),
        "SIMEXM_TEST_FAULTS": str(folder),
        "PYTHONPATH": path.rstrip(os.pathsep),
        "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "3s",  # before a scheduler counts as lost; usually 30 s
    }


def address_of(client: distributed.Client) -> str:
    """Of its scheduler."""
    return str(cast(Any, client.scheduler).address)


def start_driver(
    faults: Faults, spec: Path, output: Path, scheduler: str = "", *, overwrite: bool = False
) -> subprocess.Popen[str]:
    """A driver of its own, on the cluster with this scheduler, or in threads where none is named."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.faults.drive", spec, output, scheduler, overwrite]
    return subprocess.Popen(
        [str(c) for c in command], env=environment(faults.folder), cwd=ROOT, stderr=subprocess.PIPE, text=True
    )


def wait_until(true: Callable[[], bool], process: subprocess.Popen[Any] | None = None, seconds: float = 60) -> None:
    """Wait, but not for ever, nor for a process that has ended."""
    end_s = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end_s, "this should have happened by now"
        assert process is None or process.poll() is None, process and process.communicate()
        time.sleep(0.02)


def recorded(output: Path) -> dict[int, Any]:
    """What the journal tells of each block's files."""
    mark = Place(output).mark()
    assert mark is not None
    records = Journal(Place(output).journal, mark["hash"]).records()
    return {r.block: (r.result["stored"], r.result["tables"]) for r in records}


def all_bytes(result: Result) -> dict[str, Any]:
    """All that must be the same: Zarr, tables, plan, list of files, and what the journals tell of files."""
    run = {k: v for k, v in fingerprint(result.place.run).items() if "journal/" not in k}
    for name in ("log.txt", "preview.png"):  # they tell of the run's own course, and are drawn by another library
        run.pop(name, None)
    return {**{f"zarr/{k}": v for k, v in fingerprint(result.path).items()}, **run, "journal": recorded(result.path)}
