"""Make job scripts from the cluster file, with every value quoted, by options of dask-jobqueue."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import distributed

from simexm.errors import SpecError
from simexm.jobs.batch import options
from simexm.jobs.batch.cluster_file import BatchFile, LsfFile, SlurmFile
from simexm.jobs.local_cluster import CONFIG, ENVIRONMENT
from simexm.jobs.task import JOB_END

_AUTO = "auto"
# Prints the node's address on the route to the driver; nothing is sent.
_OWN_ADDRESS = (
    "import socket, sys; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); "
    "s.connect((sys.argv[1], 9)); print(s.getsockname()[0])"
)


def job_options(file: BatchFile, name: str, folder: Path, credentials: Mapping[str, Path]) -> dict[str, Any]:
    """Make the arguments of dask-jobqueue's class for the jobs of workers, with their output in `folder`.

    `credentials` are the files of certificates by Dask's setting.
    """
    auto = file.interface == _AUTO
    worker_words = ["--preload", "simexm.jobs.task", "--worker-class", "simexm.jobs.nodes.Worker"]
    if auto:
        worker_words += ["--host", '"$SIMEXM_HOST"']
    made = {
        **_common(file, name, folder / "%j.out" if isinstance(file, SlurmFile) else folder / "%J.out"),
        "queue": _quoted(file.queue),
        "walltime": file.walltime,
        "cores": file.workers,
        "processes": file.workers,
        "memory": f"{file.workers * file.memory_per_worker} B",
        "interface": None if auto else shlex.quote(file.interface),
        "protocol": "tls://" if file.tls else "tcp://",
        "death_timeout": file.death_timeout_s,
        "worker_extra_args": worker_words,
        "job_script_prologue": [*_environment(file, credentials), *file.prologue],
    }
    if "local_directory" in file.options:
        made["local_directory"] = shlex.quote(str(file.options["local_directory"]))
    made["job_extra_directives"] = [*made["job_extra_directives"], *([file.gpu] if file.gpu else ()), *file.directives]
    cores = file.workers * file.cores_per_worker
    return {**made, ("job_cpu" if isinstance(file, SlurmFile) else "ncpus"): cores}


def driver_options(file: BatchFile, name: str, folder: Path) -> dict[str, Any]:
    """Make the arguments of dask-jobqueue's class for the header of the driver's own job."""
    output = folder / ("driver-%j.out" if isinstance(file, SlurmFile) else "driver-%J.out")
    driver_walltime: str | None = getattr(file, "driver_walltime", None)
    return {
        **_common(file, name, output),
        "queue": _quoted(file.driver_queue or file.queue),
        "walltime": driver_walltime or file.walltime,
        "cores": 1,
        "processes": 1,
        "memory": f"{file.driver_memory} B",
        "job_script_prologue": list(file.prologue),
    }


def _common(file: BatchFile, name: str, output: Path) -> dict[str, Any]:
    if any(ord(c) < 32 or c in "\"'`$\\%" for c in str(output.parent)):
        raise SpecError(
            f"the path {output.parent} holds quotes or characters that job scripts cannot hold; choose another --output"
        )
    no_requeue = "--no-requeue" if isinstance(file, SlurmFile) else "-rn"  # the driver would not know a requeued job
    account = {"account": _quoted(file.account)} if isinstance(file, SlurmFile) else {}
    project = {"project": file.project} if isinstance(file, LsfFile) else {}  # dask-jobqueue quotes this one itself
    return {
        **options.with_skipped(file.kind, file.options),
        **account,
        **project,
        "job_name": name,
        "python": shlex.quote(file.python or sys.executable),
        "job_extra_directives": [f"-o {shlex.quote(str(output))}", no_requeue],
        "log_directory": None,
    }


def _environment(file: BatchFile, credentials: Mapping[str, Path]) -> list[str]:
    """Make the lines that set the workers' environment, and the time at which their job ends."""
    groups = ("distributed.worker.", "distributed.admin.", "distributed.diag")
    settings: dict[str, object] = {key: value for key, value in CONFIG.items() if key.startswith(groups)}
    if file.tls:
        settings |= {key: str(path) for key, path in credentials.items()}
        settings["distributed.comm.require-encryption"] = True
    named = {f"DASK_{k.replace('.', '__').replace('-', '_').upper()}": str(value) for k, value in settings.items()}
    lines = [f"export {JOB_END}=$(($(cut -d. -f1 /proc/uptime) + {file.walltime_s}))"]
    for key, value in {**ENVIRONMENT, "NUMBA_NUM_THREADS": "1", **named}.items():
        lines.append(f"export {key}={shlex.quote(value)}")
    return lines


def address_lines(python: str, scheduler: str, interface: str | None) -> list[str]:
    """Make the line that finds the node's address on the route to the driver; none if an interface is named."""
    if interface is not None:
        return []
    host = distributed.comm.addressing.get_address_host(scheduler) if "<" not in scheduler else "DRIVER"
    return [f"SIMEXM_HOST=$({python} -c {shlex.quote(_OWN_ADDRESS)} {shlex.quote(host)})"]


def driver_script(file: BatchFile, name: str, folder: Path, here: Path, words: Sequence[str]) -> str:
    """Make the job script that runs `simexm WORDS` in the folder `here`."""
    settings = driver_options(file, name, folder)
    job = options.cluster_class(file.kind).job_cls("tcp://unused:0", name=name, **settings)
    lines = [
        job.shebang,
        "",
        job.job_header,
        *file.prologue,
        f"cd {shlex.quote(str(here))}",
        f"exec {settings['python']} -m simexm.cli {shlex.join(words)}",
    ]
    return "\n".join(lines) + "\n"


def _quoted(text: str | None) -> str | None:
    return None if text is None else shlex.quote(text)
