"""The window: what it shows of a result, moved by a real mouse on a virtual screen, and what is said where there is none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
import zarr
from PIL import ImageGrab
from typer.testing import CliRunner

from simexm.api import Simulation
from simexm.cli import app
from simexm.errors import OutputError
from simexm.result.result import Result
from simexm.view import toolkit, window
from tests.build import spec

PLANES = 16
GREEN, RED = "00FF00", "FF0000"


def store(path: Path, *sizes: int, planes: int = PLANES, status: str = "complete") -> Result:
    """A result by hand with levels of these many pixels a side; each plane of a channel is of one brightness.

    The first channel, green, grows brighter with depth and the second, red, darker: a pixel tells plane and channel.
    """
    channels = [
        {
            "label": name,
            "color": color,
            "active": True,
            "window": {"min": 0, "max": 65535, "start": 100, "end": 110 + 10 * planes},
        }
        for name, color in (("up", GREEN), ("down", RED))
    ]
    scales = [
        {
            "path": str(n),
            "coordinateTransformations": [{"type": "scale", "scale": [1.0, 0.125, 0.04 * 2**n, 0.04 * 2**n]}],
        }
        for n in range(len(sizes))
    ]
    ome = {"version": "0.5", "multiscales": [{"name": "made", "datasets": scales}], "omero": {"channels": channels}}
    zarr.create_group(path, zarr_format=3, attributes={"ome": ome, "simexm": {"hash": "made", "status": status}})
    for level, size in enumerate(sizes):
        array = zarr.create_array(
            path,
            name=str(level),
            shape=(2, planes, size, size),
            chunks=(1, 1, size, size),
            dtype="uint16",
            fill_value=0,
        )
        for z in range(planes if size <= 64 else 0):
            array[0, z], array[1, z] = 100 + 10 * (z + 1), 100 + 10 * (planes - z)
    return Result.open(path)


def brightness(plane: int, planes: int = PLANES) -> tuple[float, float]:
    """Of the first and the second channel in a plane, 0 to 1."""
    return (plane + 1) / (planes + 1), (planes - plane) / (planes + 1)


# -------------------------------------------------------------------- what is read


def test_all_channels_in_their_colours_or_one_in_grey(tmp_path: Path) -> None:
    planes = window.Planes.of(store(tmp_path / "a.zarr", 8))
    assert planes.names == ["merged", "up", "down"]
    for plane in range(PLANES):
        up, down = brightness(plane)
        for channel, color in enumerate([(down, up, 0), (up, up, up), (down, down, down)]):
            np.testing.assert_allclose(planes.rgb(plane, channel), np.broadcast_to(color, (8, 8, 3)))


def test_one_plane_is_read_and_no_other(tmp_path: Path) -> None:
    """What cannot be read of other planes and other channels does not matter."""
    result = store(tmp_path / "a.zarr", 8)
    for chunk in (result.path / "0" / "c").glob("*/*/0/0"):
        if chunk.parts[-4:-2] != ("1", "5"):
            chunk.write_bytes(b"no chunk")
    assert window.Planes.of(result).rgb(5, 2)[0, 0] == pytest.approx([brightness(5)[1]] * 3)
    with pytest.raises(Exception, match=r"."):
        window.Planes.of(result).rgb(5, 0)


@pytest.mark.parametrize(
    ("sizes", "level"), [((1024,), 0), ((1026, 513), 1), ((1030, 515, 258), 1), ((4200, 2100, 1050), 2), ((2000,), 0)]
)
def test_the_finest_level_that_fits_a_screen(sizes: tuple[int, ...], level: int, tmp_path: Path) -> None:
    planes = window.Planes.of(store(tmp_path / "a.zarr", *sizes, planes=1))
    assert planes.level == level
    assert planes.shape == (1, sizes[level], sizes[level])
    assert planes.pixel_um == (0.125, 0.04 * 2**level, 0.04 * 2**level)


def test_an_unfinished_result_is_not_shown(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"incomplete; type the `simexm run` command again"):
        window.Planes.of(store(tmp_path / "a.zarr", 8, status="incomplete"))


# -------------------------------------------------------------------- a real window


@dataclass(frozen=True)
class Screen:
    """A virtual screen with one window in its upper left corner."""

    display: str
    window: str

    def xdotool(self, *words: object) -> None:
        """Move the mouse, press keys."""
        subprocess.run(["xdotool", *map(str, words)], env=_environment(self.display), check=True, timeout=20)

    def drag(self, slider: tuple[float, float, float, float], begin: float, end: float) -> None:
        """Drag a slider's handle from one share of its length to another."""
        width, height = (window._DPI * inches for inches in window._SIZE_INCHES)
        left, bottom, length, thickness = slider
        y = round(height * (1 - bottom - thickness / 2))
        shares = [(window.SLIDER_MARGIN + f) / (1 + 2 * window.SLIDER_MARGIN) for f in np.linspace(begin, end, 6)]
        points = [round(width * (left + length * share)) for share in shares]
        self.xdotool("mousemove", points[0], y, "mousedown", 1)
        for x in points[1:]:
            self.xdotool("mousemove", x, y)
        self.xdotool("mouseup", 1, "mousemove", 5, 5)

    def shown(self) -> tuple[int, str]:
        """Plane and channel in the middle of the picture."""
        color = ImageGrab.grab(xdisplay=self.display).getpixel((380, 386))
        assert isinstance(color, tuple)
        down, up, other = (round(value / 255 * (PLANES + 1)) for value in color)
        if up + down == PLANES + 1 and not other:
            return up - 1, "merged"
        return (up - 1, "grey") if up and up == down == other else (-1, "nothing")

    def comes_to(self, *wanted: object) -> None:
        """Wait until plane and channel are these."""
        deadline = time.monotonic() + 20
        while (found := self.shown()) != wanted:
            assert time.monotonic() < deadline, f"the window shows {found}, not {wanted}"
            time.sleep(0.1)


def _environment(display: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("WAYLAND_DISPLAY", "MPLBACKEND")}
    return {**kept, "DISPLAY": display}


@pytest.fixture(scope="module")
def display() -> Iterator[str]:
    """A virtual screen."""
    missing = [name for name in ("Xvfb", "xdotool") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not installed; type: apt-get install xvfb xdotool")
    pytest.importorskip(
        "tkinter", reason="this Python has no tkinter; type: apt-get install python3-tk", exc_type=ImportError
    )
    read, write = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(write), "-screen", "0", "1280x1024x24", "-dpi", "96", "-nolisten", "tcp"],
        pass_fds=[write], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(write)
    try:
        with os.fdopen(read) as told:
            yield f":{told.readline().strip()}"
    finally:
        server.terminate()
        server.wait(20)


def _opened(display: str, program: subprocess.Popen[bytes], said: Path) -> str:
    """The window's id, when it is there."""
    deadline = time.monotonic() + 120  # the machine may be busy
    while True:
        search = ["xdotool", "search", "--onlyvisible", "--name", "made.zarr - simexm"]
        found = subprocess.run(search, env=_environment(display), capture_output=True, text=True, check=False).stdout
        if found:
            return found.split()[0]
        assert program.poll() is None, said.read_text()
        assert time.monotonic() < deadline, f"no window: {said.read_text()}"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def screen(display: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Screen]:
    """What `simexm show` opens."""
    folder = tmp_path_factory.mktemp("shown")
    store(folder / "made.zarr", 40)
    command = [sys.executable, "-m", "simexm.cli", "show", "made.zarr"]
    with (folder / "said.txt").open("w") as said:
        program = subprocess.Popen(command, cwd=folder, env=_environment(display), stdout=said, stderr=said)
        try:
            yield Screen(display, _opened(display, program, folder / "said.txt"))
            assert program.poll() is None
            window_id = _opened(display, program, folder / "said.txt")
            subprocess.run(
                ["xdotool", "windowfocus", "--sync", window_id, "key", "q"],
                env=_environment(display),
                check=True,
                timeout=20,
            )
            assert program.wait(20) == 0  # a closed window ends the command
        finally:
            program.kill()
            program.wait(20)
    assert (folder / "said.txt").read_text() == ""


MIDDLE, LAST = PLANES // 2, PLANES - 1


def test_sliders_choose_plane_and_channel(screen: Screen) -> None:
    screen.comes_to(MIDDLE, "merged")
    screen.drag(window.PLANE_SLIDER, MIDDLE / LAST, 3 / LAST)
    screen.comes_to(3, "merged")
    screen.drag(window.PLANE_SLIDER, 3 / LAST, 1)
    screen.comes_to(LAST, "merged")
    screen.drag(window.PLANE_SLIDER, 1, 11 / LAST)
    screen.comes_to(11, "merged")
    screen.drag(window.CHANNEL_SLIDER, 0, 0.5)
    screen.comes_to(11, "grey")
    screen.drag(window.CHANNEL_SLIDER, 0.5, 1)
    screen.comes_to(LAST - 11, "grey")  # the second channel, as bright there as the first in that plane
    screen.drag(window.CHANNEL_SLIDER, 1, 0)
    screen.comes_to(11, "merged")


def test_keys_choose_plane_and_channel(screen: Screen) -> None:
    """From wherever the sliders stand; the second channel is as bright in a plane as the first in the opposite one."""
    screen.xdotool("windowfocus", "--sync", screen.window)
    screen.drag(window.PLANE_SLIDER, 0.5, MIDDLE / LAST)
    screen.drag(window.CHANNEL_SLIDER, 0.5, 0)
    screen.comes_to(MIDDLE, "merged")
    for key, plane, colors in (
        ("Up", MIDDLE + 1, "merged"),
        ("Down", MIDDLE, "merged"),
        ("Home", 0, "merged"),
        ("Down", 0, "merged"),
        ("Prior", 10, "merged"),
        ("End", LAST, "merged"),
        ("Right", LAST, "grey"),
        ("Right", 0, "grey"),
        ("Right", LAST, "merged"),
        ("Left", 0, "grey"),
        ("Left", LAST, "grey"),
    ):
        screen.xdotool("key", key)
        screen.comes_to(plane, colors)


# -------------------------------------------------------------------- no window


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A result and a spec in the working directory, and no display."""
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.chdir(tmp_path)
    result = store(tmp_path / "made.zarr", 8)
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(spec()))

    def run(self: Simulation, *_: Any, **__: Any) -> Result:
        return result

    monkeypatch.setattr(Simulation, "run", run)
    return tmp_path


def _no_toolkit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", ":0")

    def missing(*_: object) -> None:
        raise ImportError

    monkeypatch.setattr(toolkit, "TOOLKITS", [missing])


def _dead_display(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", ":4711")


@pytest.mark.parametrize(
    ("how", "words"),
    [
        (None, ("no display", "ssh -X", "simexm show made.zarr")),
        (_no_toolkit, ("apt install python3-tk", "pip install PySide6-Essentials", "simexm show made.zarr")),
        (_dead_display, ("display :4711 (", "ssh -X", "simexm show made.zarr")),
    ],
)
def test_without_a_window_one_is_told_what_to_do(
    how: Any, words: tuple[str, ...], nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`show` fails; a run that was done is done, and says so."""
    if how:
        how(monkeypatch)
    for command, code, start in (
        (["show", "made.zarr"], 2, "error: "),
        (["run", "my.yaml", "--show", "-q"], 0, "warning: "),
    ):
        result = CliRunner().invoke(app, command)
        assert result.exit_code == code
        assert len(result.stderr.splitlines()) == 1
        assert result.stderr.startswith(start)
        for word in words:
            assert word in result.stderr


def test_help_has_an_example() -> None:
    assert "Example: simexm show" in CliRunner().invoke(app, ["show", "--help"]).stdout


def test_the_picture_is_named_where_there_is_one(nowhere: Path) -> None:
    (nowhere / "made.run").mkdir()
    (nowhere / "made.run" / "preview.png").touch()
    for command in (["show", "made.zarr"], ["run", "my.yaml", "--show"]):
        assert str(nowhere / "made.run" / "preview.png") in CliRunner().invoke(app, command).stderr
