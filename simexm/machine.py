"""What this machine gives to this process."""

from __future__ import annotations

import math
import os
from pathlib import Path

from simexm.errors import SpecError

_CGROUP = Path("/sys/fs/cgroup")


def cpus() -> int:
    """CPUs that this process may use: those that it is bound to, and no more than its control group's quota.

    As `dask.system.CPU_COUNT`, whose import takes longer than a small run's planning.
    """
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(count, _quota()))


def refuse_lost_folder() -> None:
    """Refuse to work in a folder that is gone: relative paths would lead nowhere, and no worker could start.

    Raises
    ------
    SpecError
        It was removed, or the disk that it is on.
    """
    try:
        os.getcwd()
    except OSError as error:
        raise SpecError(
            f"the folder that you are in is gone ({error.strerror}): no path and no worker can start from it; type cd FOLDER to "
            "one that is there, then the command again"
        ) from error


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
