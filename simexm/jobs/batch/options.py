"""Options of the installed dask-jobqueue: their names, its defaults, and its classes."""

from __future__ import annotations

import difflib
import functools
import inspect
import signal
import threading
from collections.abc import Mapping
from copy import deepcopy
from importlib.resources import files
from typing import Any

import dask
import yaml

_CLASSES = {"slurm": "SLURMCluster", "lsf": "LSFCluster"}

# Options that simexm passes itself, and the cluster file's key for each.
OWN = {
    "queue": "queue", "account": "account", "project": "project", "walltime": "walltime", "n_workers": "jobs",
    "cores": "workers", "processes": "workers", "memory": "memory_per_worker", "job_cpu": "cores_per_worker",
    "ncpus": "cores_per_worker", "interface": "interface", "security": "tls", "protocol": "tls", "python": "python",
    "job_script_prologue": "prologue", "job_extra_directives": "directives", "death_timeout": "death_timeout_s",
}  # fmt: skip
_NOT_TO_SET = frozenset({
    "self", "name", "scheduler", "loop", "asynchronous", "config_name", "job_cls", "scheduler_cls", "scheduler_options",
    "host", "dashboard_address", "silence_logs", "job_name", "nanny", "worker_command", "worker_extra_args", "use_stdin",
    "log_directory", "shared_temp_directory", "kwargs", "job_kwargs", "base_class_kwargs",
    "extra", "job_extra", "env_extra", "header_skip",  # former names
})  # fmt: skip


@functools.cache
def _module() -> Any:
    """Import dask_jobqueue without its side effects: a handler of Ctrl-C, and a file in the user's home."""
    before, folder = signal.getsignal(signal.SIGINT), dask.config.PATH
    dask.config.PATH = __file__  # an existing file, which it does not overwrite
    import dask_jobqueue

    dask.config.PATH = folder
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, before)
    return dask_jobqueue


def cluster_class(kind: str) -> Any:
    """Return dask-jobqueue's class for a kind of queue."""
    return getattr(_module(), _CLASSES[kind])


@functools.cache
def names(kind: str) -> frozenset[str]:
    """List every option of the class for a kind of queue and of its jobs."""
    cluster = cluster_class(kind)
    signatures = [
        inspect.signature(c.__init__)
        for c in (*cluster.__mro__, *cluster.job_cls.__mro__)
        if "dask_jobqueue" in c.__module__
    ]
    return frozenset(name for signature in signatures for name in signature.parameters)


def check(kind: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of the options.

    Raises ValueError if dask-jobqueue has no such option, or the cluster file has a key of its own for it.
    """
    known = names(kind)
    free = sorted(known - _NOT_TO_SET - set(OWN))
    for name, value in given.items():
        key = name.replace("-", "_")
        if key in OWN and key in known:
            raise ValueError(f"{name} is set by the cluster file's own key {OWN[key]!r}; use that, and remove {name}")
        if name not in free:
            near = difflib.get_close_matches(key, [*free, *OWN], n=1, cutoff=0.5)
            near = [OWN.get(n, n) for n in near]
            hint = f"did you mean {near[0]!r}?" if near else f"those that you may set are {', '.join(free)}"
            raise ValueError(f"{_CLASSES[kind]} of the installed dask-jobqueue has no option {name!r} here; {hint}")
        if key == SKIP:
            _check_skip(kind, value)
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and any(ord(c) < 32 for c in text):
                raise ValueError(f"{name} holds a line break, which would add lines to the job script; remove it")
    return dict(given)


SKIP = "job_directives_skip"
_DIRECTIVE = {"slurm": "#SBATCH", "lsf": "#BSUB"}
_EXAMPLE = {"slurm": "--mem", "lsf": "-M"}


def _check_skip(kind: str, value: Any) -> None:
    """Accept only a list of options: from a text dask-jobqueue would drop every line that holds one of its letters."""
    words = value if isinstance(value, list) else []
    if not words or not all(isinstance(w, str) and len(w) > 1 and w.startswith("-") for w in words):
        raise ValueError(
            f"{SKIP} should be a list of options that the job scripts leave out, such as [{_EXAMPLE[kind]}] (got {value!r})"
        )
    if any("-J".startswith(w) or w.startswith(("-J", "--job-name")) for w in words):
        raise ValueError(f"{SKIP} holds -J, the job's name, by which its driver finds it in the queue; remove it")


def with_skipped(kind: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Extend the options to skip to the beginnings of lines: a mere -n would also drop a line with the name simexm-n."""
    made = dict(given)
    if SKIP in made:
        made[SKIP] = [f"{_DIRECTIVE[kind]} {word}" for word in made[SKIP]]
    return made


def defaults(kind: str) -> dict[str, Any]:
    """Read dask-jobqueue's own defaults, without Dask's configuration in the user's home."""
    return deepcopy(_all_defaults()[kind])  # Dask writes into what it is given


@functools.cache
def _all_defaults() -> dict[str, dict[str, Any]]:
    """Read the defaults of all queues once: the file is long, and yaml is slow."""
    loaded = yaml.safe_load(files(_module()).joinpath("jobqueue.yaml").read_text(encoding="utf-8"))
    found: dict[str, dict[str, Any]] = loaded["jobqueue"]
    return found
