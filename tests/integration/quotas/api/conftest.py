"""An API client on real SQL and a real Valkey, both empty at the start."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from django.test import Client

from quotas.models import Policy, Project
from quotas.models.api_key import SCOPES
from quotas.rest.authentication import keyring
from quotas.services import api_keys
from quotas.snapshot import resolve


class Api:
    """Calls /api/v1/ with one key."""

    def __init__(self, token: str) -> None:
        self.token, self.client = token, Client()

    def get(self, path: str, **query: Any) -> Any:
        resolve.clear()
        return self.client.get(f"/api/v1/{path}", query, headers={"Authorization": f"Bearer {self.token}"})

    def post(self, path: str, body: Any = None, **headers: str) -> Any:
        resolve.clear()
        data = body if isinstance(body, bytes) else json.dumps(body if body is not None else {}).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.post(
            f"/api/v1/{path}",
            data,
            content_type="application/json",
            headers={"Authorization": f"Bearer {self.token}", **named},
        )

    def delete(self, path: str, body: Any) -> Any:
        return self.client.delete(
            f"/api/v1/{path}",
            json.dumps(body),
            content_type="application/json",
            headers={"Authorization": f"Bearer {self.token}"},
        )


@pytest.fixture(autouse=True)
def empty(db: None, valkey: redis.Redis) -> Iterator[None]:
    resolve.clear()
    keyring.forget()
    yield
    resolve.clear()
    keyring.forget()


def api(*scopes: str, project: str | None = None) -> Api:
    bound = Project.objects.get_or_create(slug=project)[0] if project else None
    return Api(api_keys.create("test", scopes or SCOPES, project=bound, actor="test")[1])


def policy(name: str, scope: str, limit: int | None = 10, **columns: Any) -> Policy:
    columns = {"algorithm": "fixed_window", "window": 3600, **columns}
    return Policy.objects.create(name=name, scope=scope, limit=limit, **columns)
