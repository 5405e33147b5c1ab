"""Whoever else is on the machine gets nothing from a cluster: no connection, no key, no page."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
import stat
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import distributed
import psutil
import pytest
from distributed.security import Security
from tornado.httpclient import HTTPClientError
from tornado.websocket import websocket_connect

from simexm.jobs import nodes
from simexm.jobs.nodes import LocalCluster, Scheduler, Worker

ALERT = b"\x15"
"""The first byte of a record in which TLS says what is wrong."""


def family() -> list[psutil.Process]:
    """This process and all that it has started."""
    return [psutil.Process(), *psutil.Process().children(recursive=True)]


def listening() -> list[tuple[str, int]]:
    """Addresses and ports at which they listen."""
    connections = [c for process in family() for c in process.net_connections("inet")]
    return [(c.laddr.ip, c.laddr.port) for c in connections if c.status == psutil.CONN_LISTEN]


def answer(place: tuple[str, int], context: ssl.SSLContext | None) -> bytes:
    """What a port says to someone who comes in the clear, or over TLS."""
    with socket.create_connection(place, timeout=10) as plain:
        if context is None:
            plain.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return plain.recv(100)
        with context.wrap_socket(plain) as secured:
            secured.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return secured.recv(100)


def test_every_port_asks_for_the_certificate(client: distributed.Client) -> None:
    """Scheduler, workers, nannies: whoever comes without one, or with another, is turned away."""
    nobody = ssl.create_default_context()
    nobody.check_hostname, nobody.verify_mode = False, ssl.CERT_NONE
    stranger = Security.temporary().get_connection_args("client")["ssl_context"]  # type: ignore[no-untyped-call]
    stranger.verify_mode = ssl.CERT_NONE  # he does not mind who answers
    places = listening()
    assert len(places) >= 5
    assert {host for host, _ in places} == {"127.0.0.1"}
    for place in places:
        with contextlib.suppress(ConnectionError):
            assert answer(place, None)[:1] in (b"", ALERT)
        for context in (nobody, stranger):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                answer(place, context)


def test_nobody_else_can_read_the_key(client: distributed.Client) -> None:
    key = client.security.tls_worker_key
    assert "PRIVATE KEY" in key
    line = key.splitlines()[1]
    for process in family():
        assert line not in " ".join(process.cmdline())
        assert line not in " ".join(process.environ().values())
    (folder,) = {Path(w["local_directory"]).parents[1] for w in client.scheduler_info(n_workers=-1)["workers"].values()}
    assert folder.parent == Path(tempfile.gettempdir())
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert not [path for path in folder.rglob("*") if path.is_file() and line in path.read_text(errors="ignore")]


@pytest.fixture(scope="module")
def inside() -> Iterator[LocalCluster]:
    """A scheduler with a dashboard and one worker, in this process."""
    pytest.importorskip("bokeh", reason="bokeh is not installed; type: pip install bokeh")
    options = {"protocol": "inproc://"}
    with LocalCluster(  # type: ignore[no-untyped-call]
        scheduler={"cls": Scheduler, "options": {**options, "dashboard": True}},
        workers={0: {"cls": Worker, "options": {**options, "nthreads": 1}}},
    ) as cluster:
        yield cluster


def code(address: str) -> int:
    """How a web server answers; pages that lead elsewhere are followed."""
    try:
        with urllib.request.urlopen(address, timeout=20) as answered:
            return int(answered.status)
    except urllib.error.HTTPError as refused:
        refused.close()
        return refused.code


def test_dashboard_is_found_by_its_secret_alone(inside: LocalCluster) -> None:
    link = inside.dashboard_link
    root, secret = link.removesuffix("/status").rsplit("/", 1)
    assert len(secret) >= 24
    pages = ["status", "health", "metrics", "json/counts.json", "info/main/workers.html", "statics/css/base.css"]
    for page in [*pages, "individual-task-stream", "static/js/bokeh.min.js"]:
        assert code(f"{root}/{secret}/{page}") == 200
        for wrong in ("", f"{'x' * len(secret)}/", f"{secret[:-1]}/", f"{secret}x/", f"x/../{secret}/", f"/{secret}/"):
            assert code(f"{root}/{wrong}{page}") == 404
    for page in ("", "sitemap.json", "x"):  # Dask's own lead to its prefix, or name it
        assert code(f"{root}/{page}") == 404
    port = inside.scheduler.http_server.port
    assert listening().count(("127.0.0.1", port)) == 1


def test_what_the_dashboard_draws_is_for_its_user_alone(inside: LocalCluster) -> None:
    """It comes through a socket, for which the page has a token."""
    root, secret = inside.dashboard_link.removesuffix("/status").rsplit("/", 1)
    with urllib.request.urlopen(inside.dashboard_link, timeout=20) as page:
        (token,) = set(re.findall(r'"token":"([^"]+)"', page.read().decode()))

    async def opened(prefix: str) -> None:
        address = f"{root}/{prefix}/status/ws".replace("http", "ws")
        (await websocket_connect(address, subprotocols=["bokeh", token])).close()

    asyncio.run(opened(secret))
    for wrong in ("x" * len(secret), secret[::-1], ""):
        with pytest.raises(HTTPClientError, match="404"):
            asyncio.run(opened(wrong))


def test_workers_that_could_not_be_heard_are_kept(inside: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after Ctrl-Z, a suspended machine or a clock that was set: all of them were last heard long ago."""
    monkeypatch.setattr(nodes, "_HEARTBEATS_S", 2.0)
    scheduler = inside.scheduler
    (worker,) = scheduler.workers.values()
    worker.last_seen -= 10_000
    inside.sync(scheduler.check_worker_ttl)  # type: ignore[no-untyped-call]
    assert list(scheduler.workers.values()) == [worker]
