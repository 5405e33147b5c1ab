"""Choose the device of a run, and check whether a GPU's memory suffices for its tiles."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from simexm.errors import SimexmWarning, SpecError
from simexm.geometry.grid import Triple
from simexm.kernels.devices import cupy_device
from simexm.kernels.devices.array_device import CAPACITY, COUNTED, SLAB
from simexm.kernels.devices.array_planes import AT_ONCE, BATCH_BYTES
from simexm.kernels.emission.emit import emitter_bytes
from simexm.kernels.labels.regions import bits_type
from simexm.planning.blocks import smaller
from simexm.planning.plan import Plan, emitters_depth_nm, voxels_read
from simexm.stages.contract import Stage
from simexm.units import size, times

if TYPE_CHECKING:
    from simexm.spec.simulation import Execution

_BATCHES = 3
"""Intermediate arrays, the FFT library's work area, and memory that the pool holds beside them."""
_SLACK = 1.2
"""For fragmentation: freed memory does not always fit the next array."""


def resolve_device(execution: Execution, stages: Sequence[Stage], have: bool | None = None) -> str:
    """Choose the device of a run, `cpu` or `gpu`.

    `have` says whether the workers have GPUs, if that is known from a cluster file; otherwise this machine is checked.
    Raises SpecError if a GPU is required and there is none, or a stage cannot use it.
    """
    if execution.device == "cpu":
        if have:
            warnings.warn(
                "execution.device is cpu, but the cluster file requests GPUs from the queue, which would be idle; remove its "
                "gpu line, or set device to auto",
                SimexmWarning,
                stacklevel=3,
            )
        return "cpu"
    why = next((f"the stage {s.tag} computes on the CPU only" for s in stages if not s.on_gpu), "")
    if not why and have is False:
        why = "the cluster file requests none (its gpu line)"
    elif not why:
        # if workers have GPUs, the driver needs none, but it needs the same Python packages
        why = cupy_device.lacking() if have else cupy_device.missing()
    if not why:
        return "gpu"
    if execution.require_gpu:
        raise SpecError(
            f"execution.require_gpu is set, but {why}: nothing is computed; run on a machine with a GPU, or remove require_gpu"
        )
    if execution.device == "gpu":
        warnings.warn(
            f"execution.device is gpu, but {why}: the run computes on the CPU, which takes longer; set device to auto if that "
            "is fine, or require_gpu to get an error instead",
            SimexmWarning,
            stacklevel=3,
        )
    return "cpu"


def visible_gpus() -> tuple[str, ...]:
    """List the GPUs that this process may use, named as in CUDA_VISIBLE_DEVICES."""
    if cupy_device.missing():
        return ()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return tuple(n.strip() for n in named.split(",") if n.strip())
    return tuple(map(str, range(cupy_device.count())))


def device_bytes(plan: Plan, tile: Triple) -> int:
    """Predict the GPU memory of a tile of a plan, bytes, from the shapes of the arrays in `array_device`."""
    context, simulation = plan.context, plan.simulation
    voxels = voxels_read(plan.stages, context, tile)
    held = math.prod(min(n, p + 3) for n, p in zip(voxels.shape, plan.part, strict=True))
    # cell indices, regions and grey values; masks, and bits before and after a mask is added, for a while
    bits = bits_type(2 + len(context.masks)).itemsize
    labels = held * (4 + bits * (1 + 2 * bool(context.masks)) + len(context.masks) + 4 * len(context.greys))
    emitters = COUNTED * 12 + CAPACITY * emitter_bytes(context.identified)
    depth_nm = emitters_depth_nm(plan.stages, context, plan.part, voxels.shape, SLAB)
    channels = len(simulation.microscope.all_channels)
    counting = 8 * math.prod(tile) * len(context.emits) * ("labelled" in simulation.keep)
    light = plan.imaging.cost.device_bytes(tile, channels, context, depth_nm, AT_ONCE)
    return int(_SLACK * (labels + emitters + light + counting + _BATCHES * BATCH_BYTES))


def refuse_full(plan: Plan, free: int) -> None:
    """Raise SpecError if a plan's tiles need more memory than the GPU has free."""
    needed = device_bytes(plan, plan.tile)
    if needed > free:
        raise SpecError(
            f"a tile of {times(plan.tile)} pixels needs {size(needed)} of the GPU's memory, but only {size(free)} are "
            f"free: the run would stop halfway; {tile_for(plan, free)}, or end other programs on it"
        )


def tile_for(plan: Plan, free: int) -> str:
    """Return what to type for smaller tiles that a GPU with so many free bytes can compute."""
    tile = smaller(plan.tile, lambda t: t != plan.tile and device_bytes(plan, t) <= free)
    return f"set --tile {' '.join(map(str, tile))}" if tile else "no tile is small enough: simulate fewer channels"
