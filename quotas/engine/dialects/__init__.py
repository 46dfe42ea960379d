"""What a provider's answer says about the account that got it: pure functions, one file per dialect.

A dialect knows a provider's names, encodings and error codes. Whatever is missing or malformed is not known: it never
raises, never counts as exhausted and never as unlimited.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from quotas.engine.categories import UNANSWERED, Category
from quotas.engine.dialects import (
    anthropic,
    azure,
    discord,
    embedded_errors,
    gemini,
    generic,
    github,
    groq,
    ietf,
    mistral,
    openai,
    rate_limit_fields,
    redaction,
    refusals,
    retry_hints,
    shopify,
    slack,
    telegram,
)
from quotas.engine.dialects.findings import Reading
from quotas.engine.dialects.redaction import redact
from quotas.engine.dialects.response import Answer
from quotas.engine.types import CallOutcome

_READERS: dict[str, Callable[[Answer], Reading]] = {
    "openai": openai.read,
    "azure": azure.read,
    "anthropic": anthropic.read,
    "gemini": gemini.read,
    "groq": groq.read,
    "mistral": mistral.read,
    "telegram": telegram.read,
    "github": github.read,
    "slack": slack.read,
    "discord": discord.read,
    "shopify": shopify.read,
    "ietf": ietf.read,
}
DIALECTS: tuple[str, ...] = (*_READERS, "generic")
_OWN_REFUSALS = frozenset({"telegram", "slack", "discord"})
"""Dialects of messengers: their errors have codes of their own, and texts about recipients."""
_MAX_UNITS = 12


def read(
    dialect: str,
    status: int | None,
    headers: object = None,
    body: object = None,
    *,
    settings: Mapping[str, Any] | None = None,
    secrets: Iterable[str] = (),
    latency: float | None = None,
    now: float | None = None,
    tail: bytes | str = b"",
) -> CallOutcome:
    """How an answered call ended for its account. Never raises, whatever `headers` and `body` are.

    What the body says outranks the status: a provider may refuse inside a 200, and break off a stream with an error.
    `headers`: a mapping (values may be lists) or pairs; `body`: bytes, text, or parsed JSON; `tail`: the end of a body
    of which `body` is only the beginning, as streams and long documents report their use last; `settings`: for the
    dialect `generic` (see `generic.py`); `secrets`: credentials to take out of the error's text, as providers echo
    them; `now`: our own Unix time, used only where the answer carries no plausible `Date`. An unknown dialect is read
    as `generic`.
    """
    whole = Answer(status, headers, body, time.time() if now is None else now, tail)
    answer = embedded_errors.refusal(dialect, whole) or whole
    reader = _READERS.get(dialect)
    reading = reader(answer) if reader is not None else generic.read(answer, settings)
    if dialect not in _OWN_REFUSALS:
        refusals.apply(answer, reading, answer.status)
    retry_hints.complete(answer, reading)
    # A 401 has the figures of no account: the provider did not recognise the caller.
    learned = {} if answer.status == 401 else dict(list(reading.learned.items())[:_MAX_UNITS])
    return CallOutcome(
        category=reading.category,
        status=whole.status or None,
        latency=latency,
        retry_after=reading.wait(),
        scope=reading.scope,
        usage=reading.usage,
        learned=learned,
        error=redaction.short(reading.message, secrets) if reading.message else "",
        rate_limit_fields=rate_limit_fields.fields_of(answer, secrets),
        resource=reading.resource,
        certain=reading.certain and reading.category == "auth",
    )


def may_refuse(body: bytes) -> bool:
    """Whether it is worth reading the body of a good answer for a refusal: a look that costs nearly nothing."""
    return embedded_errors.may_be_in(body)


def status_inside(dialect: str, status: int, headers: object, body: object) -> int:
    """The status of an answer by what its body says: of a refusal inside of a 200, the one that it has elsewhere."""
    whole = Answer(status, headers, body, time.time())
    return (embedded_errors.refusal(dialect, whole) or whole).status


def failed(error: str, message: str = "", *, secrets: Iterable[str] = (), latency: float | None = None) -> CallOutcome:
    """A call that got no answer: `error` is `timeout` or `network` (anything else is `unknown`)."""
    category = error if error in UNANSWERED else Category.UNKNOWN.value
    return CallOutcome(category=category, latency=latency, error=redaction.short(message or error, secrets))


__all__ = ["DIALECTS", "failed", "may_refuse", "read", "redact", "status_inside"]
