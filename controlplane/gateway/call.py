"""One call as its caller made it, and what is known of it before it is sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from controlplane.gateway import usage_request
from controlplane.gateway.body import Body
from controlplane.gateway.conversation import prefix_of
from controlplane.gateway.encodings import is_plain
from controlplane.gateway.fields import Wishes
from controlplane.gateway.target import Target
from queues.job_types.http_request import MAX_MODEL, MODEL_IN_PATH
from quotas.engine import estimate
from quotas.engine.dialects import resources
from quotas.services.limits import Check
from quotas.snapshot.config import ConfigSnapshot
from quotas.snapshot.pools import PoolConfig

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(slots=True)
class Call:
    """`project` is the slug that the call counts for; None: the platform."""

    id: str
    target: Target
    method: str
    pool: PoolConfig
    project: str | None
    user: str | None
    ip: str | None
    wishes: Wishes
    headers: list[tuple[str, str]]
    body: Body
    actor: str
    idempotency_key: str = ""
    traceparent: str = ""
    encoding: str = ""
    """The body's `Content-Encoding`."""
    document: Mapping[str, Any] | None = None
    """The body, where it is a JSON object that was read."""
    model: str = ""
    cost: dict[str, int] = field(default_factory=dict)
    prompt_tokens: int = 0
    conversation: str = ""
    """The beginning of the prompt, in a pool that is sticky by it."""
    hides_usage: bool = False
    """Whether the gateway has requested the use at the end of a stream, and the caller has not."""
    written: bytes = b""
    """The body as its caller wrote it, where the gateway has requested the use in it."""

    @property
    def dialect(self) -> str:
        return self.pool.provider.dialect

    @property
    def key(self) -> str:
        """What sticky accounts and limits per key go by."""
        return self.wishes.sticky or self.conversation or next(iter(self.wishes.keys.values()), "")

    @property
    def may_repeat(self) -> bool:
        """Whether a call that may have been executed can be sent again."""
        return self.body.is_whole and (self.method in SAFE_METHODS or bool(self.idempotency_key))

    @property
    def question(self) -> Check:
        """The call as a check of its caller's limits."""
        return Check(
            project=self.project, user=self.user, ip=self.ip, endpoint=self.target.path, method=self.method,
            keys=self.wishes.keys, cost=self.cost, max_wait=self.wishes.wait,
        )  # fmt: skip

    def release(self) -> None:
        """Forget body and fields: an answer is being passed on, after which nothing is sent again. Many calls stream for
        long, and a prompt may be large."""
        self.document = None
        self.body.first = self.written = b""
        self.headers = []

    def read_body(self, snapshot: ConfigSnapshot) -> None:
        """Estimate the call, and request the use of a stream that would not report it."""
        self.document = self.body.document(self.encoding)
        self.model = self._model()
        self.cost = {"requests": 1, **self.wishes.cost}
        if self.document is None:
            return
        output = self.pool.provider.default_output_tokens
        parts = estimate.parts_of(self.document, path=self.target.path, default_output=output)
        if parts is None:
            return
        self.prompt_tokens = parts[0]
        if self.pool.sticky_by_prefix and not self.wishes.sticky:
            self.conversation = prefix_of(self.document)
        if "tokens" not in self.cost and _counts_tokens(snapshot, self.pool):
            self.cost["tokens"] = sum(parts)
        self._request_usage()

    def _model(self) -> str:
        resource = resources.of_path(self.pool.spec.dialect, self.target.path)
        named = self.document.get("model") if self.document is not None else None
        if resource or isinstance(named, str):
            return (resource or str(named))[:MAX_MODEL]
        found = MODEL_IN_PATH.search(self.target.path)
        return found[1][:MAX_MODEL] if found else ""

    def _request_usage(self) -> None:
        if self.document is None or not is_plain(self.encoding):
            return
        changed = usage_request.with_request(self.document, self.body.first, self.dialect, self._place)
        if changed is not None:
            self.written, self.body.first = self.body.first, changed
            self.hides_usage = True

    def withdraw_usage_request(self) -> None:
        """Restore the body as its caller wrote it: the provider has refused what was added."""
        usage_request.remember_refusal(self._place)
        self.body.first, self.written = self.written, b""
        self.hides_usage = False

    @property
    def _place(self) -> usage_request.Place:
        return self.pool.provider.name, self.target.path, self.target.query, self.model


def _counts_tokens(snapshot: ConfigSnapshot, pool: PoolConfig) -> bool:
    """Whether a policy, the pool or one of its fallbacks, or its provider limits tokens. Kept per snapshot, since each
    call needs it."""
    global _counting
    if _counting[0] is not snapshot:
        _counting = (snapshot, {})
    known = _counting[1].get(pool.spec.name)
    if known is None:
        known = _counting[1][pool.spec.name] = _limits_tokens(snapshot, pool)
    return known


_counting: tuple[ConfigSnapshot | None, dict[str, bool]] = (None, {})


def _limits_tokens(snapshot: ConfigSnapshot, pool: PoolConfig) -> bool:
    if any(policy.unit == "tokens" for policy in snapshot.policies.values()):
        return True
    every = [pool, *(snapshot.pools[name] for name in pool.spec.fallback if name in snapshot.pools)]
    return any(
        config.spec.dialect in estimate.COUNTING_DIALECTS or any(limit.unit == "tokens" for limit in config.spec.limits)
        for config in every
    )
