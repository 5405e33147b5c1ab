"""A secret at the beginning of an address: who does not know it gets nothing from a web server."""

from __future__ import annotations

import hmac
from typing import Any

from tornado.httputil import HTTPServerRequest
from tornado.routing import Matcher


class Below(Matcher):
    """Requests whose path begins with a secret.

    Parameters
    ----------
    secret
        The part of the path between its first two slashes.
    """

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()

    def match(self, request: HTTPServerRequest) -> dict[str, Any] | None:
        """As tornado wants it, an empty dictionary where it matches. It takes as long however much of the secret is right."""
        given = request.path.encode().split(b"/", 2)[1:2]
        return {} if given and hmac.compare_digest(given[0], self._secret) else None
