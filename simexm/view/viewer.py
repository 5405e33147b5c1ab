"""Results in Neuroglancer: what is shown, how it is laid out, and where to find it."""

from __future__ import annotations

import atexit
import getpass
import html
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simexm.result.place import SIMULATION
from simexm.result.result import Result
from simexm.view.scene import Picture, Scene
from simexm.view.serving import LOOPBACK, Server
from simexm.view.volume import MadeVolume

_PANEL = 450
"""Pixels of the screen into which the whole image is to fit when several panels are side by side."""
_SLIDER = 4
"""Where the contrast's slider ends, over the window's end: with the camera's largest count there it could hardly be moved."""
_ALPHA = 0.25
"""Of label images over an image."""
_SHADER = """#uicontrol invlerp contrast(range=[{low}, {high}], window=[0, {end}])
#uicontrol vec3 color color(default="#{color}")
void main() {{ emitRGB(color * contrast()); }}
"""


@dataclass(frozen=True)
class Layer:
    """One layer of Neuroglancer.

    Attributes
    ----------
    name
        Unlike all others.
    layer
        Neuroglancer's own.
    visible
        Whether it is shown at first.
    archived
        Whether it is only in the list of layers, of which there may be hundreds, and not in the bar.
    """

    name: str
    layer: Any
    visible: bool
    archived: bool = False


class Viewer:
    """Some results in Neuroglancer, side by side.

    Parameters
    ----------
    results
        What to show.
    port
        On loopback; 0 takes a free one.

    Raises
    ------
    OutputError
        If a run has only begun, or the page cannot be served.
    """

    def __init__(self, results: Sequence[Result], port: int = 0) -> None:
        self.scenes = [Scene.of(result) for result in results]
        self._server = Server(port)
        import neuroglancer  # type: ignore[import-untyped]

        self._viewer = neuroglancer.Viewer()
        names = _unlike([result.path.stem for result in results])
        columns = [
            [*self._layers(f"{n}", scene, f"{name}: " if len(results) > 1 else "")]
            for n, (name, scene) in enumerate(zip(names, self.scenes, strict=True))
        ]
        with self._viewer.txn() as state:
            _set(state, self.scenes, columns)

    @property
    def url(self) -> str:
        """Where the page is."""
        return str(self._viewer.get_viewer_url())

    @property
    def tunnel(self) -> str:
        """What to type on another computer to reach it there at the same address."""
        port = self._server.port
        return f"ssh -L {port}:{LOOPBACK}:{port} {getpass.getuser()}@{socket.gethostname()}"

    def close(self) -> None:
        """End the server."""
        self._server.stop()

    def _layers(self, name: str, scene: Scene, prefix: str) -> Iterator[Layer]:
        import neuroglancer

        result = scene.result
        for kind, axes in (("images", "czyx"), ("labels", "zyx")):
            groups = {p.group: p.steps for p in scene.pictures if bool(p.tints) == (kind == "images")}
            self._server.add_folder(f"{name}/{kind}", result.path, groups, axes)
        truth = MadeVolume(scene.truth) if scene.truth else None
        overseen = truth is not None and truth.overseen  # else it waits until someone who has zoomed in turns it on
        for picture in scene.pictures:
            for c, tint in enumerate(picture.tints):
                low, high = tint.window
                end = max(high, min(tint.largest, _SLIDER * high))
                shader = _SHADER.format(low=_number(low), high=_number(high), end=_number(end), color=tint.color)
                layer = neuroglancer.ImageLayer(
                    source=self._server.url(f"{name}/images", picture.group),
                    shader=shader, blend="additive", opacity=1.0, local_position=[c],
                )  # fmt: skip
                archived = bool(result.acquisition.groups) and not picture.main
                yield Layer(prefix + _called(picture, tint.name), layer, picture.main, archived)
            if not picture.tints:
                shown = not overseen and (picture.name == "labels/cells" or result.kind != SIMULATION)
                yield Layer(prefix + picture.name, self._labels(f"{name}/labels", picture.group), shown)
        if truth is not None:
            self._server.add_volume(f"{name}/truth", truth)
            yield Layer(f"{prefix}ground truth", self._labels(f"{name}/truth", ""), overseen)

    def _labels(self, name: str, group: str) -> Any:
        import neuroglancer

        # with no cell chosen all are shown, and those under the mouse are brighter
        return neuroglancer.SegmentationLayer(
            source=self._server.url(name, group), selected_alpha=_ALPHA, not_selected_alpha=0.0
        )


def _set(state: Any, scenes: Sequence[Scene], columns: Sequence[Sequence[Layer]]) -> None:
    import neuroglancer

    pictures = scenes[0].pictures
    main = next((p for p in pictures if p.main), pictures[0])
    (dz, dy, dx), shape = main.steps[0].scale_um, scenes[0].shape
    z0, y0, x0 = main.steps[0].corner_um
    state.dimensions = neuroglancer.CoordinateSpace(
        names=["x", "y", "z"], units="m", scales=[dx * 1e-6, dy * 1e-6, dz * 1e-6]
    )
    nz, ny, nx = shape
    state.position = [x0 / dx + nx / 2, y0 / dy + ny / 2, z0 / dz + nz // 2 + 0.5]
    # in units of the smallest pixel, on which Neuroglancer's scale rests
    longest = max(nz * dz, ny * dy, nx * dx) / min(dz, dy, dx)
    state.cross_section_scale = longest / _PANEL
    state.projection_scale = 2 * longest
    state.cross_section_background_color = "#000000"
    state.show_slices = True
    for layers in columns:
        for each in layers:
            state.layers.append(
                neuroglancer.ManagedLayer(
                    name=each.name, layer=each.layer, visible=each.visible, archived=each.archived
                )
            )
    if len(columns) == 1:
        state.layout = "4panel"
    else:
        views = [
            neuroglancer.LayerGroupViewer(layers=[each.name for each in layers], layout="xy") for layers in columns
        ]
        state.layout = neuroglancer.row_layout(views)


def _called(picture: Picture, channel: str) -> str:
    return f"{picture.name} {channel}" if picture.name else channel


def _unlike(names: Sequence[str]) -> list[str]:
    """Names with a number behind those that come again."""
    return [n if names.count(n) == 1 else f"{n} ({names[:i].count(n) + 1})" for i, n in enumerate(names)]


def _number(value: float) -> str:
    """As Neuroglancer's shaders read it: without an exponent where it is whole, for a count must be one of its data type."""
    return str(int(value)) if value == int(value) else f"{value:.9g}"


def open_browser(url: str) -> bool:
    """Show an address in this machine's browser, where there is a screen; whether it could be.

    The browser is given a file that only the user can read, and that leads there: whoever is on the machine can read the
    command lines of all programs, and the address is as good as a password.
    """
    import webbrowser

    graphical = not sys.platform.startswith("linux") or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
    )
    if not graphical:  # else it would take a browser in the terminal
        return False
    folder = Path(tempfile.mkdtemp(prefix="simexm-view-"))  # for the user alone
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    page = folder / "view.html"
    page.write_text(
        f'<!DOCTYPE html><meta http-equiv="refresh" content="0; url={html.escape(url)}">\n', encoding="utf-8"
    )
    return webbrowser.open(page.as_uri())
