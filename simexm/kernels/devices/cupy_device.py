"""CuPy as the backend of `array_device`, for CUDA devices."""

from __future__ import annotations

import importlib.util
import socket
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simexm.kernels.devices.array_device import ArrayDevice

SOURCES = Path(__file__).parent / "cuda"
OPTIONS = ("--std=c++17", "--fmad=false")
"""Without contraction: fused multiply-add rounds once instead of twice, unlike the CPU."""
_THREADS = 128
_BLOCKS = 1 << 16
_SHARE = 0.95
"""Share of GPU memory to use; the rest is for driver and display."""
_PLANS = 8
"""FFT plans in the cache, each with a work area."""


def kernel_text(name: str = "simexm.cu", before: set[str] | None = None) -> str:
    """Join the sources, each header once: CuPy caches by this text and does not notice changes of included files."""
    known = set() if before is None else before
    known.add(name)
    lines = []
    for line in (SOURCES / name).read_text(encoding="utf-8").splitlines():
        if line.startswith("#include"):
            header = line.split('"')[1]
            lines.append("" if header in known else kernel_text(header, known))
        elif line != "#pragma once":
            lines.append(line)
    return "\n".join(lines)


class CuPy:
    """See `Backend`."""

    def __init__(self) -> None:
        import cupy  # type: ignore[import-not-found]

        self.xp: Any = cupy
        self.out_of_memory: type[Exception] = cupy.cuda.memory.OutOfMemoryError
        cupy.fft.config.get_plan_cache().set_size(_PLANS)
        cupy.get_default_memory_pool().set_limit(fraction=_SHARE)
        self._module = cupy.RawModule(code=kernel_text(), options=OPTIONS)

    def launch(self, name: str, count: int, *arguments: Any) -> None:
        """See `Backend`."""
        if not count:
            return
        typed = tuple(
            np.int64(a) if isinstance(a, int) else np.float64(a) if isinstance(a, float) else a for a in arguments
        )
        blocks = min(-(-count // _THREADS), _BLOCKS)
        self._module.get_function(name)((blocks,), (_THREADS,), typed)

    def to_host(self, array: Any) -> NDArray[Any]:
        """See `Backend`."""
        return np.asarray(self.xp.asnumpy(array))

    def free(self) -> None:
        """See `Backend`."""
        self.xp.fft.config.get_plan_cache().clear()
        self.xp.get_default_memory_pool().free_all_blocks()
        self.xp.get_default_pinned_memory_pool().free_all_blocks()


def lacking() -> str:
    """Message if CuPy is not installed; empty otherwise."""
    return "" if importlib.util.find_spec("cupy") else "CuPy is not installed (pip install 'simexm[gpu]')"


@cache
def missing() -> str:
    """Why no GPU can be used; empty if one can."""
    if why := lacking():
        return why
    try:
        return "" if count() else "there is no CUDA device"
    except Exception as error:  # of library or driver
        return f"no CUDA device answers ({type(error).__name__}: {error})"


def count() -> int:
    """Number of CUDA devices of this process."""
    import cupy

    return int(cupy.cuda.runtime.getDeviceCount())


def version() -> str:
    """Version of CuPy."""
    import cupy

    return str(cupy.__version__)


def free_bytes() -> int:
    """Free memory of the device, including this process's pool, bytes."""
    import cupy

    free, _ = cupy.cuda.runtime.memGetInfo()
    return int(free) + int(cupy.get_default_memory_pool().free_bytes())


@cache
def gpu() -> ArrayDevice:
    """The GPU of this process; RuntimeError if there is none."""
    if why := missing():
        raise RuntimeError(
            f"this run uses GPUs, but on {socket.gethostname()} {why}; start workers on GPU nodes only, or run with "
            "--device cpu into another output"
        )
    return ArrayDevice(CuPy())
