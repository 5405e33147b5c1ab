"""What this machine gives to this process."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from simexm.errors import SpecError

_CGROUP = Path("/sys/fs/cgroup")
_PROC = Path("/proc/self")
MiB = 1 << 20
MACHINE = "this machine"
ADDRESS_BYTES = 1600 * MiB
"""Address space that a process reserves beyond its resident memory: libraries, stacks of threads, buffers of BLAS."""
DATA_BYTES = 1200 * MiB
"""The same of writable memory, which RLIMIT_DATA counts."""


@dataclass(frozen=True)
class MemoryLimit:
    """Memory that something leaves to processes which are started now.

    Attributes
    ----------
    name
        What limits it.
    nbytes
        Bytes that are left.
    each
        Whether every process has so many of its own; otherwise all share them.
    """

    name: str
    nbytes: int
    each: bool = False

    @property
    def told(self) -> str:
        """How much is left, and by what, as the end of a sentence."""
        return f"{_size(max(0, self.nbytes))} are {'free on' if self.name == MACHINE else 'left by'} {self.name}"

    @property
    def remedy(self) -> str:
        """How to have more."""
        return "end other programs" if self.name == MACHINE else "raise that limit"


def memory_limits(
    cgroup: Path = _CGROUP, proc: Path = _PROC, environment: Mapping[str, str] = os.environ
) -> list[MemoryLimit]:
    """Return what limits the memory of this process and of those that it starts, the smallest first.

    Looked at are the machine's free memory, the control groups (versions 1 and 2) of this process and all above it, the memory
    of a SLURM or LSF job, and the limits of the shell (`ulimit -v`, `ulimit -d`).

    Parameters
    ----------
    cgroup, proc
        Where control groups are mounted, and /proc of this process.
    environment
        Variables that a batch queue sets.
    """
    own = psutil.Process().memory_info().rss
    found = [MemoryLimit(MACHINE, psutil.virtual_memory().available)]
    found += _of_cgroups(cgroup, proc)
    found += [MemoryLimit(name, total - own) for name, total in _of_queues(environment)]
    found += _of_rlimits()
    return sorted(found, key=lambda limit: limit.nbytes)


def _of_cgroups(root: Path, proc: Path) -> Iterator[MemoryLimit]:
    """Limits of the control groups of this process and of those above them; page cache in them can be freed."""
    try:
        lines = (proc / "cgroup").read_text().splitlines()
    except OSError:
        return
    mounts: tuple[Path, ...]
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            mounts, limit, usage, cached = (root, root / "unified"), "memory.max", "memory.current", ""
        elif "memory" in controllers.split(","):
            mounts, limit, usage, cached = (
                (root / "memory",),
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
                "total_",
            )
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
                    yield MemoryLimit(f"the control group of this process ({each / limit}: {_size(most)})", free)


_UNLIMITED = 1 << 60


def _number(path: Path) -> int | None:
    """The number in a file; None where there is none, as where it says "max"."""
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
    """Memory of a batch job on this host, bytes, by the variable that tells it."""
    # SLURM counts in MB, and 0 is all of the node; LSF in kB, and its control group's limit is hexadecimal
    cores = _parsed(environment, "SLURM_CPUS_ON_NODE")
    told = {
        "SLURM_MEM_PER_NODE": (_parsed(environment, "SLURM_MEM_PER_NODE"), MiB),
        "SLURM_MEM_PER_CPU": (_parsed(environment, "SLURM_MEM_PER_CPU"), MiB * (cores or 1)),
        "LSB_CG_MEMLIMIT": (_parsed(environment, "LSB_CG_MEMLIMIT", 16), 1),
        "LSB_MEMLIMIT": (_parsed(environment, "LSB_MEMLIMIT"), 1 << 10),
    }
    for name, (count, unit) in told.items():
        if count:
            of = f" for each of {cores or 1} CPUs" if name == "SLURM_MEM_PER_CPU" else ""
            yield f"the batch job ({name}={environment[name]}{of})", count * unit


def _parsed(environment: Mapping[str, str], name: str, base: int = 10) -> int:
    """A number from the environment; 0 where there is none."""
    try:
        return int(environment.get(name, ""), base)
    except ValueError:
        return 0


def _of_rlimits() -> Iterator[MemoryLimit]:
    """Limits of each process, less what it reserves without using it."""
    for name, most, reserved in rlimits():
        yield MemoryLimit(name, most - reserved, each=True)


def rlimits() -> Iterator[tuple[str, int, int]]:
    """Name and bytes of each limit that the shell has set for a process, and bytes reserved, but not used, that it counts."""
    try:
        import resource
    except ImportError:  # Windows
        return
    for name, which, reserved in (
        ("ulimit -v", resource.RLIMIT_AS, ADDRESS_BYTES),
        ("ulimit -d", resource.RLIMIT_DATA, DATA_BYTES),
    ):
        most = resource.getrlimit(which)[0]
        if most not in (resource.RLIM_INFINITY, -1):
            yield f"the shell's limit for a process ({name} {most >> 10}, {_size(most)})", most, reserved


def refuse_tight_shell() -> None:
    """Refuse to go on where the shell leaves a process too little memory to load libraries: some of them fail, others hang.

    Raises
    ------
    SpecError
        With the limit to raise.
    """
    memory = psutil.Process().memory_info()
    for name, most, _ in rlimits():
        used = memory.vms if "-v" in name else getattr(memory, "data", memory.vms)
        if most - used < _LIBRARIES_BYTES:
            option = "ulimit -v" if "-v" in name else "ulimit -d"
            raise SpecError(
                f"{name} leaves too little memory to load the libraries, which need {_size(_LIBRARIES_BYTES)} more; type "
                f"`{option} unlimited`, or give the job more memory"
            )


_LIBRARIES_BYTES = 384 * MiB


def _size(nbytes: int) -> str:
    return f"{nbytes / (1 << 30):.2f} GiB"


def cpus() -> int:
    """CPUs that this process may use: those that it is bound to, and no more than its control group's quota.

    As `dask.system.CPU_COUNT`, whose import takes longer than a small run's planning.
    """
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(count, _quota()))


def _quota() -> int:
    """CPUs of the control group's quota, versions 2 and 1; a large number where there is none."""
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
