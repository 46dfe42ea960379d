"""Endless traffic: jobs of two projects and three priorities, checks of a few users, some mistakes."""

from __future__ import annotations

import random
import time
from typing import Any

import structlog

from controlplane.demo.words import prompt
from queues.errors import QueueError
from queues.services.submit import submit
from quotas.errors import QuotaError
from quotas.services.limits import Check, check

log = structlog.get_logger(__name__)
ROUND_INTERVAL = 1.0
"""Seconds between two rounds."""


def run() -> None:
    """Submit and check until the process is ended."""
    chance = random.Random()
    while True:
        try:
            _jobs(chance)
            _checks(chance)
        except (QueueError, QuotaError) as error:
            # A full queue or a limiter without Redis is part of the picture.
            log.warning("demo.refused", error=type(error).__name__)
        time.sleep(ROUND_INTERVAL)


def _jobs(chance: random.Random) -> None:
    for _ in range(chance.choice((2, 4, 6, 8))):
        project = chance.choice(("demo", "demo", "demo-batch"))
        priority = chance.choices(("high", "normal", "low"), (1, 5, 3))[0]
        submit("http.request", project=project, queue="demo-requests", priority=priority, payload=_payload(chance))


def _payload(chance: random.Random) -> dict[str, Any]:
    if chance.random() < 0.01:
        return {"pool": "demo-pool", "method": "GET", "path": "/v1/there-is-no-such-thing"}
    body = {"model": "demo", "messages": [{"role": "user", "content": prompt(chance)}], "max_tokens": 40}
    return {"pool": "demo-pool", "method": "POST", "path": "/v1/chat/completions", "json": body}


def _checks(chance: random.Random) -> None:
    for _ in range(chance.randrange(4, 12)):
        question = Check(
            project="demo",
            user=f"user-{chance.randrange(6)}",
            ip=f"203.0.113.{chance.randrange(1, 9)}",
            endpoint="/v1/chat",
            method="POST",
        )
        check(question, actor="demo")
