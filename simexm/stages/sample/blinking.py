"""Blinking: dyes that switch between on and off states while the microscope films them."""

from __future__ import annotations

import hashlib
import math
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from simexm.errors import SpecError
from simexm.geometry.grid import Box, exact
from simexm.kernels.emission.points import Emitters
from simexm.kernels.switching import chain
from simexm.kernels.switching import exact as solution
from simexm.kernels.switching.chain import Clock, Flashes, Law, States
from simexm.random import derive_key
from simexm.stages.contract import EXPANDED, Chunk, EmitterStream, Quantity, RunContext, Stage, TileState
from simexm.stages.frames import FrameAxis
from simexm.stages.products import Product
from simexm.stages.sample.switching import Switching

TABLE = "localisations"
AT_ONCE = 256
"""Frames for which flashes are held."""
_EMITTER_BYTES = 160
"""Bytes of an emitter while the tile's are sorted."""
_KEPT_BYTES = 96 << 20
ALWAYS = 0.9
"""Mean share of dyes that are on above which nothing blinks."""


class Blinking(Stage):
    """Dyes that switch, filmed frame after frame: the time that each is on in each exposure.

    Every dye is a Markov chain in continuous time, a function of the seed and the dye's identity. The table `localisations`
    lists each dye in each frame in which it is on. Dyes that are not named here do not blink.

    Attributes
    ----------
    frames, frames_per_s
        Number of frames, and their rate. The exposure is the microscope's.
    delay_s
        Time between the first light and the first frame.
    dyes
        How dyes switch, by name of the dye.
    """

    stage: Literal["blinking"] = "blinking"
    frames: int = Field(ge=1, le=10_000_000)
    frames_per_s: float = Field(gt=0, le=100_000)
    delay_s: float = Field(default=0.0, ge=0, le=1e6)
    dyes: dict[str, Switching] = Field(min_length=1, max_length=100)

    reads: ClassVar[tuple[Quantity, ...]] = (EXPANDED,)
    writes: ClassVar[tuple[Quantity, ...]] = (EXPANDED,)
    on_gpu: ClassVar[bool] = False

    @model_validator(mode="after")
    def _enough_frames(self) -> Self:
        if self.frames < 2:
            raise ValueError(
                "frames 1 is a picture, not a movie, so nothing would be seen to blink; give at least 2, or remove the stage"
            )
        return self

    @property
    def wants_identity(self) -> bool:
        """See `Stage`: dyes switch each by itself."""
        return True

    @property
    def flashes(self) -> frozenset[str]:
        """See `Stage`."""
        return frozenset(self.dyes)

    @property
    def frame_axes(self) -> tuple[FrameAxis, ...]:
        """Time."""
        rate = exact(self.frames_per_s)
        return (FrameAxis("time", tuple(float(n / rate) for n in map(Fraction, range(self.frames))), "second"),)

    @property
    def varies(self) -> frozenset[str]:
        """Time."""
        return frozenset({"time"})

    # ---------------------------------------------------------------- checks

    def refuse(self, context: RunContext) -> None:
        """See `Stage`."""
        present = set(context.emits.values())
        for dye in self.dyes:
            if dye not in present:
                raise SpecError(
                    f"blinking names the dye {dye!r}, which no layer carries, so nothing of it would blink; the layers carry "
                    f"{', '.join(sorted(present))}"
                )
            if dye not in context.excitations_per_s:
                raise SpecError(
                    "blinking is filmed by a widefield microscope only, so far: it exposes a whole frame at once; take "
                    "stage: widefield, or remove blinking"
                )
        exposure = context.pixel_time_s or 0.0
        if exposure > 1 / self.frames_per_s:
            raise SpecError(
                f"an exposure of {exposure:g} s does not fit into a frame of {1 / self.frames_per_s:.4g} s, so frames would "
                "overlap; lower exposure_s of the microscope, or frames_per_s"
            )
        if context.geometry.shape[0] > 1:
            raise SpecError(
                f"the image has {context.geometry.shape[0]} planes, but blinking is filmed in one: dyes blink between planes; "
                "give the microscope focus_um"
            )
        for dye in self.dyes:
            share = self.mean_share(dye, context)
            if share > ALWAYS:
                count = self.expected_dyes(dye, context.geometry.crop, context)
                raise SpecError(
                    f"{dye} would be on for {100 * share:.3g} % of the movie, about {share * count:.3g} dyes in every frame, so "
                    f"no molecule would be seen alone; lower the rates that lead to on, or raise those that leave on"
                )

    def mean_share(self, dye: str, context: RunContext) -> float:
        """Mean probability that a dye is on during the movie."""
        one = self.dyes[dye]
        rates = one.rates(context.excitations_per_s[dye])
        first, last = self.delay_s, self.delay_s + self.frames / self.frames_per_s
        times = first + (last - first) * np.linspace(0.0, 1.0, 33) ** 2  # denser early, where most changes
        on = [solution.occupancy(rates, one.begins(rates), t)[0] for t in times]
        return float(np.trapezoid(on, times) / (last - first))

    def expected_dyes(self, dye: str, voxels: Box, context: RunContext) -> float:
        """Rough upper bound of the number of dyes in a box of voxels."""
        z, y, x = (float(v) * 1e-3 for v in context.geometry.voxel_nm)
        found = 0.0
        for layer in getattr(context.labeller, "layers", ()):
            if layer.dye == dye:
                law = layer.law(context)
                each = law.mean * ((z * y + y * x + z * x) / 2 if law.by_surface else 1.0) * law.dyes * law.kept
                found += voxels.size * (each * layer.cell_fraction + layer.unspecific_law(context).mean)
        return found

    def described(self, context: RunContext) -> list[tuple[str, str]]:
        """How often dyes are on, and what is not certain of it."""
        rows = []
        for dye, one in self.dyes.items():
            rates = one.rates(context.excitations_per_s[dye])
            share = self.mean_share(dye, context)
            counts, times = solution.visits(rates, one.begins(rates))
            stay = 1 / rates[0].sum() if rates[0].sum() > 0 else math.inf
            often = (
                "again and again" if not math.isfinite(counts[0]) else f"{counts[0]:.3g} times, {times[0]:.3g} s in all"
            )
            count = share * self.expected_dyes(dye, context.geometry.crop, context)
            text = (
                f"on for {stay:.3g} s, {often}; {100 * share:.3g} % of the movie, at most about {count:.3g} in a frame"
            )
            rows.append((f"blinking: {dye}", text))
            if one.figures and one.figures.unchecked:
                rows.append((f"{one.preset}, unchecked", "; ".join(one.figures.unchecked)))
        return rows

    def provenance(self, sums: Mapping[str, int]) -> dict[str, Any]:
        """Sources of the presets, and what is unchecked."""
        presets = {one.preset: one.figures for one in self.dyes.values() if one.figures}
        return {
            "switching": {name: {"source": f.source, "unchecked": list(f.unchecked)} for name, f in presets.items()}
        }

    # ---------------------------------------------------------------- a tile

    def tile_bytes(self, voxels: Box, context: RunContext) -> int:
        """All dyes of a tile that blink, the states that are kept for the next frames, and flashes."""
        dyes = sum(self.expected_dyes(dye, voxels, context) for dye in self.dyes)
        on = sum(self.expected_dyes(d, voxels, context) * self.mean_share(d, context) for d in self.dyes)
        return int(_EMITTER_BYTES * dyes + 48 * AT_ONCE * on) + _KEPT_BYTES

    def run(self, state: TileState) -> None:
        """Write the stream with those dyes only that are on in the frame, their time on as weight."""
        before: EmitterStream = state.read(EXPANDED)
        crew: _Crew = state.scratch.setdefault("crew", _Crew(self))

        def chunks(dye: str) -> Iterator[Chunk]:
            if dye not in self.dyes:
                yield from before.chunks(dye)
                return
            for layer in crew.layers(dye, before, state.context):
                yield Chunk(layer.name, layer.on(state.frame.time - 1, self, state.context), -math.inf)

        exposure = dict.fromkeys((d for d in self.dyes if d in before.dyes.values()), 1.0 / chain.FULL)
        varying = before.varying | set(exposure)
        state.write(EXPANDED, replace(before, chunks=chunks, varying=varying, flashing=exposure))

    # ---------------------------------------------------------------- the table

    def products(self, context: RunContext) -> tuple[Product, ...]:
        """The table of dyes that are on."""
        columns = {
            "time": "int64", "emitter": "int64", "z_nm": "float64", "y_nm": "float64", "x_nm": "float64", "photons": "float32",
            "on_s": "float32", "cell": "uint64", "layer": "str",
            **{f"photons_{channel}": "float32" for channel in context.channels},
        }  # fmt: skip
        return (Product(TABLE, "table", columns=columns, each_frame=True),)

    def rows(self, product: Product, state: TileState) -> dict[str, NDArray[Any]]:
        """One row for each dye that is on in the frame, where the frame shows it, drift included.

        `time` from 0 on; `emitter`, the same in all frames; places in nm of tissue from the image's
        corner, pixel i having its centre at i + 1/2 pixels; `photons`, expected photo-electrons of all channels in the dye's own
        plane; `on_s` of the exposure.
        """
        context, parts = state.context, []
        stream: EmitterStream = state.read(EXPANDED)  # as later stages left it
        electrons = {(p.channel, p.dye): p.in_focus for p in context.imaging.formation.pairs} if context.imaging else {}
        corner = [float(c) for c in context.geometry.pixels_nm(Box.of_shape((0, 0, 0))).start]
        scale = float(context.geometry.transform.scale)
        for dye in (d for d in self.dyes if d in stream.flashing):
            for chunk in stream.chunks(dye):
                if chunk.layer is not None:
                    own = chunk.emitters.select(chunk.emitters.own != 0)
                    share = own.weight * stream.flashing[dye]
                    seen = {f"photons_{c}": share * electrons.get((c, dye), 0.0) for c in context.channels}
                    parts.append(
                        {
                            "time": np.full(own.z.size, state.frame.time - 1, np.int64),
                            "emitter": chain.emitter_ids(own.identity, _key(context, chunk.layer, "identity")),
                            **{f"{a}_nm": (at - c) / scale for a, at, c in zip("zyx", own[:3], corner, strict=True)},
                            "photons": sum(seen.values(), np.zeros(own.z.size)).astype(np.float32),
                            "on_s": (share * (context.pixel_time_s or 0.0)).astype(np.float32),
                            "cell": state.cell_ids[own.cell].astype(np.uint64),
                            "layer": np.full(own.z.size, chunk.layer, dtype=object),
                            **{name: n.astype(np.float32) for name, n in seen.items()},
                        }
                    )
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def law(self, dye: str, context: RunContext) -> Law:
        """The chain of a dye."""
        return self.dyes[dye].law(context.excitations_per_s[dye])

    def clock(self, context: RunContext) -> Clock:
        """When frames are exposed."""
        assert context.pixel_time_s is not None
        return Clock(self.delay_s, 1 / self.frames_per_s, context.pixel_time_s)


def _key(context: RunContext, layer: str, what: str) -> tuple[int, int]:
    return derive_key(context.seed, "blinking", layer, what)


class _Crew:
    """The dyes of a tile that blink, by dye and layer."""

    def __init__(self, blinking: Blinking) -> None:
        self._blinking = blinking
        self._known: dict[str, list[_Layer]] = {}

    def layers(self, dye: str, stream: EmitterStream, context: RunContext) -> list[_Layer]:
        """Return the layers of a dye; read them from the stream the first time."""
        if dye not in self._known:
            parts: dict[str, list[Emitters]] = {name: [] for name, of in stream.dyes.items() if of == dye}
            for chunk in stream.chunks(dye):
                if chunk.layer is not None and chunk.emitters.z.size:
                    parts[chunk.layer].append(_singly(chunk.emitters))
            law = self._blinking.law(dye, context)
            self._known[dye] = [_Layer(name, some, law, context) for name, some in parts.items()]
        return self._known[dye]


def _taken(emitters: Emitters, at: NDArray[Any]) -> Emitters:
    """Copy emitters with identities, by their indices."""
    z, y, x, weight, cell, own, identity = emitters
    return Emitters(z[at], y[at], x[at], weight[at], cell[at], own[at], identity[at])


def _singly(emitters: Emitters) -> Emitters:
    """Copy emitters, each point of several dyes as that many dyes with identities of their own."""
    of = np.repeat(np.arange(emitters.z.size), emitters.weight)
    number = np.arange(of.size) - np.repeat(np.cumsum(emitters.weight) - emitters.weight, emitters.weight)
    found = _taken(emitters, of)
    found.identity[:, 4] |= number.astype(np.int32)  # the lowest bits number the dyes of a protein
    found.weight[:] = 1
    return found


class _Layer:
    """The dyes of one layer, in ascending order of their numbers, and those that are on in some frames."""

    def __init__(self, name: str, parts: list[Emitters], law: Law, context: RunContext) -> None:
        self.name, self._law = name, law
        whole = [np.concatenate(columns) for columns in zip(*parts, strict=True)] if parts else None
        emitters = Emitters(*whole) if whole else Emitters.empty(0, True)._replace(identity=np.zeros((0, 6), np.int32))
        ids = chain.emitter_ids(emitters.identity, _key(context, name, "identity"))
        order = np.argsort(ids, kind="stable")
        self._ids, self._emitters = ids[order], _taken(emitters, order)
        self._window, self._flashes, self._first = -1, Flashes(*(np.zeros(0, np.int32),) * 3), np.zeros(1, np.int64)

    def on(self, frame: int, blinking: Blinking, context: RunContext) -> Emitters:
        """Return the dyes that are on in a frame, from 0 on."""
        if frame // AT_ONCE != self._window:
            self._follow(frame // AT_ONCE, blinking, context)
        n = frame % AT_ONCE
        mine = slice(self._first[n], self._first[n + 1])
        at = self._flashes.emitter[mine]
        return _taken(self._emitters, at)._replace(weight=self._flashes.weight[mine].copy())

    def _follow(self, window: int, blinking: Blinking, context: RunContext) -> None:
        clock, key = blinking.clock(context), _key(context, self.name, "dwell")
        name = _Past(self._ids, self._law, clock, key)
        _, states = _recall(name, window * AT_ONCE)
        states = chain.begin(self._ids, self._law, key) if states is None else states
        frames = min(AT_ONCE, blinking.frames - window * AT_ONCE)
        self._flashes = chain.follow(self._ids, window * AT_ONCE, frames, self._law, clock, key, states)
        self._first = np.searchsorted(self._flashes.frame, window * AT_ONCE + np.arange(AT_ONCE + 1))
        self._window = window
        _remember(name, window * AT_ONCE + frames, states)


class _Past(NamedTuple):
    """What decides the states of a layer's dyes."""

    ids: NDArray[np.int64]
    law: Law
    clock: Clock
    key: tuple[int, int]

    @property
    def digest(self) -> bytes:
        """Checksum."""
        made = hashlib.blake2b(repr((self.clock, self.key)).encode(), digest_size=16)
        for array in (self.ids, *self.law):
            made.update(np.ascontiguousarray(array).tobytes())
        return made.digest()


_states: OrderedDict[bytes, tuple[int, States]] = OrderedDict()
"""States of dyes at the end of the frames that this process followed last: they save following them from the start."""
_lock = threading.Lock()


def _recall(past: _Past, frame: int) -> tuple[int, States | None]:
    with _lock:
        at, states = _states.get(past.digest, (0, None))
        return (at, states.copy()) if states is not None and at <= frame else (0, None)


def _remember(past: _Past, frame: int, states: States) -> None:
    with _lock:
        _states[past.digest] = frame, states
        _states.move_to_end(past.digest)
        while len(_states) > 1 and sum(kept.nbytes for _, kept in _states.values()) > _KEPT_BYTES:
            _states.popitem(last=False)
