"""The provider: reads a request, applies the limits and faults of its key, and answers."""

from __future__ import annotations

import json
import random
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any

from controlplane.simulator.dialects import DIALECTS, Dialect
from controlplane.simulator.dialects.base import Call, Reply
from controlplane.simulator.faults import BadFault, Fault
from controlplane.simulator.limits import KeyLimits, KeyUse
from controlplane.simulator.stats import Stats
from controlplane.simulator.wire import Request, Response

_ANONYMOUS = "anonymous"
_MAX_UNLISTED_KEYS = 10_000
_SERVER_ERRORS = (500, 502, 503)


@dataclass(frozen=True, slots=True)
class Settings:
    """The options as values. `latency` is in seconds."""

    dialect: str = "openai"
    defaults: KeyLimits = field(default_factory=KeyLimits)
    keys: dict[str, KeyLimits] = field(default_factory=dict)
    latency: float = 0.0
    error_rate: float = 0.0
    seed: int | None = None


class Provider:
    """Answers requests. `clock` is monotonic seconds, `wall` Unix seconds."""

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.dialect: Dialect = DIALECTS[settings.dialect]()
        self.stats = Stats()
        self._settings = settings
        self._clock = clock
        self._wall = wall
        self._random = random.Random(settings.seed)
        self._faults: OrderedDict[tuple[str, str], Fault] = OrderedDict()
        self._keys: dict[str, KeyUse] = {}
        self._date = (0, "")
        for key in settings.keys:
            self._use(key)

    def answer(self, request: Request) -> Response:
        """The answer to any request, the simulator's own pages included."""
        if request.path.startswith("/_"):
            return self._own_page(request)
        credential = self.dialect.credential(request)
        key = credential or (_ANONYMOUS if self.dialect.anonymous else "")
        idempotency_key = request.headers.get("idempotency-key", "")
        self.stats.arrived(request.headers.get("x-request-id", ""))
        if idempotency_key:
            self.stats.saw_idempotency_key(idempotency_key)
        use = self._use(key)
        use.requests += 1
        faults = [fault for fault in self._faults.values() if fault.hits(key) and self._happens(fault.rate)]
        reply, finish = self._reply(request, key, use, faults)
        response = self._response(reply, key, use, faults)
        if finish:
            use.in_flight += 1
        self.stats.statuses[reply.status] += 1

        def done(whole: bool) -> None:
            if finish:
                use.in_flight -= 1
                if whole and reply.status < 400:
                    use.succeeded += 1
                    self.stats.answered(idempotency_key)

        response.done = done
        return response

    def _reply(self, request: Request, key: str, use: KeyUse, faults: Iterable[Fault]) -> tuple[Reply, bool]:
        """The answer, and whether the work was done (it is in flight until then)."""
        if not key or any(fault.invalid_key == key for fault in faults):
            return self.dialect.error(401, "Incorrect API key provided."), False
        failing = next((fault.status for fault in faults if fault.status is not None), None)
        if failing is None and self._happens(self._settings.error_rate):
            failing = self._random.choice(_SERVER_ERRORS)
        if failing is not None:
            self.stats.faulted += 1
            if failing == 429:
                self._count_refusal(use)
            return self.dialect.error(failing, f"The server answered {failing} on request."), False
        now = self._clock()
        call = self.dialect.read(request, use, now)
        if isinstance(call, Reply):
            return call, False
        return self._served(call, use, now)

    def _served(self, call: Call, use: KeyUse, now: float) -> tuple[Reply, bool]:
        refusal = use.admit({"requests": 1, "tokens": call.estimate}, now, call.extra)
        if refusal is not None:
            self._count_refusal(use)
            return self.dialect.refuse(refusal, self._wall()), False
        use.reconcile("tokens", call.estimate, call.used)
        use.tokens += call.used
        return call.answer(), True

    def _response(self, reply: Reply, key: str, use: KeyUse, faults: Iterable[Fault]) -> Response:
        skew = sum(fault.clock_skew for fault in faults)
        wall = self._wall() + skew
        headers = {"content-type": "application/json", "date": self._http_date(wall)}
        if reply.status != 401:
            headers |= self.dialect.limit_headers(use, self._clock(), wall)
        headers |= reply.headers
        body = reply.encoded()
        for fault in faults:
            if fault.missing_headers:
                headers = {"content-type": headers["content-type"]}
            for name, value in (fault.headers or {}).items():
                headers.pop(name.lower(), None)
                if value is not None:
                    headers[name.lower()] = value
            if fault.body is not None:
                body = fault.body.replace("{credential}", key).encode()
        delay = self._settings.latency + sum(fault.latency for fault in faults)
        response = Response(reply.status, headers, body, delay, any(fault.drop for fault in faults))
        if headers.get("content-type") == "text/event-stream":
            for fault in faults:
                _break_up(response, fault)
        return response

    def _own_page(self, request: Request) -> Response:
        page = (request.method, request.path)
        if page == ("GET", "/_stats"):
            return _page(200, self.stats.as_dict(self._keys))
        if page == ("DELETE", "/_stats"):
            self.stats.clear()
            for use in self._keys.values():
                use.requests = use.refused = use.succeeded = use.tokens = 0
            return _page(200, {})
        if page == ("GET", "/_health"):
            return _page(200, {"ok": True, "dialect": self.dialect.name})
        if request.path == "/_faults" and request.method in ("GET", "POST", "DELETE"):
            return self._set_faults(request)
        return _page(404, {"error": f"no {request.method} {request.path} here"})

    def _set_faults(self, request: Request) -> Response:
        if request.method == "POST":
            try:
                given = json.loads(request.body)
                new = [Fault.parse(item) for item in (given if isinstance(given, list) else [given])]
            except BadFault as error:
                return _page(400, {"error": str(error)})
            except (ValueError, RecursionError):
                return _page(400, {"error": "the body is no JSON"})
            if given == {} or isinstance(given, list):
                self._faults.clear()
            if given != {}:
                for fault in new:
                    self._faults[fault.slot] = fault
        elif request.method == "DELETE":
            self._faults.clear()
        shown = [{name: getattr(fault, name) for name in Fault.__slots__} for fault in self._faults.values()]
        return _page(200, {"faults": shown})

    def _use(self, key: str) -> KeyUse:
        use = self._keys.get(key)
        if use is None:
            if len(self._keys) >= _MAX_UNLISTED_KEYS:
                self._keys.pop(next(name for name in self._keys if name not in self._settings.keys))
            limits = self.dialect.limits(self._settings.keys.get(key, self._settings.defaults))
            use = self._keys[key] = KeyUse.start(limits, self._clock(), stepping=self.dialect.stepping)
        return use

    def _count_refusal(self, use: KeyUse) -> None:
        self.stats.refused += 1
        use.refused += 1

    def _happens(self, rate: float) -> bool:
        if rate >= 1:
            return True
        return rate > 0 and self._random.random() < rate

    def _http_date(self, wall: float) -> str:
        second = int(wall)
        if self._date[0] != second:
            self._date = (second, formatdate(second, usegmt=True))
        return self._date[1]


def _break_up(response: Response, fault: Fault) -> None:
    """Send a stream event by event, and break it off, as the fault says."""
    if not fault.pace and fault.break_after is None:
        return
    events = [event + b"\n\n" for event in response.body.split(b"\n\n") if event.strip()]
    response.pace = fault.pace
    if fault.break_after is not None:
        events = events[: fault.break_after]
        response.drop = fault.event is None
        if fault.event is not None:
            name = b"event: error\n" if response.body.startswith(b"event: ") else b""
            events.append(name + b"data: " + fault.event.encode() + b"\n\n")
    response.pieces = events or [b":\n\n"]


def _page(status: int, body: Any) -> Response:
    return Response(status, {"content-type": "application/json"}, json.dumps(body).encode())
