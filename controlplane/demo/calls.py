"""Calls through the gateway, as programs with a provider's SDK make them: whole and streamed, of a few users."""

from __future__ import annotations

import json
import random
import threading
import time

import structlog
import urllib3

from controlplane.demo.words import prompt
from quotas.models import ApiKey, Project
from quotas.services import api_keys

log = structlog.get_logger(__name__)
KEY = "demo-gateway"
CALL_INTERVAL = 0.7
"""Seconds between two calls."""
CALL_TIMEOUT = 20.0


def start(url: str, actor: str) -> None:
    """Call in a thread, until the process is ended. `url` is the web server's."""
    token = _token(actor)
    threading.Thread(target=_run, args=(url, token), daemon=True).start()


def _token(actor: str) -> str:
    """A key for this run: a secret is shown once, so that each start needs another one."""
    project = Project.objects.get(slug="demo")
    known = ApiKey.objects.filter(name=KEY, project=project, revoked_at=None).first()
    if known is not None:
        return api_keys.rotate(known, actor=actor, reason="the demonstration was started")
    return api_keys.create(KEY, ["call"], project=project, actor=actor, reason="the demonstration was started")[1]


def _run(origin: str, token: str) -> None:
    url = f"{origin}/gateway/demo-pool/v1/chat/completions"
    chance = random.Random()
    with urllib3.PoolManager(retries=False, timeout=CALL_TIMEOUT) as http:
        _wait_until_up(http, origin)
        while True:
            try:
                _call(http, url, token, chance)
            except urllib3.exceptions.HTTPError as error:  # the web server was stopped or killed
                log.info("demo.call_failed", error=type(error).__name__)
            time.sleep(CALL_INTERVAL)


def _wait_until_up(http: urllib3.PoolManager, origin: str) -> None:
    """The web server starts beside this process."""
    while True:
        try:
            http.request("GET", f"{origin}/healthz")
            return
        except urllib3.exceptions.HTTPError:
            time.sleep(0.2)


def _call(http: urllib3.PoolManager, url: str, token: str, chance: random.Random) -> None:
    body = {"model": "demo", "messages": [{"role": "user", "content": prompt(chance)}], "max_tokens": 40}
    if chance.random() < 0.5:
        body["stream"] = True
    fields = {
        "Authorization": f"Bearer {token}", "Content-Type": "application/json",
        "Sluice-User": f"user-{chance.randrange(6)}", "Prefer": "wait=5",
    }  # fmt: skip
    http.request("POST", url, body=json.dumps(body), headers=fields)
