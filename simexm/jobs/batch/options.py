"""Options of the installed dask-jobqueue: their names, its defaults, and its classes."""

from __future__ import annotations

import difflib
import functools
import inspect
import signal
import threading
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import dask
import yaml

_CLASSES = {"slurm": "SLURMCluster", "lsf": "LSFCluster"}

# What simexm passes itself, and the key of the cluster file that says it.
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
    """dask_jobqueue, whose import makes Ctrl-C end the program with status 0, and puts a file into the user's home: not here."""
    before, folder = signal.getsignal(signal.SIGINT), dask.config.PATH
    dask.config.PATH = __file__  # it takes a file that is there for its own, and leaves it
    import dask_jobqueue

    dask.config.PATH = folder
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, before)
    return dask_jobqueue


def cluster_class(kind: str) -> Any:
    """dask-jobqueue's class for a kind of queue."""
    return getattr(_module(), _CLASSES[kind])


@functools.cache
def names(kind: str) -> frozenset[str]:
    """Every option that the class for a kind of queue and its jobs take."""
    cluster = cluster_class(kind)
    signatures = [
        inspect.signature(c.__init__)
        for c in (*cluster.__mro__, *cluster.job_cls.__mro__)
        if "dask_jobqueue" in c.__module__
    ]
    return frozenset(name for signature in signatures for name in signature.parameters)


def check(kind: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The same options, if dask-jobqueue has them and simexm does not set them itself.

    Raises
    ------
    ValueError
        It has no such option, or another key of the cluster file is for it.
    """
    known = names(kind)
    free = sorted(known - _NOT_TO_SET - set(OWN))
    for name, value in given.items():
        key = name.replace("-", "_")
        if key in OWN and key in known:
            raise ValueError(f"{name} is set by the cluster file's own key {OWN[key]!r}; use that, and take {name} out")
        if name not in free:
            near = difflib.get_close_matches(key, [*free, *OWN], n=1, cutoff=0.5)
            near = [OWN.get(n, n) for n in near]
            hint = f"did you mean {near[0]!r}?" if near else f"those that you may set are {', '.join(free)}"
            raise ValueError(f"{_CLASSES[kind]} of the installed dask-jobqueue takes no {name!r} here; {hint}")
        if key == SKIP:
            _check_skip(kind, value)
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and any(ord(c) < 32 for c in text):
                raise ValueError(f"{name} holds a line break, which would add lines to the job script; take it out")
    return dict(given)


SKIP = "job_directives_skip"
_DIRECTIVE = {"slurm": "#SBATCH", "lsf": "#BSUB"}
_EXAMPLE = {"slurm": "--mem", "lsf": "-M"}


def _check_skip(kind: str, value: Any) -> None:
    """Only a list of options: of a text dask-jobqueue would take each letter, and leave out every line that has it."""
    words = value if isinstance(value, list) else []
    if not words or not all(isinstance(w, str) and len(w) > 1 and w.startswith("-") for w in words):
        raise ValueError(
            f"{SKIP} should be a list of options that the job scripts leave out, such as [{_EXAMPLE[kind]}] (got {value!r})"
        )
    if any("-J".startswith(w) or w.startswith(("-J", "--job-name")) for w in words):
        raise ValueError(f"{SKIP} holds -J, the job's name, by which its driver finds it in the queue; take it out")


def with_skipped(kind: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The same options with whole beginnings of lines to leave out: by a mere -n, the name of a job simexm-n... would go, too."""
    made = dict(given)
    if SKIP in made:
        made[SKIP] = [f"{_DIRECTIVE[kind]} {word}" for word in made[SKIP]]
    return made


def defaults(kind: str) -> dict[str, Any]:
    """dask-jobqueue's own defaults, whatever a configuration of Dask's in the user's home says."""
    loaded = yaml.safe_load(files(_module()).joinpath("jobqueue.yaml").read_text(encoding="utf-8"))
    settings: dict[str, Any] = loaded["jobqueue"][kind]
    return settings
