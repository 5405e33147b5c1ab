"""A secret at the start of a URL's path, without which a web server answers nothing."""

from __future__ import annotations

import hmac
from typing import Any

from tornado.httputil import HTTPServerRequest
from tornado.routing import Matcher


class Below(Matcher):
    """Requests whose path has a secret between its first two slashes."""

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()

    def match(self, request: HTTPServerRequest) -> dict[str, Any] | None:
        """Return {} on a match, as tornado expects; the comparison takes constant time."""
        given = request.path.encode().split(b"/", 2)[1:2]
        return {} if given and hmac.compare_digest(given[0], self._secret) else None
