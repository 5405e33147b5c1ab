"""Dask's scheduler, workers and nannies, without the web servers that anyone on the machine could read.

What they say to each other is encrypted, and each shows a certificate. But Dask gives every scheduler and every worker a web
server besides, which asks nobody who he is. Workers get none here, and the scheduler's answers only below a secret.
"""

from __future__ import annotations

import asyncio
import importlib.util
import secrets
import time
from typing import Any

import distributed
from distributed.http.routing import RoutingApplication
from tornado.routing import Rule, RuleRouter

from simexm.secret import Below

_HEARD_AGAIN_S = 20.0  # workers say every 0.5 to some 6 s, the more the seldomer, that they live


class Scheduler(distributed.Scheduler):
    """A scheduler whose dashboard, if it has one, is found only by whoever knows its address.

    Parameters
    ----------
    dashboard
        Whether to serve Dask's dashboard. Without bokeh there is none.
    dashboard_address
        Where; a free port of loopback.
    """

    def __init__(self, *, dashboard: bool = False, dashboard_address: str = "127.0.0.1:0", **options: Any) -> None:
        served = dashboard and importlib.util.find_spec("bokeh") is not None
        self._secret = secrets.token_urlsafe(24) if served else ""
        super().__init__(
            dashboard=served, dashboard_address=dashboard_address, http_prefix=f"/{self._secret}", **options
        )

    def start_http_server(self, routes: list[Any], *address: Any, **options: Any) -> None:
        """Listen for a browser, and answer nothing but what begins with the secret.

        Dask's own prefix does not do alone: its page at / leads whoever comes to the prefix, and /sitemap.json names it.
        """
        if not self._secret:
            self.http_application = RoutingApplication(routes)
            return
        super().start_http_server(routes, *address, **options)
        self.http_server.request_callback = RuleRouter([Rule(Below(self._secret), self.http_application)])

    @property
    def dashboard_link(self) -> str:
        """Where the dashboard is: for the eyes of the user alone. Empty where there is none."""
        return f"http://127.0.0.1:{self.http_server.port}/{self._secret}/status" if self._secret else ""

    async def check_worker_ttl(self) -> None:
        """Start workers again that have been silent for long.

        They seem silent, too, where this very process could not hear them, stopped or suspended with the whole machine, or
        where its clock was set. Then they are heard again within seconds, for which it waits.
        """
        if any(time.time() - worker.last_seen > self.worker_ttl for worker in self.workers.values()):
            await asyncio.sleep(_HEARD_AGAIN_S)
        await super().check_worker_ttl()


class Worker(distributed.Worker):
    """A worker without a web server."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{**options, "dashboard": False})

    def start_http_server(self, routes: list[Any], *address: Any, **options: Any) -> None:
        """Do not."""
        self.http_application = RoutingApplication(routes)


class Nanny(distributed.Nanny):
    """A nanny of such a worker."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, worker_class=Worker, **options)


class DashboardLink:
    """Mixed into a cluster of Dask's: the link that leads to our scheduler's dashboard."""

    scheduler: Any

    @property
    def dashboard_link(self) -> str:
        """Empty where there is no dashboard."""
        return str(self.scheduler.dashboard_link)


class LocalCluster(DashboardLink, distributed.SpecCluster):
    """Scheduler in this process, and workers as they are described."""
