"""Show results in Neuroglancer: layers, layout and address."""

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

from simexm.errors import OutputError
from simexm.result.place import SIMULATION
from simexm.result.result import Result
from simexm.result.skeletons import TABLE as SKELETONS
from simexm.result.skeletons import StoredSkeletons
from simexm.view.scene import Scene
from simexm.view.serving import LOOPBACK, Server
from simexm.view.volume import ServedVolume

_PANEL = 450
"""Pixels of the screen into which the complete image should fit when several panels are side by side."""
_SLIDER = 4
"""End of the contrast slider over the window's end; up to the camera's largest count it could hardly be adjusted."""
_SKELETONS = 100
"""Skeletons that are shown at first, the longest; others by their ids."""
_ALPHA = 0.25
"""Opacity of label images over an image."""
_SHADER = """#uicontrol invlerp contrast(range=[{low}, {high}], window=[0, {end}])
#uicontrol vec3 color color(default="#{color}")
void main() {{ emitRGB(color * contrast()); }}
"""


@dataclass(frozen=True)
class Layer:
    """One layer of Neuroglancer."""

    name: str  # unique
    layer: Any  # Neuroglancer's own
    visible: bool
    archived: bool = False  # only in the list of layers, which may hold hundreds, not in the bar


class Viewer:
    """Results in Neuroglancer, side by side, on a loopback port (0: any free one); skeletons with the first of them.

    Raises OutputError if a run has only begun, or the page cannot be served.
    """

    def __init__(self, results: Sequence[Result], port: int = 0) -> None:
        skeletons = [StoredSkeletons.open(result) for result in results if result.kind == SKELETONS]
        results = [result for result in results if result.kind != SKELETONS]
        if not results:
            raise OutputError(
                f"{skeletons[0].result.path} holds skeletons, which are shown in a volume; name a result with images or labels, "
                "too"
            )
        self.scenes = [Scene.of(result) for result in results]
        self._server = Server(port)
        import neuroglancer  # type: ignore[import-untyped]

        self._viewer = neuroglancer.Viewer()
        names = _unique([result.path.stem for result in results])
        columns = [
            [*self._layers(f"{n}", scene, f"{name}: " if len(results) > 1 else "")]
            for n, (name, scene) in enumerate(zip(names, self.scenes, strict=True))
        ]
        for n, each in enumerate(skeletons):
            self._server.add_skeletons(f"skeletons{n}", each)
            source = self._server.url(f"skeletons{n}", kind="neuroglancer-precomputed")
            layer = neuroglancer.SegmentationLayer(source=source, segments=each.longest(_SKELETONS))
            columns[0].append(
                Layer(_unique([*names, *(s.result.path.stem for s in skeletons)])[len(names) + n], layer, True)
            )
        with self._viewer.txn() as state:
            _set(state, self.scenes, columns)

    @property
    def url(self) -> str:
        """Address of the page."""
        return str(self._viewer.get_viewer_url())

    @property
    def tunnel(self) -> str:
        """The command that forwards the port, so that another computer can open the same address."""
        port = self._server.port
        return f"ssh -L {port}:{LOOPBACK}:{port} {getpass.getuser()}@{socket.gethostname()}"

    def close(self) -> None:
        """Stop the server."""
        self._server.stop()

    def _layers(self, name: str, scene: Scene, prefix: str) -> Iterator[Layer]:
        import neuroglancer

        result = scene.result
        for kind, axes in (("images", "czyx"), ("labels", "zyx")):
            groups = {p.group: p.steps for p in scene.pictures if bool(p.tints) == (kind == "images")}
            self._server.add_folder(f"{name}/{kind}", result.path, groups, axes)
        truth = ServedVolume(scene.truth) if scene.truth else None
        truth_visible = truth is not None and truth.has_overview  # else the user turns it on after zooming in
        for picture in scene.pictures:
            for c, tint in enumerate(picture.tints):
                low, high = tint.window
                end = max(high, min(tint.largest, _SLIDER * high))
                shader = _SHADER.format(low=_number(low), high=_number(high), end=_number(end), color=tint.color)
                source = self._server.url(f"{name}/images", picture.group)
                style = {"shader": shader, "blend": "additive", "opacity": 1.0}
                layer = neuroglancer.ImageLayer(source=source, local_position=[c], **style)
                archived = bool(result.acquisition.groups) and not picture.main
                yield Layer(prefix + f"{picture.name} {tint.name}".lstrip(), layer, picture.main, archived)
            if not picture.tints:
                shown = not truth_visible and (picture.name == "labels/cells" or result.kind != SIMULATION)
                yield Layer(prefix + picture.name, self._labels(f"{name}/labels", picture.group), shown)
        if truth is not None:
            self._server.add_volume(f"{name}/truth", truth)
            yield Layer(f"{prefix}ground truth", self._labels(f"{name}/truth", ""), truth_visible)

    def _labels(self, name: str, group: str) -> Any:
        import neuroglancer

        # without a selection all cells are shown, and those under the mouse are brighter
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
    # in units of the smallest pixel, as Neuroglancer's scales are
    longest = max(nz * dz, ny * dy, nx * dx) / min(dz, dy, dx)
    state.cross_section_scale = longest / _PANEL
    state.projection_scale = 2 * longest
    state.cross_section_background_color = "#000000"
    state.show_slices = True
    for layers in columns:
        for each in layers:
            flags = {"visible": each.visible, "archived": each.archived}
            state.layers.append(neuroglancer.ManagedLayer(name=each.name, layer=each.layer, **flags))
    if len(columns) == 1:
        state.layout = "4panel"
    else:
        names = [[each.name for each in layers] for layers in columns]
        state.layout = neuroglancer.row_layout([neuroglancer.LayerGroupViewer(layers=n, layout="xy") for n in names])


def _unique(names: Sequence[str]) -> list[str]:
    """Append a number to each repeated name."""
    return [n if names.count(n) == 1 else f"{n} ({names[:i].count(n) + 1})" for i, n in enumerate(names)]


def _number(value: float) -> str:
    """Format a number for Neuroglancer's shaders: an integer without an exponent, since a count must be of the data type."""
    return str(int(value)) if value == int(value) else f"{value:.9g}"


def open_browser(url: str) -> bool:
    """Open an address in this machine's browser, if there is a screen; return whether it opened.

    The browser opens a private file that redirects to the address: the address contains a secret, and all users of the machine
    can read the command lines of programs.
    """
    import webbrowser

    graphical = not sys.platform.startswith("linux") or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
    )
    if not graphical:  # else a text browser would start in the terminal
        return False
    folder = Path(tempfile.mkdtemp(prefix="simexm-view-"))  # readable by the user only
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    page = folder / "view.html"
    page.write_text(
        f'<!DOCTYPE html><meta http-equiv="refresh" content="0; url={html.escape(url)}">\n', encoding="utf-8"
    )
    return webbrowser.open(page.as_uri())
