"""Show a result in a window, one plane, or frame of a movie, at a time, with sliders for plane and channel.

The space bar plays a movie, or the planes of a stack, at the speed of the recording: frames are left out where the computer is
too slow, so that time does not stretch.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from simexm.result.result import Result
from simexm.view.picture import level_for_screen, merged
from simexm.view.toolkit import open_figure

if TYPE_CHECKING:
    from matplotlib.backend_bases import KeyEvent
    from matplotlib.figure import Figure

LARGEST = 1024
"""Most pixels a side of the level that is shown, unless the coarsest is larger."""
KEPT_BYTES = 2**28
"""Most bytes of cached planes, all channels together; a level with thicker chunks is read plane by plane."""
MERGED = "merged"

PLANE_SLIDER = (0.14, 0.075, 0.62, 0.03)
CHANNEL_SLIDER = (0.14, 0.03, 0.62, 0.03)
"""Left, bottom, width, height in shares of the window."""
SLIDER_MARGIN = 0.025
"""Margin at each end of a slider, as a share of its range: else half of a handle there would not react to the mouse."""
_IMAGE = (0.01, 0.13, 0.98, 0.82)
_SIZE_INCHES, _DPI = (7.6, 8.4), 100
PLANES_PER_S = 10.0
"""Speed at which planes without times are played."""
_PLAY_MS = 30
"""Least time between frames that are drawn."""
_WAIT_MS = 10
"""Delay between the last movement of a slider and reading its plane: a drag passes more planes than can be drawn."""


@dataclass(frozen=True)
class Planes:
    """Planes of a result at the level that suits a screen; of a movie of one plane, its frames."""

    result: Result
    level: int
    names: list[str]  # choices of the channel slider: all channels merged, then each
    layer: dict[tuple[int, int], NDArray[Any]] = field(
        default_factory=dict
    )  # cached chunks, by channel and first plane

    @classmethod
    def of(cls, result: Result) -> Planes:
        """Choose the level; raises OutputError if the result is not finished."""
        result.require_complete()
        level = level_for_screen(result, LARGEST)
        return cls(result, level, [MERGED, *(c["label"] for c in result.channels)])

    @property
    def moves(self) -> bool:
        """Whether it is a movie of one plane."""
        return self.result.acquisition.time is not None and self.result.array(self.level).shape[1] == 1

    @property
    def shape(self) -> tuple[int, int, int]:
        """Planes, or frames, rows and columns of the level."""
        _, planes, rows, columns = self.result.array(self.level).shape
        return self.result.acquisition.length("time") if self.moves else planes, rows, columns

    @property
    def pixel_um(self) -> tuple[float, float, float]:
        """Pixel of the level, z y x, um of tissue."""
        return self.result.pixel_um(self.level)

    @property
    def first(self) -> int:
        """The plane shown first: the middle one, or the first frame."""
        return 0 if self.moves else self.shape[0] // 2

    @property
    def frame_s(self) -> float:
        """Time between planes when they are played."""
        time = self.result.acquisition.time
        if not self.moves or time is None or time.unit != "second" or len(time.coordinates) < 2:
            return 1 / PLANES_PER_S
        return max((time.coordinates[-1] - time.coordinates[0]) / (len(time.coordinates) - 1), 1e-3)

    def place(self, plane: int) -> str:
        """Say where a plane lies, or when a frame was taken."""
        time = self.result.acquisition.time
        if self.moves and time is not None:
            return f"{time.coordinates[plane]:.2f} {time.unit}"
        return f"{(plane + 0.5) * self.pixel_um[0]:.2f} µm deep in tissue"

    def rgb(self, plane: int, channel: int) -> NDArray[np.float64]:
        """Read a plane, and no chunks but its own; returns (rows, columns, 3), 0 to 1, in the display windows.

        Channel 0 is all channels in their colours, channel n the n-th alone in grey.
        """
        channels = self.result.channels
        chosen = range(len(channels)) if channel == 0 else [channel - 1]
        data = np.stack([self._read(c, plane) for c in chosen])
        colors = [channels[c]["color"] if channel == 0 else "FFFFFF" for c in chosen]
        windows = self.result.windows
        return merged(data, colors, [windows[c] for c in chosen])

    def _read(self, channel: int, plane: int) -> NDArray[Any]:
        """Read a plane; its neighbours in the same chunks, decoded with it, are cached."""
        stored = self.result.series(self.level) if self.moves else self.result.array(self.level)
        along = 0 if self.moves else 1
        thick = stored.chunks[along]

        def read(at: int | slice) -> NDArray[Any]:
            return np.asarray(stored[at, channel, 0] if self.moves else stored[channel, at])

        if thick * stored.nbytes > KEPT_BYTES * stored.shape[along]:
            return read(plane)
        first = plane - plane % thick
        if (channel, first) not in self.layer:
            for old in [key for key in self.layer if key[1] != first]:
                del self.layer[old]
            self.layer[channel, first] = read(slice(first, first + thick))
        found: NDArray[Any] = self.layer[channel, first][plane - first]
        return found


def show(result: Result) -> None:
    """Open a window and return when it is closed.

    Raises NoWindowError if there is no display or no toolkit, OutputError if the result is unfinished or damaged.
    """
    planes = Planes.of(result)
    import matplotlib as mpl
    from matplotlib import pyplot

    picture = result.place.run / "preview.png"
    instead = f"then type: simexm show {_short(result.path)}; or " + (
        f"look at {picture}" if picture.exists() else "copy the result to a computer with a screen"
    )
    taken = {"left", "right", "home", "up", "down", "pageup", "pagedown", "end"}
    keymaps = {k: [key for key in v if key not in taken] for k, v in mpl.rcParams.items() if k.startswith("keymap.")}
    with mpl.rc_context({**keymaps, "figure.raise_window": True}):
        figure = open_figure(f"{result.path.name} - simexm", _SIZE_INCHES, _DPI, instead)
        viewer = Viewer(planes, figure)  # referenced until the window is closed: Matplotlib holds callbacks weakly
        try:
            pyplot.show(block=True)
        finally:
            del viewer
            with suppress(Exception):  # the toolkit's: the window may have been destroyed from outside
                pyplot.close(figure)


class Viewer:
    """Sliders, keys and the picture that they control, in a figure of any of Matplotlib's backends."""

    def __init__(self, planes: Planes, figure: Figure) -> None:
        from matplotlib.widgets import Slider

        self._planes = planes
        nz, rows, columns = planes.shape
        _, y, x = planes.pixel_um
        axes = figure.add_axes(_IMAGE)
        axes.axis("off")
        self._image = axes.imshow(
            np.zeros((rows, columns, 3)), extent=(0, columns * x, rows * y, 0), interpolation="nearest"
        )
        self._title = figure.text(0.5, 0.975, "", color="white", ha="center", va="center", fontsize=11)
        style: dict[str, Any] = {"valstep": 1, "initcolor": "none", "color": "0.65", "track_color": "0.25"}
        self._plane = Slider(
            figure.add_axes(PLANE_SLIDER),
            "frame" if planes.moves else "plane",
            0,
            max(nz - 1, 1),
            valinit=planes.first,
            **style,
        )
        self._channel = Slider(figure.add_axes(CHANNEL_SLIDER), "channel", 0, len(planes.names) - 1, valinit=0, **style)
        for slider in (self._plane, self._channel):
            slider.label.set_color("white")
            slider.valtext.set_color("white")
            reach = SLIDER_MARGIN * (slider.valmax - slider.valmin)
            slider.ax.set_xlim(slider.valmin - reach, slider.valmax + reach)
            slider.on_changed(self._soon)
        self._plane.ax.set_visible(nz > 1)
        self._plane.set_active(nz > 1)
        self._timer = figure.canvas.new_timer(interval=_WAIT_MS)
        self._timer.single_shot = True
        self._timer.add_callback(self._draw)
        self._started: tuple[float, int] | None = None  # clock and plane at which playing began
        self._ticks = figure.canvas.new_timer(interval=max(_PLAY_MS, round(1000 * planes.frame_s)))
        self._ticks.add_callback(self._tick)
        figure.canvas.mpl_connect("key_press_event", self._key)
        self._figure = figure
        self._draw()

    @property
    def plane(self) -> int:
        """Position of the plane slider."""
        return min(round(self._plane.val), self._planes.shape[0] - 1)

    @property
    def channel(self) -> int:
        """Position of the channel slider; 0 is all channels."""
        return round(self._channel.val)

    def _soon(self, _: float) -> None:
        self._label()
        self._timer.stop()
        self._timer.start()

    def _label(self) -> None:
        nz = self._planes.shape[0]
        name = self._planes.names[self.channel]
        self._plane.valtext.set_text(f"{self.plane + 1} of {nz}")
        self._channel.valtext.set_text(name)
        level = f", level {self._planes.level}" if self._planes.level else ""
        self._title.set_text(f"{name}, {self._planes.place(self.plane)}{level}")

    def _draw(self) -> None:
        self._label()
        self._image.set_data(self._planes.rgb(self.plane, self.channel))
        self._figure.canvas.draw_idle()

    def _play(self) -> None:
        """Begin to play at the current plane, or stop."""
        if self._started is None and self._planes.shape[0] > 1:
            self._started = time.monotonic(), self.plane
            self._ticks.start()
        else:
            self._started = None
            self._ticks.stop()

    def _tick(self) -> None:
        """Show the plane of this moment; after the last one comes the first."""
        if self._started is None:
            return
        clock, first = self._started
        passed = int((time.monotonic() - clock) / self._planes.frame_s)
        wanted = (first + passed) % self._planes.shape[0]
        if wanted != self.plane:
            self._plane.set_val(wanted)
            self._timer.stop()
            self._draw()

    def _key(self, event: KeyEvent) -> None:
        if event.key == " ":
            self._play()
            return
        self._started = None  # whoever moves the slider looks at one plane
        self._ticks.stop()
        nz, names = self._planes.shape[0], len(self._planes.names)
        steps = {"up": 1, "down": -1, "pageup": 10, "pagedown": -10, "home": -nz, "end": nz}
        if event.key in steps:
            self._plane.set_val(min(max(self.plane + steps[event.key], 0), nz - 1))
        elif event.key in ("left", "right"):
            step = -1 if event.key == "left" else 1
            self._channel.set_val((self.channel + step) % names)


def _short(path: Path) -> Path:
    try:
        return path.relative_to(Path.cwd())
    except ValueError:
        return path
