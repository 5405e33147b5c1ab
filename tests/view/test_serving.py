"""What `simexm view` hands out to a browser, without one: every file as it is stored or made, and nothing to strangers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray
from typer.testing import CliRunner

from simexm.api import Simulation
from simexm.cli import app
from simexm.errors import SimexmWarning
from simexm.geometry.grid import Box, exact3
from simexm.ingestion.ingest import ingest
from simexm.result.result import Result
from simexm.sources.arrays import ArrayVolume
from simexm.sources.base import LabelSource, open_source
from simexm.sources.phantom import Phantom
from simexm.view.scene import LevelGeometry, Scene
from simexm.view.serving import Server
from simexm.view.volume import ServedVolume
from tests.run.conftest import VOXEL_NM, labels, spec, stored

__all__ = ["labels", "stored"]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    pytest.importorskip("neuroglancer", reason="neuroglancer is not installed; type: pip install neuroglancer")
    made = Server()
    yield made
    made.stop()


def fetch(address: str, **headers: str) -> bytes:
    """What an address hands out."""
    with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=20) as answer:
        found: bytes = answer.read()
    return found


def code_of(address: str) -> int:
    with pytest.raises(urllib.error.HTTPError) as refused:
        fetch(address)
    refused.value.close()
    return refused.value.code


def address(server: Server, name: str) -> str:
    return server.url(name).partition("|")[0]


def test_folders_are_handed_out_by_ranges_and_nothing_beside_them(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr" / "shard").write_bytes(bytes(range(200)))
    (tmp_path / "secret").write_text("mine")
    (tmp_path / "a.zarr" / "link").symlink_to(tmp_path / "secret")
    server.add_folder("a", tmp_path / "a.zarr", {"inside": [LevelGeometry("0", (0.5, 0.2, 0.2), (1, 2, 3))]})
    base = address(server, "a")
    assert fetch(f"{base}shard") == bytes(range(200))
    assert code_of(f"{base}link") == 403
    assert fetch(f"{base}shard", Range="bytes=10-19") == bytes(range(10, 20))
    assert fetch(f"{base}shard", Range="bytes=-7") == bytes(range(193, 200))
    dataset = json.loads(fetch(f"{base}inside/zarr.json"))["attributes"]["ome"]["multiscales"][0]["datasets"][0]
    assert dataset["coordinateTransformations"][1]["translation"] == [0.0, 1.25, 2.1, 3.1]
    assert code_of(f"{base}none") == 404
    key = base.split("/")[3]
    assert len(key) >= 24  # nobody guesses it
    (tmp_path / "a.zarr-2").mkdir()
    (tmp_path / "a.zarr-2" / "secret").write_text("mine")
    above = [
        "../secret",
        "%2e%2e/secret",
        "..%2fsecret",
        "%2e%2e%2fsecret",
        "..%5csecret",
        "....//secret",
        "../a.zarr-2/secret",
    ]
    odd = [
        "",
        "/etc/passwd",
        "%2fetc%2fpasswd",
        "../" * 20 + "etc/passwd",
        "%00",
        "shard%00.json",
        "inside/../../secret",
    ]
    for path in above + odd:
        assert first_line(server, f"/{key}/a/{path}").split()[1] in ("403", "404"), path
    for wrong in ("x" * len(key), key[:-1], f"{key}x", key.swapcase(), "", f"x/../{key}", f"/{key}"):
        assert first_line(server, f"/{wrong}/a/shard").split()[1] == "404", wrong
    for path in (
        "/",
        f"/{key}",
        f"/{key}/",
        "/a/shard",
        "/v/",
        "/v/x/",
        "/sitemap.json",
        f"http://elsewhere/{key}/a/shard",
    ):
        assert first_line(server, path).split()[1] == "404", path


def first_line(server: Server, path: str) -> str:
    """What the server answers first; a client of HTTP would tidy the path up before it asks."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(f"GET {path} HTTP/1.0\r\nHost: x\r\n\r\n".encode())
        return connection.makefile().readline()


def sources(stored: Path, folder: Path, labels: NDArray[np.uint64]) -> Iterator[LabelSource]:
    yield open_source(stored)
    yield ArrayVolume(labels[:20, :70, :66].astype(np.uint16), VOXEL_NM)
    yield Phantom(shape=(70, 90, 80), voxel_size_nm=(40, 32, 32), seed=2).open()
    part = folder / "part.zarr"  # whose levels have other shapes than halves
    ingest(stored, part, exact3(VOXEL_NM), roi="1:10,2:67,3:44")
    yield open_source(part)


@pytest.mark.filterwarnings("ignore::simexm.errors.SimexmWarning")
def test_a_source_is_handed_out_as_it_is(
    server: Server, stored: Path, tmp_path: Path, labels: NDArray[np.uint64]
) -> None:
    """Every level, read by zarr-python over HTTP's bytes, is that of the source, and lies where the source's voxels lie."""
    for n, source in enumerate(sources(stored, tmp_path, labels)):
        volume = ServedVolume(source)
        server.add_volume(f"v{n}", volume)
        copy = tmp_path / f"v{n}"
        for step, level in zip(volume.steps, volume.levels, strict=True):
            cells = [range(-(-size // 64)) for size in level.shape]
            keys = [f"c/{z}/{y}/{x}" for z in cells[0] for y in cells[1] for x in cells[2]]
            for name in ["zarr.json", *keys]:
                path = copy / step.path / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(fetch(f"{address(server, f'v{n}')}{step.path}/{name}"))
            read: Any = zarr.open_array(copy / step.path, mode="r")
            assert read.dtype == source.dtype
            np.testing.assert_array_equal(read[:], level.read(Box.of_shape(level.shape)))
            extent = [float(v) * size / 1000 for v, size in zip(source.voxel_size_nm, source.shape, strict=True)]
            covered = [s * size for s, size in zip(step.scale_um, level.shape, strict=True)]
            assert all(
                e <= c + 1e-9 < e + s + 1e-9 for e, c, s in zip(extent, covered, step.scale_um, strict=True)
            )  # rounded up to whole voxels
            assert step.corner_um == tuple(float(Fraction(o) / 1000) for o in source.origin_nm)
        assert code_of(f"{address(server, f'v{n}')}0/c/99/0/0") == 404
        assert code_of(f"{address(server, f'v{n}')}17/zarr.json") == 404


def test_a_volume_without_coarse_levels_is_not_shown_as_a_whole() -> None:
    assert ServedVolume(Phantom(shape=(500, 10000, 10000), voxel_size_nm=(40, 32, 32)).open()).has_overview
    assert not ServedVolume(Phantom(shape=(10**5, 10**5, 10**5), voxel_size_nm=(40, 32, 32)).open()).has_overview
    assert not ServedVolume(ArrayVolume(np.zeros((1, 1, 3000), np.uint8), VOXEL_NM)).has_overview


@pytest.fixture(scope="module")
def made(stored: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A small result."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SimexmWarning)
        return Simulation.from_mapping(spec(stored)).run(
            tmp_path_factory.mktemp("made") / "a.zarr", until="labelling", quiet=True
        )


def test_a_scene_knows_the_truth_of_a_result_that_lost_its_run(made: Result, tmp_path: Path) -> None:
    whole = Scene.of(made)
    assert whole.truth is not None
    assert whole.lacking == []
    shutil.copytree(made.path, tmp_path / "a.zarr")
    alone = Scene.of(Result.open(tmp_path / "a.zarr"))
    assert alone.truth is not None
    assert [p.name for p in alone.pictures] == ["", "labels/cells", "labels/membrane", "labels/cytosol"]
    assert alone.pictures == whole.pictures


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_the_browser_is_opened_and_the_command_ends_in_good_order(
    made: Result, ending: signal.Signals, tmp_path: Path
) -> None:
    """The user's browser gets the address, which answers until the command is ended, and no longer."""
    opened = tmp_path / "opened"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {opened}.partial && mv {opened}.partial {opened}\n')
    browser.chmod(0o755)
    words = [sys.executable, "-m", "simexm.cli", "view", made.path.name]
    environment = {**os.environ, "BROWSER": str(browser)}
    with subprocess.Popen(words, cwd=made.path.parent, env=environment, stdout=subprocess.PIPE, text=True) as program:
        try:
            while not opened.exists():
                assert program.poll() is None
                time.sleep(0.05)
            page = Path(opened.read_text().strip().removeprefix("file://"))
            assert (
                stat.S_IMODE(page.parent.stat().st_mode) == 0o700
            )  # the command lines of a browser are there for all to read, what it opens is not
            url = page.read_text().partition("url=")[2].partition('"')[0]
            assert b"<html" in fetch(url)
            program.send_signal(ending)
            said, _ = program.communicate(timeout=20)
        finally:
            program.kill()
    assert program.returncode == 0
    assert f"view: {url}\n" in said
    with pytest.raises(urllib.error.URLError):
        fetch(url)


@pytest.mark.parametrize("words", [["view", "none.zarr"], ["view", "none.zarr", "--no-browser"]])
def test_what_is_not_there(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2
    assert "none.zarr does not exist; `simexm run" in done.stderr


def test_a_taken_port_and_a_missing_library_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from simexm.errors import OutputError

    neuroglancer = pytest.importorskip("neuroglancer")
    neuroglancer.stop()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OutputError, match=r"port \d+ of this machine cannot be opened .* --port"):
            Server(taken.getsockname()[1])
    for name in ("neuroglancer", "neuroglancer.server"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(OutputError, match=r'pip install "simexm\[view\]"'):
        Server()
