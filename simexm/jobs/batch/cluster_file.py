"""Read cluster files: YAML that says how workers are started, checked against the installed dask-jobqueue."""

from __future__ import annotations

import re
import shlex
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, ValidationInfo, field_validator, model_validator

from simexm import settings
from simexm.errors import SpecError
from simexm.jobs.batch import options
from simexm.jobs.batch.values import Jobs, Line, LsfTime, Memory, SlurmTime, Word, lsf_seconds, slurm_seconds
from simexm.settings import Frozen


def _directive(text: str) -> str:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ValueError(f"cannot be read as a directive ({error}): {text!r}") from None
    if not words or not words[0].startswith("-"):
        raise ValueError(f"should be an option of the queue, such as --exclusive or -x (got {text!r})")
    return text


Directive = Annotated[Line, AfterValidator(_directive)]


class LocalFile(Frozen):
    """Workers on this machine.

    Attributes
    ----------
    workers
        Worker processes of one thread each; by default one for each core.
    memory_per_worker
        A worker above it is killed and its block tried again; by default no limit.
    """

    kind: Literal["local"]
    workers: int | None = Field(default=None, ge=1)
    memory_per_worker: Memory | None = None


class BatchFile(Frozen):
    """Workers in the jobs of a batch queue.

    Attributes
    ----------
    queue
        Queue or partition of the jobs; by default that of the site.
    walltime
        Time limit of a job. Workers hand back blocks that they cannot finish before it.
    jobs
        Number of jobs in the queue, or "MIN:MAX"; fewer than MAX are held when fewer blocks are left.
    workers
        Worker processes in each job; each computes in one thread.
    cores_per_worker
        Cores that the queue reserves for each worker; more than one only where memory is counted by core.
    memory_per_worker
        Memory of one worker; the job requests that of all of its workers.
    gpu
        The queue's option that requests one GPU; such a job has one worker.
    interface
        Network interface between driver and workers, such as ib0; `auto` chooses the one that connects them. Nothing
        listens on any other.
    tls
        Whether driver and workers authenticate each other and encrypt their connections. Without it anyone on that
        network can run programs in your name.
    python
        Python of the workers; by default the one that runs simexm now.
    prologue
        Lines of shell to run in each job before its workers start, such as `module load cuda`. They are not quoted.
    directives
        Further options of the queue, one each, as in a job script.
    death_timeout_s
        A worker that cannot reach the driver for this time ends, and its job with it.
    driver_queue, driver_walltime, driver_memory
        For the job in which `simexm submit` runs the driver; queue and walltime are by default those of the other jobs.
    options
        Further options of dask-jobqueue's class, by the names of its documentation.
    """

    kind: str
    queue: Word | None = None
    walltime: str
    jobs: Jobs = (1, 1)
    workers: int = Field(default=1, ge=1, le=1024)
    cores_per_worker: int = Field(default=1, ge=1, le=1024)
    memory_per_worker: Memory
    gpu: Directive | None = None
    interface: Word = "auto"
    tls: bool = True
    python: Line | None = None
    prologue: tuple[Line, ...] = ()
    directives: tuple[Directive, ...] = ()
    death_timeout_s: int = Field(default=60, ge=10)
    driver_queue: Word | None = None
    driver_walltime: str | None = None
    driver_memory: Memory = 4 << 30
    options: dict[str, Any] = Field(default_factory=dict)

    gpu_example: ClassVar[str]

    @property
    @abstractmethod
    def walltime_s(self) -> int:
        """Walltime in seconds."""

    @field_validator("options")
    @classmethod
    def _known(cls, given: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        return options.check(info.data["kind"], given)

    @model_validator(mode="after")
    def _gpu_alone(self) -> Self:
        if self.gpu is None:
            return self
        counts = [int(n) for n in re.findall(r"(?<![\w.-])\d+(?![\w.-])", self.gpu)] or [1]
        if "gpu" not in self.gpu or counts[0] != 1:
            raise ValueError(
                f"gpu: {self.gpu!r} should request one GPU, as {self.gpu_example} does; use more jobs for more GPUs"
            )
        if self.workers != 1:
            raise ValueError(
                f"workers: {self.workers} workers would share the one GPU of a job and run out of its memory; set workers: 1, "
                "and use more jobs for more GPUs"
            )
        return self


class SlurmFile(BatchFile):
    """Jobs of SLURM.

    Attributes
    ----------
    account
        Account to charge; by default that of the site.
    """

    kind: Literal["slurm"]
    account: Word | None = None
    walltime: SlurmTime
    driver_walltime: SlurmTime | None = None
    gpu_example: ClassVar[str] = "--gres=gpu:1"

    @property
    def walltime_s(self) -> int:
        return slurm_seconds(self.walltime)


class LsfFile(BatchFile):
    """Jobs of LSF.

    Attributes
    ----------
    project
        Project to charge; by default that of the site.
    """

    kind: Literal["lsf"]
    project: Word | None = None
    walltime: LsfTime
    driver_walltime: LsfTime | None = None
    gpu_example: ClassVar[str] = '-gpu "num=1"'

    @property
    def walltime_s(self) -> int:
        return lsf_seconds(self.walltime)


ClusterFile = LocalFile | SlurmFile | LsfFile
_KINDS: Mapping[str, type[LocalFile] | type[SlurmFile] | type[LsfFile]] = {
    "local": LocalFile,
    "slurm": SlurmFile,
    "lsf": LsfFile,
}


def read(path: Path) -> ClusterFile:
    """Read and check a cluster file.

    Raises SpecError if it is missing or wrong; the message lists all problems with their place.
    """
    data = settings.read(path, "cluster file")
    kind = data.get("kind")
    if not isinstance(kind, str) or kind not in _KINDS:
        found = f"the kind {kind!r} is unknown" if kind is not None else "`kind:` is missing"
        raise SpecError(f"{path}: {found}; the kind of a cluster is one of {', '.join(_KINDS)}")
    model = _KINDS[kind]
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise settings.explain(error, model, str(path), "the cluster file") from None
