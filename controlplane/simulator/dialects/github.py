"""GitHub's REST API: a window that starts anew, `x-ratelimit-*` with an epoch, 403 for the primary limit, 429 for the secondary."""

from __future__ import annotations

import math

from controlplane.simulator.dialects.base import Call, Dialect, Reply, seconds
from controlplane.simulator.limits import KeyUse, Refusal
from controlplane.simulator.wire import Request

_DOCS = "https://docs.github.com/rest/overview/rate-limits-for-the-rest-api"


class GitHub(Dialect):
    """Every path is answered; `--rpm` requests in each minute (the real service counts by the hour)."""

    name = "github"
    stepping = True
    anonymous = True

    def read(self, request: Request, use: KeyUse, now: float) -> Call | Reply:
        return Call(lambda: Reply(200, {"login": "octocat", "path": request.path, "method": request.method}))

    def limit_headers(self, use: KeyUse, now: float, wall: float) -> dict[str, str]:
        counter = use.counters.get("requests")
        if counter is None:
            return {}
        remaining = counter.remaining(now)
        return {
            "x-ratelimit-limit": str(math.floor(counter.limit)),
            "x-ratelimit-remaining": str(remaining),
            "x-ratelimit-used": str(math.floor(counter.limit) - remaining),
            "x-ratelimit-reset": str(math.ceil(wall + counter.reset_after(now))),
            "x-ratelimit-resource": "core",
        }

    def refuse(self, refusal: Refusal, wall: float) -> Reply:
        if refusal.unit == "requests":
            return Reply(403, {"message": "API rate limit exceeded for user ID 1.", "documentation_url": _DOCS})
        message = "You have exceeded a secondary rate limit. Please wait a few minutes before you try again."
        return Reply(429, {"message": message, "documentation_url": _DOCS}, {"retry-after": seconds(refusal.wait)})

    def error(self, status: int, message: str) -> Reply:
        text = {401: "Bad credentials", 404: "Not Found", 403: "Resource not accessible by integration"}
        return Reply(status, {"message": text.get(status, message), "documentation_url": _DOCS, "status": str(status)})
