"""Serve files of folders and of computed volumes to a browser on this machine.

Neuroglancer's own server serves them, so that there is one port to forward, on loopback only. Every user of this machine can
reach the port, so the address contains a secret.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tornado.web
from tornado.routing import Rule

from simexm.errors import OutputError, SimexmWarning
from simexm.export.skeletons import INFO, precomputed
from simexm.result.skeletons import StoredSkeletons
from simexm.secret import Below
from simexm.store import omezarr
from simexm.store.omezarr import group_bytes
from simexm.view.scene import LevelGeometry
from simexm.view.volume import ServedVolume

LOOPBACK = "127.0.0.1"


class Server:
    """Neuroglancer's server on a loopback port (0: any free one), with further files.

    Raises OutputError if the port is in use, or neuroglancer is not installed.
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
        """Port on loopback."""
        return int(self._server.global_server.port)

    def add_folder(
        self, name: str, folder: Path, groups: dict[str, Sequence[LevelGeometry]], axes: str = "czyx"
    ) -> None:
        """Serve a Zarr's files at /name/; the metadata of `groups` are computed from their levels."""
        metadata = {f"{group}/zarr.json".lstrip("/"): group_file(steps, axes) for group, steps in groups.items()}
        self._add(name, _FolderHandler, {"path": str(folder), "metadata": metadata})

    def add_volume(self, name: str, volume: ServedVolume) -> None:
        """Serve a volume at /name/."""
        metadata = {"zarr.json": group_file(volume.steps, "zyx")}
        self._add(name, _VolumeHandler, {"volume": volume, "metadata": metadata, "ended": self._ended})

    def add_skeletons(self, name: str, skeletons: StoredSkeletons) -> None:
        """Serve skeletons at /name/, an id at a time."""
        self._add(name, _SkeletonHandler, {"skeletons": skeletons})

    def url(self, name: str, group: str = "", kind: str = "zarr3") -> str:
        """Neuroglancer's URL of a group at /name/."""
        inside = f"{group}/" if group else ""
        return f"http://{LOOPBACK}:{self.port}/{self._secret}/{name}/{inside}|{kind}:"

    def stop(self) -> None:
        """Stop the server; chunks in progress are finished first, and waiting ones are not begun."""
        self._ended.set()
        self._server.stop()

    def _add(self, name: str, handler: type[tornado.web.RequestHandler], settings: dict[str, Any]) -> None:
        self._files.add_handlers(".*", [(f"/[^/]*/{name}/(.*)", handler, settings)])


def group_file(steps: Sequence[LevelGeometry], axes: str) -> bytes:
    """Return a group's metadata as OME-Zarr; those of an unfinished result are not written yet."""
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


class _FolderHandler(tornado.web.StaticFileHandler):
    """Serve files below a folder, in pieces and by ranges; `metadata` replace those on the disk."""

    def initialize(self, path: str, metadata: dict[str, bytes]) -> None:  # type: ignore[override]
        super().initialize(path)
        self.metadata = metadata

    async def get(self, path: str, include_body: bool = True) -> None:
        if path in self.metadata:
            self.set_header("Content-Type", "application/json")
            self.set_extra_headers(path)
            self.finish(self.metadata[path])
        elif "\0" in path:  # no file has such a name, and the parent would raise
            raise tornado.web.HTTPError(404)
        else:
            await super().get(path, include_body)

    def validate_absolute_path(self, root: str, absolute_path: str) -> str | None:
        """Refuse files outside the folder, also behind symbolic links, which the parent follows."""
        if not Path(absolute_path).resolve().is_relative_to(Path(root).resolve()):
            raise tornado.web.HTTPError(403)
        return super().validate_absolute_path(root, absolute_path)

    def compute_etag(self) -> str | None:
        return None  # the parent would read the complete file

    def set_extra_headers(self, path: str) -> None:
        self.set_header("Cache-Control", "no-store")  # during a run, shards are added


class _SkeletonHandler(tornado.web.RequestHandler):
    """Serve skeletons as Neuroglancer reads them."""

    SUPPORTED_METHODS = ("GET", "HEAD")

    def initialize(self, skeletons: StoredSkeletons) -> None:
        self.skeletons = skeletons

    async def get(self, path: str) -> None:
        """Answer with metadata, or with the skeleton of an id."""
        self.set_header("Cache-Control", "no-store")
        if path == "info":
            self.set_header("Content-Type", "application/json")
            self.finish(json.dumps(INFO))
            return
        found = self.skeletons.of_id(int(path)) if path.isascii() and path.isdecimal() else {}
        if not len(found.get("id", ())):
            raise tornado.web.HTTPError(404)
        self.set_header("Content-Type", "application/octet-stream")
        self.finish(precomputed(found))

    head = get


class _VolumeHandler(tornado.web.RequestHandler):
    """Serve files of a volume, computed in threads, so that other files are served meanwhile."""

    SUPPORTED_METHODS = ("GET", "HEAD")
    busy = threading.BoundedSemaphore(2)
    """Limits the chunks computed concurrently: more would only hold more memory."""

    def initialize(self, volume: ServedVolume, metadata: dict[str, bytes], ended: threading.Event) -> None:
        self.volume, self.metadata, self.ended = volume, metadata, ended

    async def get(self, path: str) -> None:
        """Answer with metadata, or with a chunk that is computed now."""
        data = self.metadata.get(path)
        if data is None:
            data = await asyncio.get_running_loop().run_in_executor(None, self._compute, path)
        if data is None:
            raise tornado.web.HTTPError(404)
        self.set_header("Cache-Control", "no-store")
        self.set_header("Content-Type", "application/octet-stream")
        self.finish(data)

    head = get

    def _compute(self, path: str) -> bytes | None:
        with self.busy:
            try:
                return None if self.ended.is_set() else self.volume.get(path)
            except Exception as error:
                warnings.warn(f"the ground truth is not shown everywhere: {error}", SimexmWarning, stacklevel=1)
                raise tornado.web.HTTPError(500) from None
