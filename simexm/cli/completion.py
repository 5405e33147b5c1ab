"""Shell completion: files of the right kind, and the values of an option."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

_HEAD_BYTES = 1 << 16


def one_of(*words: str) -> Callable[[str], list[str]]:
    """Complete one of these words."""
    return lambda incomplete: [word for word in words if word.startswith(incomplete)]


def experiments(incomplete: str) -> list[str]:
    """Complete names of the experiments that `simexm new` writes."""
    from simexm.templates import experiments as known

    return [name for name in known() if name.startswith(incomplete)]


def specs(incomplete: str) -> list[str]:
    """Complete specs, and configuration files of 2017."""
    return list(_paths(incomplete, _is_spec))


def cluster_files(incomplete: str) -> list[str]:
    """Complete cluster files."""
    return list(_paths(incomplete, lambda path: path.endswith((".yaml", ".yml")) and _has_key(path, "kind")))


def results(incomplete: str) -> list[str]:
    """Complete Zarr folders."""
    return list(_paths(incomplete, lambda path: path.endswith(".zarr") and os.path.isdir(path)))


def _paths(incomplete: str, fits: Callable[[str], bool], depth: int = 1) -> Iterator[str]:
    """Matching paths in this folder and those directly below it; the shell completes deeper ones itself."""
    folder, begin = os.path.split(incomplete)
    with contextlib.suppress(OSError):
        for name in sorted(os.listdir(os.path.expanduser(folder) or ".")):
            if not name.startswith(begin) or (name.startswith(".") and not begin):
                continue
            path = os.path.join(folder, name)
            expanded = os.path.expanduser(path)
            if fits(expanded):
                yield path
            elif depth and os.path.isdir(expanded) and not name.endswith(".zarr"):
                yield from _paths(os.path.join(path, ""), fits, depth - 1)


def _is_spec(path: str) -> bool:
    if path.endswith(".ini"):
        return os.path.isfile(path)
    return path.endswith((".yaml", ".yml", ".json")) and _has_key(path, "stages")


def _has_key(path: str, key: str) -> bool:
    """Whether a line near the beginning of a YAML or JSON file starts with this key."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read(_HEAD_BYTES).splitlines()
    except OSError:
        return False
    begins = (f"{key}:", f'"{key}":') if path.endswith(".json") else (f"{key}:",)  # in JSON, keys are indented
    return any((line.lstrip() if path.endswith(".json") else line).startswith(begins) for line in lines)
