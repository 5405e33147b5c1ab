"""FFTs of single planes by the installed libraries, at the lengths that simexm uses.

`benchmarks.limit` prints these lengths.

python -m venv ffts; ffts/bin/pip install numpy scipy pyfftw mkl_fft ducc0
ffts/bin/python benchmarks/fft_libraries.py

One core, float32. Forward: real rows of a plane, then columns; inverse: columns, then real rows, of the small planes; in two
calls, or in one where the name ends in 2. Libraries are called in turns, the best of each is told, and FFTW has planned before.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

os.environ["MKL_NUM_THREADS"] = "1"
FORWARD = ((1008, 1008), (1008, 720), (720, 720))
INVERSE = ((336, 336), (336, 240), (240, 240))
Transform = Callable[[NDArray[Any]], NDArray[Any]]


def libraries() -> dict[str, tuple[Transform, Callable[[NDArray[Any], int], NDArray[Any]]]]:
    """Forward transform of a real plane, and inverse of a half spectrum to so many columns, by library."""
    found: dict[str, Any] = {}
    with contextlib.suppress(ImportError):
        fft = importlib.import_module("scipy.fft")
        found["scipy"] = _by_axis(fft.rfft, fft.fft, fft.ifft, fft.irfft)
        found["scipy 2"] = (fft.rfft2, lambda s, n: fft.irfft2(s, (s.shape[0], n)))
    with contextlib.suppress(ImportError):
        mkl = importlib.import_module("mkl_fft")
        found["mkl_fft"] = _by_axis(mkl.rfft, mkl.fft, mkl.ifft, mkl.irfft)
        found["mkl_fft 2"] = (mkl.rfft2, lambda s, n: mkl.irfft2(s, (s.shape[0], n)))
    with contextlib.suppress(ImportError):
        ducc = importlib.import_module("ducc0").fft
        found["ducc0"] = (
            lambda a: ducc.c2c(ducc.r2c(a, axes=[1], nthreads=1), axes=[0], nthreads=1),
            lambda s, n: ducc.c2r(
                ducc.c2c(s, axes=[0], forward=False, inorm=2, nthreads=1), axes=[1], lastsize=n, forward=False, inorm=2,
                nthreads=1,
            ),
        )  # fmt: skip
        found["ducc0 2"] = (
            lambda a: ducc.r2c(a, axes=[0, 1], nthreads=1),
            lambda s, n: ducc.c2r(s, axes=[0, 1], lastsize=n, forward=False, inorm=2, nthreads=1),
        )
    with contextlib.suppress(ImportError):
        found["pyfftw 2"] = _fftw(importlib.import_module("pyfftw"))
    return found


def _by_axis(rfft: Any, fft: Any, ifft: Any, irfft: Any) -> Any:
    return (lambda a: fft(rfft(a, axis=1), axis=0), lambda s, n: irfft(ifft(s, axis=0), n, axis=1))


def _fftw(pyfftw: Any) -> Any:
    plans: dict[Any, Any] = {}

    def forward(a: NDArray[Any]) -> NDArray[Any]:
        if a.shape not in plans:
            into = pyfftw.empty_aligned((a.shape[0], a.shape[1] // 2 + 1), "complex64")
            plans[a.shape] = pyfftw.FFTW(pyfftw.empty_aligned(a.shape, "float32"), into, axes=(0, 1), threads=1)
        return cast(NDArray[Any], plans[a.shape](a))

    def inverse(s: NDArray[Any], columns: int) -> NDArray[Any]:
        key = (s.shape, columns)
        if key not in plans:
            out = pyfftw.empty_aligned((s.shape[0], columns), "float32")
            given = pyfftw.empty_aligned(s.shape, "complex64")
            plans[key] = pyfftw.FFTW(given, out, axes=(0, 1), direction="FFTW_BACKWARD", threads=1)
        return cast(NDArray[Any], plans[key](s))

    return forward, inverse


def best(calls: dict[str, Callable[[], Any]], repeat: int) -> dict[str, float]:
    """Least seconds of each, called in turn."""
    least = dict.fromkeys(calls, float("inf"))
    for _ in range(repeat):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            least[name] = min(least[name], time.perf_counter() - start)
    return least


def main() -> None:
    """Time and print ns per element of the real plane."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=40)
    repeat = parser.parse_args().repeat
    found = libraries()
    rng = np.random.default_rng(0)
    print("ns per element".ljust(24), *(name.rjust(9) for name in found))
    for rows, columns in FORWARD:
        plane = rng.random((rows, columns), np.float32)
        expected = np.fft.rfft2(plane)
        for name, (forward, _) in found.items():
            assert np.allclose(forward(plane), expected, atol=1e-5 * abs(expected).max()), name
        took = best({name: partial(f, plane) for name, (f, _) in found.items()}, repeat)
        _row(f"forward {rows} x {columns}", took, rows * columns)
    for rows, columns in INVERSE:
        spectrum = np.fft.rfft2(rng.random((rows, columns))).astype(np.complex64)
        plane = np.fft.irfft2(spectrum, (rows, columns)).astype(np.float32)
        for name, (_, inverse) in found.items():
            assert np.allclose(inverse(spectrum.copy(), columns), plane, atol=1e-5), name
        took = best({name: partial(f, spectrum, columns) for name, (_, f) in found.items()}, repeat)
        _row(f"inverse {rows} x {columns}", took, rows * columns)


def _row(what: str, took: dict[str, float], size: int) -> None:
    print(what.ljust(24), *(f"{s / size * 1e9:9.2f}" for s in took.values()))


if __name__ == "__main__":
    main()
