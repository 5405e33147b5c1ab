"""The primitives' own text compiled for the host, as a `Backend` of `array_device` that needs no GPU."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import array_api_strict
import numpy as np
import pytest
from numpy.typing import NDArray

from simexm.kernels.devices.cupy_device import kernel_text

HERE = Path(__file__).parent
FLAGS = ("-std=c++17", "-O2", "-ffp-contract=off", "-Wall", "-Werror", "-shared", "-fPIC")


class Index(ctypes.Structure):
    """blockIdx and its like."""

    _fields_ = [("x", ctypes.c_uint), ("y", ctypes.c_uint), ("z", ctypes.c_uint)]


@cache
def _structure(kinds: str) -> type[ctypes.Structure]:
    types = {"f": ctypes.c_double, "i": ctypes.c_longlong}
    fields = [(f"field{n}", types[kind]) for n, kind in enumerate(kinds)]
    return type("Value", (ctypes.Structure,), {"_fields_": fields})


def _kinds(dtype: np.dtype[Any]) -> str:
    """One letter for each number of a structure."""
    if dtype.names:
        return "".join(_kinds(dtype[name]) for name in dtype.names)
    if dtype.subdtype:
        base, shape = dtype.subdtype
        return _kinds(base) * int(np.prod(shape))
    return dtype.kind


class Host:
    """See `Backend`: arrays of a namespace that has nothing but the standard, in the memory of the host.

    Parameters
    ----------
    library
        The compiled primitives.
    blocks, threads
        The grid that each launch is made with, thread after thread.
    """

    xp: Any = array_api_strict
    out_of_memory: type[Exception] = MemoryError

    def __init__(self, library: Path, blocks: int = 1, threads: int = 1) -> None:
        self._library = ctypes.CDLL(str(library))
        self.blocks, self.threads = blocks, threads
        self.freed = 0
        self.launched: list[str] = []

    def launch(self, name: str, count: int, *arguments: Any) -> None:
        """Run one thread after another."""
        self.launched.append(name)
        function = getattr(self._library, name)
        function.restype = None
        passed = [self._passed(a) for a in arguments]

        def index(what: str) -> Index:
            return Index.in_dll(self._library, what)

        index("gridDim").x, index("blockDim").x = self.blocks, self.threads
        for block in range(self.blocks):
            for thread in range(self.threads):
                index("blockIdx").x, index("threadIdx").x = block, thread
                function(*passed)

    def _passed(self, value: Any) -> Any:
        if isinstance(value, int):
            return ctypes.c_longlong(value)
        if isinstance(value, float):
            return ctypes.c_double(value)
        if isinstance(value, np.ndarray):  # by value
            kinds = _kinds(value.dtype) * value.size
            return _structure(kinds).from_buffer_copy(value.tobytes())
        array = np.from_dlpack(value)
        assert array.flags.c_contiguous
        return ctypes.c_void_p(array.__array_interface__["data"][0])

    def to_host(self, array: Any) -> NDArray[Any]:
        """See `Backend`."""
        return np.from_dlpack(array).copy()

    def free(self) -> None:
        """See `Backend`."""
        self.freed += 1


def compile_for_host(folder: Path) -> Path:
    """Compile the primitives, or skip the test where there is no compiler."""
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler to compile the GPU's kernels for the host with; apt-get install g++")
    text, out = folder / "simexm.cpp", folder / "simexm.so"
    text.write_text(kernel_text(), encoding="utf-8")
    command = [compiler, *FLAGS, "-include", str(HERE / "shim.h"), str(text), "-o", str(out)]
    subprocess.run(command, check=True)
    return out
