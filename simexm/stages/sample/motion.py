"""Motion: tissue that moves against the microscope while it is filmed, as a whole."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from simexm.errors import SpecError
from simexm.kernels.motion import paths
from simexm.random import derive_key
from simexm.settings import Frozen
from simexm.stages.contract import Quantity, RunContext, TileState
from simexm.stages.motion_path import COLUMNS, MotionPath, PathFile
from simexm.stages.products import Product
from simexm.stages.roles import TissueMotion

SHIFTS = "shifts"
"""Name of the table."""
Micrometres = Annotated[float, Field(gt=0, le=1e4)]
Seconds = Annotated[float, Field(gt=0, le=1e6)]
Hertz = Annotated[float, Field(gt=0, le=1e3)]


class Walk(Frozen):
    """A random walk along y and x from the place at rest.

    Attributes
    ----------
    um_per_sqrt_s
        Standard deviation after a second; it grows with the square root of time.
    """

    um_per_sqrt_s: Micrometres


class Relaxing(Frozen):
    """An Ornstein-Uhlenbeck process: noise that pulls away, and a pull back to the place at rest.

    Attributes
    ----------
    um
        Standard deviation.
    time_s
        Time over which it is correlated.
    """

    um: Micrometres
    time_s: Seconds = 10.0


class Jumps(Frozen):
    """Sudden jumps along y and x.

    Attributes
    ----------
    per_s
        Jumps a second on average.
    um
        Standard deviation along each axis.
    return_s
        Time over which the tissue returns.
    """

    per_s: Hertz
    um: Micrometres
    return_s: Seconds = 1.0


class Stride(Frozen):
    """A rhythm along one axis, such as that of steps.

    Attributes
    ----------
    um, hz
        Amplitude and rate.
    axis
        The axis.
    """

    um: Micrometres
    hz: Hertz = 7.0
    axis: Literal["y", "x"] = "y"


class Oscillation(Frozen):
    """A damped oscillator along y and x, driven by noise.

    Attributes
    ----------
    um
        Standard deviation along each axis.
    hz
        Rate without damping.
    damping
        Ratio to critical damping.
    """

    um: Micrometres
    hz: Hertz = 6.0
    damping: float = Field(default=0.5, gt=0, lt=1)


class Turning(Frozen):
    """An Ornstein-Uhlenbeck process of the turn about the optical axis.

    Attributes
    ----------
    deg
        Standard deviation.
    time_s
        Time over which it is correlated.
    """

    deg: float = Field(gt=0, le=45)
    time_s: Seconds = 10.0


class Motion(TissueMotion):
    """Tissue moves as a whole while it is filmed; what stays with the microscope, such as the vignette, does not move.

    The kinds of motion add up. Each is a function of the seed and the frame. Motion within an exposure does not blur it.
    The table `shifts` has the truth.

    Attributes
    ----------
    walk, drift, jumps, oscillation, stride
        Kinds of motion along y and x.
    turning
        Turn about the optical axis.
    z
        Motion along the optical axis, an Ornstein-Uhlenbeck process.
    focus_drift_um_per_s
        Steady drift of the tissue away from the objective.
    path
        A path of your own, added to the others: a row for each frame.
    margin_um
        Farthest that the field may look beyond its place at rest; a path that goes farther is refused. By default as far as
        the tissue reaches.
    """

    stage: Literal["motion"] = "motion"
    walk: Walk | None = None
    drift: Relaxing | None = None
    jumps: Jumps | None = None
    oscillation: Oscillation | None = None
    stride: Stride | None = None
    turning: Turning | None = None
    z: Relaxing | None = None
    focus_drift_um_per_s: float = Field(default=0.0, ge=-1e3, le=1e3)
    path: PathFile | None = None
    margin_um: float | None = Field(default=None, ge=0, le=1e5)

    reads: ClassVar[tuple[Quantity, ...]] = ()
    writes: ClassVar[tuple[Quantity, ...]] = ()
    on_gpu: ClassVar[bool] = False

    @model_validator(mode="after")
    def _some(self) -> Self:
        kinds = (self.walk, self.drift, self.jumps, self.oscillation, self.stride, self.turning, self.z, self.path)
        if not any(kinds) and not self.focus_drift_um_per_s:
            raise ValueError(
                "motion names no kind of motion, so the tissue would rest; give walk, drift, jumps, oscillation, stride, "
                "turning, z, focus_drift_um_per_s or path"
            )
        return self

    def resolved(self, curves: Mapping[str, Any]) -> Self:
        """See `Stage`: with a checksum of the path."""
        return self if self.path is None else self.model_copy(update={"path": self.path.resolved()})

    def refuse(self, context: RunContext) -> None:
        """See `Stage`: a path of another length, and a second stage of motion."""
        if context.motion is not self:
            raise SpecError(
                "a second stage 'motion' would never be used; write all kinds of motion into one, where they add up"
            )
        assert context.imaging is not None
        if not context.imaging.formation.follows_motion:
            raise SpecError(
                "motion: this microscope does not image tissue that moves, so the stage would have no effect; use the "
                "stage miniscope, or remove it"
            )
        frames = context.acquisition.length("time")
        if self.path is not None and (found := self.path.read().shape[1]) != frames:
            raise SpecError(
                f"motion.path: {self.path.path} has {found} rows, but the movie has {frames} frames, so some would have no "
                f"place; write a row for each frame, or make the movie {found} frames long"
            )

    def moved(self, context: RunContext) -> MotionPath:
        """See `TissueMotion`."""
        seconds = context.acquisition.time.coordinates if context.acquisition.time else (0.0,)
        frame_s = seconds[1] - seconds[0] if len(seconds) > 1 else 1.0
        return _path(self, context.seed, frame_s, len(seconds))

    # ---------------------------------------------------------------- the truth

    def products(self, context: RunContext) -> tuple[Product, ...]:
        """The table of shifts."""
        return (Product(SHIFTS, "table", key="time", merge="sum"),)

    def rows(self, product: Product, state: TileState) -> dict[str, NDArray[Any]]:
        """All frames, from the tile at the corner."""
        at_corner = not any(state.pixels.start)
        return {"time": np.arange(state.context.acquisition.length("time") if at_corner else 0, dtype=np.uint64)}

    def table(
        self, product: Product, sums: Mapping[str, NDArray[Any]], context: RunContext, counted: Any
    ) -> dict[str, NDArray[Any]]:
        """Columns of the table: `time`, the frame from 0 on, `z_um`, `y_um`, `x_um`, `rotation_rad`; see `MotionPath`."""
        path, frames = self.moved(context), sums["time"].astype(np.int64)
        return {"time": frames, **{name: getattr(path, name)[frames] for name in COLUMNS}}

    def described(self, context: RunContext) -> list[tuple[str, str]]:
        """Farthest places."""
        path = self.moved(context)
        y, x = (float(np.abs(v).max()) for v in (path.y_um, path.x_um))
        found = f"up to {y:.3g} um along y and {x:.3g} um along x"
        if path.z_um.any():
            found += f", z from {path.z_um.min():.3g} to {path.z_um.max():.3g} um"
        if path.rotation_rad.any():
            found += f", turned by up to {math.degrees(np.abs(path.rotation_rad).max()):.2g} degrees"
        return [("motion", found)]

    def run(self, state: TileState) -> None:
        """Do nothing: the microscope follows the motion."""

    def tile_bytes(self, voxels: Any, context: RunContext) -> int:
        """The path."""
        return 64 * context.acquisition.length("time")


@lru_cache(maxsize=4)
def _path(motion: Motion, seed: int, frame_s: float, frames: int) -> MotionPath:
    z, y, x, turn = np.zeros((4, frames)) if motion.path is None else motion.path.read()[:, :frames].copy()

    def key(*parts: str) -> tuple[int, int]:
        return derive_key(seed, "motion", *parts)

    for axis, into in (("y", y), ("x", x)):
        if motion.walk:
            into += paths.walk(frames, motion.walk.um_per_sqrt_s * math.sqrt(frame_s), key("walk", axis))
        if d := motion.drift:
            into += paths.relaxing(frames, d.um, d.time_s / frame_s, key("drift", axis))
        if j := motion.jumps:
            keys = key("jumps"), key("jumps", axis)
            into += paths.jumping(frames, j.per_s * frame_s, j.um, j.return_s / frame_s, keys)
        if o := motion.oscillation:
            keys = key("oscillation", axis, "place"), key("oscillation", axis, "speed")
            into += paths.ringing(frames, o.um, 2 * math.pi * o.hz * frame_s, o.damping, keys)
        if (s := motion.stride) and s.axis == axis:
            into += paths.stride(frames, s.um, s.hz * frame_s, key("stride"))
    if motion.turning:
        sd = math.radians(motion.turning.deg)
        turn += paths.relaxing(frames, sd, motion.turning.time_s / frame_s, key("turning"))
    if motion.z:
        z += paths.relaxing(frames, motion.z.um, motion.z.time_s / frame_s, key("z"))
    z += motion.focus_drift_um_per_s * frame_s * np.arange(frames)
    for part in (z, y, x, turn):
        part.flags.writeable = False
    return MotionPath(z, y, x, turn)
