"""Files for a browser on this machine: of folders, and of volumes that are made as they are asked for.

They are handed out by Neuroglancer's own server, so that there is one port to forward, and none but loopback. Whoever can
reach the port (any user of this machine) must know an unguessable address, too.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tornado.web
from tornado.routing import Rule

from simexm.errors import OutputError, SimexmWarning
from simexm.secret import Below
from simexm.store import omezarr
from simexm.store.omezarr import group_bytes
from simexm.view.scene import Step
from simexm.view.volume import MadeVolume

LOOPBACK = "127.0.0.1"


class Server:
    """Neuroglancer's server, and what it hands out beside its client.

    Parameters
    ----------
    port
        On loopback; 0 takes a free one.

    Raises
    ------
    OutputError
        If the port is taken, or neuroglancer is not installed.
    """

    def __init__(self, port: int = 0) -> None:
        try:
            from neuroglancer import server  # type: ignore[import-untyped]
        except ImportError:
            raise OutputError(
                'Neuroglancer is not installed, so nothing can be shown in a browser; type: pip install "simexm[view]"'
            ) from None
        self._server = server
        self._secret = secrets.token_urlsafe(18)
        self._ended = threading.Event()
        server.set_server_bind_address(LOOPBACK, port)
        try:
            server.start()
        except OSError as error:
            raise OutputError(
                f"port {port} of this machine cannot be opened ({error.strerror}); name another with --port, or leave it out"
            ) from None
        self._files = tornado.web.Application()
        server.global_server.app.add_handlers(".*", [Rule(Below(self._secret), self._files)])

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.global_server.port)

    def add_folder(self, name: str, folder: Path, groups: dict[str, Sequence[Step]], axes: str = "czyx") -> None:
        """Hand out a Zarr's files at /name/; `groups` are images, and what to tell of where their levels lie."""
        told = {f"{group}/zarr.json".lstrip("/"): group_file(steps, axes) for group, steps in groups.items()}
        self._add(name, _Folder, {"path": str(folder), "told": told})

    def add_volume(self, name: str, volume: MadeVolume) -> None:
        """Hand out a volume at /name/."""
        told = {"zarr.json": group_file(volume.steps, "zyx")}
        self._add(name, _Made, {"volume": volume, "told": told, "ended": self._ended})

    def url(self, name: str, group: str = "") -> str:
        """What Neuroglancer calls a group at /name/."""
        inside = f"{group}/" if group else ""
        return f"http://{LOOPBACK}:{self.port}/{self._secret}/{name}/{inside}|zarr3:"

    def stop(self) -> None:
        """End it; what is being made for a browser is finished first, and what waits to be made is not begun."""
        self._ended.set()
        self._server.stop()

    def _add(self, name: str, handler: type[tornado.web.RequestHandler], settings: dict[str, Any]) -> None:
        self._files.add_handlers(".*", [(f"/[^/]*/{name}/(.*)", handler, settings)])


def group_file(steps: Sequence[Step], axes: str) -> bytes:
    """A group's metadata as OME-Zarr; an unfinished result has none of its own yet."""
    lead = len(axes) - 3
    space = [
        {"name": a, "type": "channel"} if a == "c" else {"name": a, "type": "space", "unit": "micrometer"} for a in axes
    ]
    datasets = []
    for step in steps:
        centre = [corner + scale / 2 for corner, scale in zip(step.corner_um, step.scale_um, strict=True)]
        transforms = [
            {"type": "scale", "scale": [1.0] * lead + list(step.scale_um)},
            {"type": "translation", "translation": [0.0] * lead + centre},
        ]
        datasets.append({"path": step.path, "coordinateTransformations": transforms})
    attributes = omezarr.image_attributes([{"name": "", "axes": space, "datasets": datasets}])
    return group_bytes(attributes)


class _Folder(tornado.web.StaticFileHandler):
    """Files below a folder, in pieces and by ranges; some of them others than those on the disk."""

    def initialize(self, path: str, told: dict[str, bytes]) -> None:  # type: ignore[override]
        super().initialize(path)
        self.told = told

    async def get(self, path: str, include_body: bool = True) -> None:
        if path in self.told:
            self.set_header("Content-Type", "application/json")
            self.set_extra_headers(path)
            self.finish(self.told[path])
        elif "\0" in path:  # no file has such a name, and the parent would fail at it
            raise tornado.web.HTTPError(404)
        else:
            await super().get(path, include_body)

    def validate_absolute_path(self, root: str, absolute_path: str) -> str | None:
        """Refuse what a symbolic link leads out to, too, which the parent follows."""
        if not Path(absolute_path).resolve().is_relative_to(Path(root).resolve()):
            raise tornado.web.HTTPError(403)
        return super().validate_absolute_path(root, absolute_path)

    def compute_etag(self) -> str | None:
        return None  # the parent reads the whole file to make one

    def set_extra_headers(self, path: str) -> None:
        self.set_header("Cache-Control", "no-store")  # while a run goes on, shards appear


class _Made(tornado.web.RequestHandler):
    """Files of a volume, made in threads, so that other files are handed out meanwhile."""

    SUPPORTED_METHODS = ("GET", "HEAD")
    busy = threading.BoundedSemaphore(2)
    """Chunks that are made at once: more would only hold more memory."""

    def initialize(self, volume: MadeVolume, told: dict[str, bytes], ended: threading.Event) -> None:
        self.volume, self.told, self.ended = volume, told, ended

    async def get(self, path: str) -> None:
        """Answer with what is told under a path, or with a part of the volume that is made now."""
        made = self.told.get(path)
        if made is None:
            made = await asyncio.get_running_loop().run_in_executor(None, self._make, path)
        if made is None:
            raise tornado.web.HTTPError(404)
        self.set_header("Cache-Control", "no-store")
        self.set_header("Content-Type", "application/octet-stream")
        self.finish(made)

    head = get

    def _make(self, path: str) -> bytes | None:
        with self.busy:
            try:
                return None if self.ended.is_set() else self.volume.get(path)
            except Exception as error:
                warnings.warn(f"the ground truth is not shown everywhere: {error}", SimexmWarning, stacklevel=1)
                raise tornado.web.HTTPError(500) from None
