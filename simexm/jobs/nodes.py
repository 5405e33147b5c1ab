"""Dask's scheduler, workers and nannies, without web servers that anyone on the machine could read.

Their connections are encrypted and need a certificate, but Dask also starts a web server in every scheduler and worker,
with no authentication. Here workers have none, and the scheduler's answers only below a secret path.
"""

from __future__ import annotations

import asyncio
import importlib.util
import math
import secrets
import time
from typing import Any

import distributed
from distributed.http.routing import RoutingApplication
from tornado.routing import Rule, RuleRouter

from simexm.secret import Below

_HEARTBEATS_S = 20.0  # long enough for a heartbeat of every worker: one every 0.5 s, with many workers about every 6 s


class Scheduler(distributed.Scheduler):
    """A scheduler that serves its dashboard, if any (it needs bokeh), only below a secret path on a loopback port."""

    def __init__(self, *, dashboard: bool = False, dashboard_address: str = "127.0.0.1:0", **options: Any) -> None:
        served = dashboard and importlib.util.find_spec("bokeh") is not None
        self._secret = secrets.token_urlsafe(24) if served else ""
        super().__init__(
            dashboard=served, dashboard_address=dashboard_address, http_prefix=f"/{self._secret}", **options
        )

    def start_http_server(self, routes: list[Any], *address: Any, **options: Any) -> None:
        """Serve only paths below the secret.

        Dask's own prefix is not enough: its page at / redirects to the prefix, and /sitemap.json names it.
        """
        if not self._secret:
            self.http_application = RoutingApplication(routes)  # type: ignore[no-untyped-call]
            return
        super().start_http_server(routes, *address, **options)  # type: ignore[no-untyped-call]
        self.http_server.request_callback = RuleRouter([Rule(Below(self._secret), self.http_application)])

    @property
    def dashboard_link(self) -> str:
        """Link to the dashboard, for the user alone; empty without one."""
        port = self.http_server.port if self._secret else 0  # type: ignore[attr-defined]
        return f"http://127.0.0.1:{port}/{self._secret}/status" if self._secret else ""

    async def check_worker_ttl(self) -> None:
        """Restart workers without a heartbeat for a long time.

        They seem silent, too, after this process was stopped, the machine suspended or the clock set. Then heartbeats
        come again within seconds, so wait for these first.
        """
        ttl_s = self.worker_ttl or math.inf
        if any(time.time() - worker.last_seen > ttl_s for worker in self.workers.values()):
            await asyncio.sleep(_HEARTBEATS_S)
        await super().check_worker_ttl()


class Worker(distributed.Worker):
    """A worker without a web server."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{**options, "dashboard": False})

    def start_http_server(self, routes: list[Any], *address: Any, **options: Any) -> None:
        """Start none."""
        self.http_application = RoutingApplication(routes)  # type: ignore[no-untyped-call]


class Nanny(distributed.Nanny):
    """A nanny that starts a `Worker`."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{**options, "worker_class": Worker})


class DashboardLink:
    """Mixin for clusters: the link to the dashboard of `Scheduler`."""

    scheduler: Any

    @property
    def dashboard_link(self) -> str:
        """Empty without a dashboard."""
        return str(self.scheduler.dashboard_link)


class LocalCluster(DashboardLink, distributed.SpecCluster):
    """A scheduler in this process, and workers by their specification."""
