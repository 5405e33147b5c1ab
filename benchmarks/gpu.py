"""One tile on a CPU core and on the GPU: seconds, transfers and compute apart, and the transforms' share.

python -m benchmarks.gpu                              # the benchmark spec on a phantom
python -m benchmarks.gpu --shape 256 512 512 --repeat 5

Each figure is the best of several repeats, after one that compiles and fills caches. Transfers and transforms are timed in
runs of their own, for the clock waits for the device before and after each.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import yaml
from numpy.typing import NDArray

from benchmarks.end_to_end import machine
from simexm.api import Simulation
from simexm.geometry.grid import Box, Triple
from simexm.kernels.devices import cupy_device
from simexm.kernels.devices.array_device import ArrayDevice
from simexm.kernels.devices.array_planes import Backend
from simexm.planning.plan import Plan
from simexm.run.block import compute_box
from simexm.sources.arrays import ArrayVolume
from simexm.sources.phantom import Phantom
from simexm.stages.contract import Counted

SPEC = Path(__file__).with_name("confocal_membrane.yaml")
VOXEL_NM = (40.0, 32.0, 32.0)
TRANSFORMS = ("rfft", "fft", "ifft", "irfft")


class Watch:
    """A backend whose transfers and transforms are timed; `seconds` of each kind, as far as they are in `watched`."""

    def __init__(self, backend: Backend, synchronize: Callable[[], None], watched: frozenset[str]) -> None:
        self._backend, self._synchronize, self._watched = backend, synchronize, watched
        self.seconds = {"transfer": 0.0, "transform": 0.0}
        self.xp: Any = self
        transforms = {n: self._timed("transform", getattr(backend.xp.fft, n)) for n in TRANSFORMS}
        self.fft = SimpleNamespace(**transforms)
        self.out_of_memory = backend.out_of_memory
        self.launch, self.free = backend.launch, backend.free

    def __getattr__(self, name: str) -> Any:
        """Attributes of the namespace that are not watched."""
        return getattr(self._backend.xp, name)

    def _timed(self, what: str, function: Callable[..., Any]) -> Callable[..., Any]:
        if what not in self._watched:
            return function

        def timed(*arguments: Any, **options: Any) -> Any:
            self._synchronize()
            start = time.perf_counter()
            result = function(*arguments, **options)
            self._synchronize()
            self.seconds[what] += time.perf_counter() - start
            return result

        return timed

    def asarray(self, array: Any, **options: Any) -> Any:
        """Move an array of the host to the device."""
        function = self._backend.xp.asarray
        return (self._timed("transfer", function) if isinstance(array, np.ndarray) else function)(array, **options)

    def to_host(self, array: Any) -> NDArray[Any]:
        """See `Backend`."""
        return np.asarray(self._timed("transfer", self._backend.to_host)(array))


def seconds_of(plan: Plan, source: ArrayVolume, repeat: int) -> float:
    """The best of several repeats of the first tile, after one to warm up."""
    tile = plan.blocks[0]
    best = np.inf
    for n in range(repeat + 1):
        start = time.perf_counter()
        compute_box(plan, source, Counted(), tile)
        if n:
            best = min(best, time.perf_counter() - start)
    return float(best)


def compare(
    spec: dict[str, Any], shape: Triple, repeat: int, backend: Backend, synchronize: Callable[[], None]
) -> dict[str, float]:
    """Seconds of a block on the CPU and on the GPU, and of the latter those of transfers and of transforms.

    The labels of a phantom are held in memory, so that neither reading nor decoding is in the figures.
    """
    labels = Phantom(shape=shape, voxel_size_nm=VOXEL_NM).open()
    source = ArrayVolume(labels.read(Box.of_shape(shape)), VOXEL_NM, None)
    found: dict[str, float] = {}
    simulation = Simulation.from_mapping({**spec, "source": {"path": "memory"}})
    found["cpu"] = seconds_of(simulation.with_device("cpu").plan(source=source), source, repeat)
    for name in ("", "transfer", "transform"):
        watch = Watch(backend, synchronize, frozenset((name,)))
        device = ArrayDevice(watch)
        with patch.object(cupy_device, "gpu", lambda device=device: device):
            plan = simulation.with_device("gpu").plan(source=source)
            assert plan.context.device == "gpu", cupy_device.missing()
            total = seconds_of(plan, source, repeat)
        found[name or "gpu"] = watch.seconds[name] / (repeat + 1) if name else total
    return found


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", nargs=3, type=int, default=(256, 512, 512), metavar=("Z", "Y", "X"))
    parser.add_argument("--repeat", type=int, default=5)
    given = parser.parse_args()
    if why := cupy_device.missing():
        raise SystemExit(f"there is nothing to measure: {why}")
    import cupy  # type: ignore[import-not-found]

    warnings.simplefilter("ignore")
    name = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
    print(f"machine: {machine()}; {name}, CuPy {cupy.__version__}")
    z, y, x = given.shape
    spec = yaml.safe_load(SPEC.read_text())
    found = compare(spec, (z, y, x), given.repeat, cupy_device.CuPy(), cupy.cuda.get_current_stream().synchronize)
    compute = found["gpu"] - found["transfer"]
    print(f"CPU core: {found['cpu']:.3f} s a tile")
    print(f"GPU: {found['gpu']:.3f} s, of which {found['transfer']:.3f} s transfers and {compute:.3f} s compute")
    print(f"transforms: {found['transform']:.3f} s, {found['transform'] / compute:.0%} of the compute")
    print(f"the core over the GPU: {found['cpu'] / found['gpu']:.1f}, its compute alone {found['cpu'] / compute:.1f}")


if __name__ == "__main__":
    main()
