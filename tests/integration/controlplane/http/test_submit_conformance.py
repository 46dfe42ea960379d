"""Submits over the fast path are answered as Django's view answers them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection, connections
from django.test import override_settings
from django.utils import timezone

from controlplane.http import kept_connections
from controlplane.http.threads import SUBMITS
from queues import task
from queues.models import Batch, Job, Queue
from queues.services.defaults import create_defaults
from queues.testing import fresh_configuration, isolated_registry
from quotas.models import Pool, Project, Provider
from tests.integration.controlplane.http.asgi import Answered, Door
from tests.integration.quotas.api.conftest import Api, api

ONE, BULK = "/api/v1/jobs", "/api/v1/jobs/bulk"
PLAIN = {"type": "test.plain"}
VOLATILE = {"id", "ids", "then", "created_at", "location", "content-length", "run_at"}


@pytest.fixture
def world() -> Iterator[None]:
    with isolated_registry():
        task(lambda job, **payload: None, name="test.plain")
        create_defaults()
        Project.objects.get_or_create(slug="other")
        provider = Provider.objects.create(name="sim", dialect="generic", base_url="http://127.0.0.1:9")
        Pool.objects.create(name="closed", provider=provider, projects=["other"])
        Queue.objects.create(name="tiny", max_size=1)
        Queue.objects.create(name="draining", draining_at=timezone.now())
        fresh_configuration()
        yield


def without_volatile(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: "some" if name in VOLATILE and inner else without_volatile(inner) for name, inner in value.items()
        }
    return [without_volatile(inner) for inner in value] if isinstance(value, list) else value


def essence(answer: Answered) -> tuple[Any, ...]:
    return (
        answer.status,
        json.dumps(without_volatile(answer.json())),
        without_volatile(dict(sorted(answer.headers.items()))),
    )


class Both:
    """Sends to both, each on a database without jobs."""

    def __init__(self, door: Door, key: Api) -> None:
        self.door, self.key = door, key

    def ask(self, *calls: tuple[str, Any], through: str = "lean", **more: str) -> Answered:
        """The calls in a row; the last one's answer, on which both have agreed as on all before."""
        given = {"Content-Type": "application/json", "Authorization": f"Bearer {self.key.token}"}
        given |= {name.replace("_", "-"): value for name, value in more.items()}
        headers = [(name, value) for name, value in given.items() if value]
        answers: dict[str, list[Answered]] = {}
        for way in (through, "bridge"):
            Batch.objects.update(then=None)
            Job.objects.all().delete()
            Batch.objects.all().delete()
            bodies = [(path, body if isinstance(body, bytes) else json.dumps(body).encode()) for path, body in calls]
            answers[way] = [self.door.request("POST", path, body, headers, way) for path, body in bodies]
        for lean, django in zip(answers[through], answers["bridge"], strict=True):
            assert essence(lean) == essence(django)
        return answers[through][-1]


@pytest.fixture
def both(door: Door, world: None) -> Both:
    return Both(door, api("submit", project="acme"))


def test_submits_are_answered_alike(both: Both) -> None:
    many = {"payload": {"text": "é\u2028/{x}\n"}, "keys": {"chat": "-100"}, "priority": "high", "cost": 3, "user": "u"}
    assert both.ask((ONE, {**PLAIN, **many})).status == 202
    assert both.ask((ONE, {**PLAIN, "idempotency_key": "k"}), (ONE, {**PLAIN, "idempotency_key": "k"})).status == 200
    assert both.ask((ONE, PLAIN), (ONE, {**PLAIN, "user": "other"}), Idempotency_Key="k").status == 409
    assert both.ask((ONE, {**PLAIN, "delay": 60, "unique_for": 60})).status == 202
    assert both.ask((BULK, {"jobs": [PLAIN] * 3, "batch": {"name": "b", "then": PLAIN}})).status == 202
    assert both.ask((BULK, {"jobs": [PLAIN] * 150})).status == 202
    assert both.ask((BULK, {"jobs": [PLAIN] * 2}), (BULK, {"jobs": [PLAIN] * 2}), Idempotency_Key="k").status == 200


def test_refusals_are_answered_alike(both: Both) -> None:
    cases: list[tuple[str, Any, int]] = [
        (ONE, {}, 400), (ONE, b"", 400), (ONE, b"{", 400), (ONE, b"[1]", 400), (ONE, {"type": "no.such"}, 400),
        (ONE, {**PLAIN, "queue": "nowhere", "colour": 1}, 400), (ONE, {**PLAIN, "callback_url": "http://10.0.0.1/"}, 400),
        (ONE, {**PLAIN, "project": "other"}, 404), (ONE, {**PLAIN, "queue": "draining"}, 503),
        (ONE, {"type": "http.request", "payload": {"pool": "closed", "path": "/"}}, 404),
        (ONE, {"type": "http.request", "payload": {"pool": "none", "path": "/"}}, 404),
        (ONE, {**PLAIN, "batch": "none"}, 400), (ONE, b'{"type": "t", "type": "u"}', 400),
        (BULK, {"jobs": []}, 400), (BULK, {"jobs": [PLAIN, {**PLAIN, "queue": "nowhere"}, 5]}, 400),
        (BULK, {"jobs": [{**PLAIN, "queue": "tiny"}] * 2}, 422), (BULK, {"jobs": [PLAIN], "batch": {"id": "none"}}, 400),
    ]  # fmt: skip
    for path, body, status in cases:
        assert both.ask((path, body)).status == status, (path, body)
    full = both.ask(*[(ONE, {**PLAIN, "queue": "tiny"})] * 2)
    assert full.status == 429 and full.headers["retry-after"]
    assert both.ask((ONE, PLAIN), Idempotency_Key="x" * 256).status == 400
    assert both.ask((ONE, PLAIN), Content_Type="text/plain").status == 415
    assert both.ask((ONE, PLAIN), Authorization="Bearer sl_abc_wrong").status == 401
    with override_settings(DATA_UPLOAD_MAX_MEMORY_SIZE=1000):
        assert both.ask((ONE, b" " * 1000 + b"{}")).status == 413
    both.key = api("submit")
    assert both.ask((ONE, PLAIN)).status == 400, "a platform key names the project"
    both.key = api("read", project="acme")
    assert both.ask((BULK, b"{")).status == 403, "the scope is looked at before the body"


def test_threads_that_submit_keep_their_connections(door: Door, world: None, monkeypatch: pytest.MonkeyPatch) -> None:
    key = api("submit", project="acme")
    headers = [("Authorization", f"Bearer {key.token}"), ("Content-Type", "application/json")]
    opened: list[str] = []
    wrapper = type(connections["default"])
    connect = wrapper.get_new_connection

    def noted(self: Any, parameters: Any) -> Any:
        opened.append(threading.current_thread().name)
        return connect(self, parameters)

    monkeypatch.setattr(wrapper, "get_new_connection", noted)
    for _ in range(3 * SUBMITS):
        assert door.request("POST", ONE, json.dumps(PLAIN).encode(), headers).status == 202
    assert 1 <= len([name for name in opened if name.startswith("submits")]) <= SUBMITS


@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="SQLite has no sessions")
def test_a_session_that_the_server_has_ended_is_replaced(
    door: Door, world: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = api("submit", project="acme")
    headers = [("Authorization", f"Bearer {key.token}"), ("Content-Type", "application/json")]

    def submits() -> list[int]:
        """Statuses, after the server has ended the sessions."""
        end_other_sessions()
        return [door.request("POST", ONE, json.dumps(PLAIN).encode(), headers).status for _ in range(2 * SUBMITS)]

    door.request("POST", ONE, json.dumps(PLAIN).encode(), headers)
    trusting = submits()
    assert set(trusting) <= {202, 503} and trusting[-1] == 202
    monkeypatch.setattr(kept_connections, "TRUSTED", 0.0)
    assert set(submits()) == {202}
    end_other_sessions()  # those of threads that have ended would keep the database from being removed


def end_other_sessions() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
            " AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )
