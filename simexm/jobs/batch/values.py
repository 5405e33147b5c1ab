"""Parse memory, walltime and number of jobs, as written in a cluster file or on the command line."""

from __future__ import annotations

import re
from typing import Annotated, Any

from dask.utils import format_bytes, parse_bytes
from pydantic import AfterValidator, BeforeValidator, Field

_LEAST_MEMORY = 256 << 20
_LEAST_WALLTIME_S = 60
_SLURM_TIME = re.compile(r"(?:(\d+)-)?(\d+):([0-5]\d):([0-5]\d)")
_LSF_TIME = re.compile(r"(\d+):([0-5]\d)")


def memory_bytes(value: Any) -> int:
    """Parse a text such as "2 GiB"; raise ValueError without unit or number, or if it is too little for a worker."""
    if not isinstance(value, str) or not re.search(r"[A-Za-z]", value):
        raise ValueError(f'should be a number with its unit, such as "2 GiB" (got {value!r})')
    try:
        size = parse_bytes(value)
    except ValueError:
        raise ValueError(f'should be a number with its unit, such as "2 GiB" or "800 MB" (got {value!r})') from None
    if size < _LEAST_MEMORY:
        raise ValueError(f"{value} is less than any worker needs; set at least {format_bytes(_LEAST_MEMORY)}")
    return size


Memory = Annotated[int, BeforeValidator(memory_bytes), Field(examples=["4 GiB"])]


def slurm_seconds(text: str) -> int:
    """Convert HH:MM:SS or D-HH:MM:SS to seconds."""
    found = _SLURM_TIME.fullmatch(text)
    if not found:
        raise ValueError(f'should be "HH:MM:SS" or "D-HH:MM:SS", as SLURM counts (got {text!r})')
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def lsf_seconds(text: str) -> int:
    """Convert HH:MM to seconds."""
    found = _LSF_TIME.fullmatch(text)
    if not found:
        raise ValueError(f'should be "HH:MM", as LSF counts, without seconds (got {text!r})')
    return (int(found[1]) * 60 + int(found[2])) * 60


def _quoted(value: Any) -> Any:
    if isinstance(value, int):
        raise ValueError(f"should be in quotes: without them YAML reads a time as a number (here {value})")
    return value


def _long_enough(text: str) -> str:
    seconds = slurm_seconds(text) if text.count(":") == 2 else lsf_seconds(text)
    if seconds < _LEAST_WALLTIME_S:
        raise ValueError(f"{text} is less than a minute, the shortest that queues allow; set a minute or more")
    return text


def _checked(seconds: Any) -> AfterValidator:
    def check(text: str) -> str:
        seconds(text)
        return _long_enough(text)

    return AfterValidator(check)


SlurmTime = Annotated[str, BeforeValidator(_quoted), _checked(slurm_seconds), Field(examples=["04:00:00"])]
LsfTime = Annotated[str, BeforeValidator(_quoted), _checked(lsf_seconds), Field(examples=["04:00"])]


def parse_jobs(value: Any) -> tuple[int, int]:
    """Parse smallest and largest number of jobs from 4, "4", "2:10" or (2, 10); raise ValueError for anything else."""
    parts = value.split(":") if isinstance(value, str) else value if isinstance(value, list | tuple) else [value]
    try:
        numbers = [int(part) for part in parts if not isinstance(part, bool | float)]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) != len(parts) or len(numbers) not in (1, 2):
        raise ValueError(f'should be a number of jobs, such as 4, or "MIN:MAX", such as "2:10" (got {value!r})')
    least, most = numbers[0], numbers[-1]
    if most < 1 or not 0 <= least <= most:
        raise ValueError(f"in MIN:MAX jobs, MAX should be 1 or more and MIN from 0 to MAX (got {least}:{most})")
    return least, most


Jobs = Annotated[tuple[int, int], BeforeValidator(parse_jobs), Field(examples=["2:10"])]


def _one_line(text: str) -> str:
    if not text.strip() or any(ord(c) < 32 or ord(c) == 127 for c in text):
        raise ValueError(f"should be one line of text: a line break would add lines to the job script (got {text!r})")
    return text


def _word(text: str) -> str:
    bad = sorted(set(_one_line(text)) & set("\"'`$\\"))
    if bad:
        raise ValueError(f"holds {' '.join(bad)}, which a job script would read as quoting (got {text!r})")
    return text


Line = Annotated[str, AfterValidator(_one_line)]
Word = Annotated[str, AfterValidator(_word)]
