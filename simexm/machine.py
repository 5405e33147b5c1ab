"""Limits of this machine: memory, CPUs, processes, open files."""

from __future__ import annotations

import contextlib
import math
import os
import resource
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from simexm.errors import RunError, SpecError
from simexm.units import size

_CGROUP = Path("/sys/fs/cgroup")
_PROC = Path("/proc/self")
MiB = 1 << 20
MACHINE = "this machine"
ADDRESS_BYTES = 1600 * MiB
"""Address space that a process reserves beyond its resident memory: libraries, thread stacks, BLAS buffers."""
DATA_BYTES = 1200 * MiB
"""The same for writable memory, which RLIMIT_DATA counts."""


@dataclass(frozen=True)
class MemoryLimit:
    """Bytes that a limit leaves to new processes: to each of them, or to all together."""

    name: str
    nbytes: int
    each: bool = False

    @property
    def in_words(self) -> str:
        """Words for a message: "2 GiB are left by ..."."""
        return f"{size(max(0, self.nbytes))} are {'free on' if self.name == MACHINE else 'left by'} {self.name}"

    @property
    def remedy(self) -> str:
        """How to get more."""
        return "end other programs" if self.name == MACHINE else "raise that limit"


def memory_limits(
    cgroup: Path = _CGROUP, proc: Path = _PROC, environment: Mapping[str, str] = os.environ
) -> list[MemoryLimit]:
    """Return the memory limits of this process and of those that it starts, the smallest first.

    These are the machine's free memory, the control groups (versions 1 and 2) of this process and all above it, the memory of a
    SLURM or LSF job (from `environment`), and the limits of the shell (`ulimit -v`, `ulimit -d`).
    """
    own = psutil.Process().memory_info().rss
    found = [MemoryLimit(MACHINE, psutil.virtual_memory().available)]
    found += _of_cgroups(cgroup, proc)
    found += [MemoryLimit(name, total - own) for name, total in _of_queues(environment)]
    found += [MemoryLimit(name, most - reserved, each=True) for name, most, reserved in rlimits()]
    return sorted(found, key=lambda limit: limit.nbytes)


def _of_cgroups(root: Path, proc: Path) -> Iterator[MemoryLimit]:
    """Limits of this process's control groups and their parents; their page cache counts as free."""
    try:
        lines = (proc / "cgroup").read_text().splitlines()
    except OSError:
        return
    mounts: tuple[Path, ...]
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            mounts = (root, root / "unified")
            limit, usage, cached = "memory.max", "memory.current", ""
        elif "memory" in controllers.split(","):
            mounts = (root / "memory",)
            limit, usage, cached = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"
        else:
            continue
        for mount in mounts:
            group = mount / path.lstrip("/")
            for each in (group, *group.parents):
                if not each.is_relative_to(mount):
                    break
                most, used = _number(each / limit), _number(each / usage)
                if most is not None and used is not None and most < _UNLIMITED:
                    free = most - used + _file_cache(each / "memory.stat", cached)
                    yield MemoryLimit(f"the control group of this process ({each / limit}: {size(most)})", free)


_UNLIMITED = 1 << 60


def _number(path: Path) -> int | None:
    """The number in a file; None if there is none, as in "max"."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _file_cache(path: Path, prefix: str) -> int:
    """Bytes of cached files that a control group holds."""
    try:
        stat = dict(line.split() for line in path.read_text().splitlines())
        return sum(int(stat.get(f"{prefix}{part}_file", 0)) for part in ("inactive", "active"))
    except (OSError, ValueError):
        return 0


def _of_queues(environment: Mapping[str, str]) -> Iterator[tuple[str, int]]:
    """Memory of a batch job on this host, bytes, with the variable that holds it."""
    # SLURM counts in MB, 0 meaning the complete node; LSF in kB, its control group's limit in hexadecimal
    cores = _parsed(environment, "SLURM_CPUS_ON_NODE")
    found = {
        "SLURM_MEM_PER_NODE": (_parsed(environment, "SLURM_MEM_PER_NODE"), MiB),
        "SLURM_MEM_PER_CPU": (_parsed(environment, "SLURM_MEM_PER_CPU"), MiB * (cores or 1)),
        "LSB_CG_MEMLIMIT": (_parsed(environment, "LSB_CG_MEMLIMIT", 16), 1),
        "LSB_MEMLIMIT": (_parsed(environment, "LSB_MEMLIMIT"), 1 << 10),
    }
    for name, (count, unit) in found.items():
        if count:
            of = f" for each of {cores or 1} CPUs" if name == "SLURM_MEM_PER_CPU" else ""
            yield f"the batch job ({name}={environment[name]}{of})", count * unit


def _parsed(environment: Mapping[str, str], name: str, base: int = 10) -> int:
    """A number from the environment; 0 if there is none."""
    try:
        return int(environment.get(name, ""), base)
    except ValueError:
        return 0


def rlimits() -> Iterator[tuple[str, int, int]]:
    """Name and bytes of each limit of the shell, and the bytes that a process reserves under it without using them."""
    for name, which, reserved in (
        ("ulimit -v", resource.RLIMIT_AS, ADDRESS_BYTES),
        ("ulimit -d", resource.RLIMIT_DATA, DATA_BYTES),
    ):
        most = resource.getrlimit(which)[0]
        if most not in (resource.RLIM_INFINITY, -1):
            yield f"the shell's limit for a process ({name} {most >> 10}, {size(most)})", most, reserved


def refuse_tight_shell() -> None:
    """Raise SpecError if a shell limit leaves too little memory to load libraries: some of them would fail, others hang."""
    memory = psutil.Process().memory_info()
    for name, most, _ in rlimits():
        used = memory.vms if "-v" in name else getattr(memory, "data", memory.vms)
        if most - used < _LIBRARIES_BYTES:
            option = "ulimit -v" if "-v" in name else "ulimit -d"
            raise SpecError(
                f"{name} leaves too little memory to load the libraries, which need {size(_LIBRARIES_BYTES)} more; type "
                f"`{option} unlimited`, or give the job more memory"
            )


_LIBRARIES_BYTES = 384 * MiB


def cpus() -> int:
    """CPUs that this process may use: its affinity, limited by its control group's quota.

    The same as `dask.system.CPU_COUNT`, whose import takes longer than planning a small run.
    """
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(count, _quota()))


def refuse_lost_folder() -> None:
    """Raise SpecError if the working folder was removed: relative paths would fail, and no worker could start."""
    try:
        os.getcwd()
    except OSError as error:
        raise SpecError(
            f"the working folder is gone ({error.strerror}): relative paths and workers cannot start from it; type cd FOLDER to "
            "one that exists, then the command again"
        ) from error


def refuse_no_processes(count: int) -> None:
    """Raise RunError if worker processes could not start: Dask would wait for them without end."""
    import multiprocessing

    try:
        multiprocessing.get_context("spawn").Lock()
    except OSError as error:
        raise RunError(
            f"worker processes cannot start, since processes cannot share locks (/dev/shm: {error.strerror}): make /dev/shm "
            "writable (docker run --tmpfs /dev/shm), or leave --workers out if the run is small enough for threads"
        ) from error
    _refuse_few_files(count)
    limit, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if limit == resource.RLIM_INFINITY or os.geteuid() == 0 or limit > _MANY:
        return
    running = sum(p.info["num_threads"] or 0 for p in psutil.process_iter(["uids", "num_threads"]) if _is_mine(p))
    needed = running + _DRIVER_THREADS + count * _WORKER_THREADS
    if needed > limit:
        raise RunError(
            f"{count} workers need about {needed - running} more processes and threads, but your limit is {limit} and "
            f"{running} are running: they would never start; raise the limit (ulimit -u), or type fewer --workers"
        )


def _refuse_few_files(count: int) -> None:
    wanted = _DRIVER_FILES + count * _WORKER_FILES
    allowed = raise_open_files(wanted)
    if wanted > allowed:
        raise RunError(
            f"{count} workers need about {wanted} open files and connections in this process, but the limit is {allowed}: "
            "they would never start; raise the limit (ulimit -n), or type fewer --workers"
        )


def raise_open_files(wanted: int) -> int:
    """Raise the limit of open files and connections as far as the system allows; return the new limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return max(soft, wanted)
    more = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (more, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def _is_mine(process: psutil.Process) -> bool:
    uids = process.info["uids"]
    return uids is not None and uids.real == os.getuid()


_DRIVER_THREADS, _WORKER_THREADS = 10, 5
"""Measured, plus one or two; numba and BLAS start none in workers."""
_MANY = 10_000
_DRIVER_FILES, _WORKER_FILES = 26, 12


def _quota() -> int:
    """CPUs of the control group's quota, versions 2 and 1; a large number if there is none."""
    try:
        if (_CGROUP / "cpu.max").is_file():
            quota, period = (_CGROUP / "cpu.max").read_text().split()
        else:
            quota, period = ((_CGROUP / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        if quota != "max" and int(quota) > 0:
            return math.ceil(int(quota) / int(period))
    except (OSError, ValueError):
        pass
    return 1 << 30
