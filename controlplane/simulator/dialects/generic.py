"""Any API that follows the IETF's `RateLimit` fields (RFC 9651 syntax) and RFC 9457 problems."""

from __future__ import annotations

import math

from controlplane.simulator import summary
from controlplane.simulator.dialects.base import Call, Dialect, Reply, parse_json, seconds, whole
from controlplane.simulator.limits import KeyUse, Refusal
from controlplane.simulator.wire import Request

_QUOTA = "https://iana.org/assignments/http-problem-types#quota-exceeded"


class Generic(Dialect):
    """Every path and method is answered with an echo; tokens are estimated from the body (and `max_tokens` in it)."""

    name = "generic"
    anonymous = True

    def read(self, request: Request, use: KeyUse, now: float) -> Call | Reply:
        given = parse_json(request) or {}
        used = summary.tokens(request.body.decode("utf-8", "replace")) if request.body else 0
        answer = {"ok": True, "method": request.method, "path": request.path, "usage": {"total_tokens": used}}
        return Call(lambda: Reply(200, answer), max(used, whole(given.get("max_tokens"), 0)), used)

    def limit_headers(self, use: KeyUse, now: float, wall: float) -> dict[str, str]:
        policies, states = [], []
        for unit, counter in use.counters.items():
            kind = "" if unit == "requests" else f';qu="{unit}"'
            policies.append(f'"{unit}";q={math.floor(counter.limit)};w=60{kind}')
            states.append(f'"{unit}";r={counter.remaining(now)};t={math.ceil(counter.reset_after(now))}')
        return {"ratelimit-policy": ", ".join(policies), "ratelimit": ", ".join(states)} if policies else {}

    def refuse(self, refusal: Refusal, wall: float) -> Reply:
        body = {"type": _QUOTA, "title": "Quota exceeded", "status": 429, "violated-policies": [refusal.unit]}
        return Reply(429, body, {"content-type": "application/problem+json", "retry-after": seconds(refusal.wait)})

    def error(self, status: int, message: str) -> Reply:
        body = {"type": "about:blank", "title": message, "status": status}
        return Reply(status, body, {"content-type": "application/problem+json"})
