"""What every endpoint shares: authentication, permissions, refusals and problem documents."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.db import OperationalError
from django.test import Client
from django.utils import timezone

from quotas.models import ApiKey, Project, Tier
from quotas.rest import authentication
from quotas.rest.authentication import hash_secret, keyring

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.integration.quotas.rest.urls")]


@pytest.fixture(autouse=True)
def fresh_keyring() -> None:
    keyring.forget()


def make_key(*scopes: str, project: Project | None = None, prefix: str = "abc", **columns: Any) -> dict[str, str]:
    ApiKey.objects.create(
        prefix=prefix, secret_hash=hash_secret("s3_cret"), name=prefix, scopes=list(scopes), project=project, **columns
    )
    return {"Authorization": f"Bearer sl_{prefix}_s3_cret"}


def post(client: Client, body: Any, headers: dict[str, str], **kwargs: Any) -> Any:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return client.post("/api/things", data, content_type="application/json", headers=headers, **kwargs)


def test_good_key_is_let_in(client: Client) -> None:
    answer = post(client, {"name": " as it is ", "cost": 3}, make_key("check"))
    assert answer.status_code == 200
    assert answer.json()["name"] == " as it is "
    assert answer.json()["cost"] == {"requests": 3}


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer sl_abc_wrong", "Bearer sl_nobody_s3_cret", "Bearer abc", "Basic sl_abc_s3_cret",
     "Bearer sl__s3_cret", "Bearer sl_abc_", "Bearer \u00fc"],
)  # fmt: skip
def test_bad_keys_get_401(client: Client, header: str) -> None:
    make_key("check")
    answer = post(client, {"name": "x"}, {"Authorization": header} if header else {})
    assert answer.status_code == 401
    assert answer["WWW-Authenticate"].startswith("Bearer")
    assert answer["Content-Type"] == "application/problem+json"
    assert answer.json()["type"] == "/problems/unauthenticated"


def test_expired_and_revoked_keys_get_401(client: Client) -> None:
    past = timezone.now() - timedelta(seconds=1)
    assert post(client, {"name": "x"}, make_key("check", prefix="old", expires_at=past)).status_code == 401
    assert post(client, {"name": "x"}, make_key("check", prefix="gone", revoked_at=past)).status_code == 401


def test_second_request_makes_no_query(client: Client, django_assert_num_queries: Any) -> None:
    key = make_key("check")
    post(client, {"name": "x"}, key)
    with django_assert_num_queries(0):
        assert post(client, {"name": "x"}, key).status_code == 200
    assert ApiKey.objects.get().last_used_at is not None


def test_missing_scope_is_403(client: Client) -> None:
    key = make_key("check", "read")
    assert client.get("/api/things", headers=make_key("check", prefix="b")).status_code == 403
    assert client.put("/api/faulty", headers=key).status_code == 403, "a method without a scope is closed"
    assert client.delete("/api/faulty", headers=key).status_code == 405


def test_project_of_a_key(client: Client) -> None:
    own = Project.objects.create(slug="acme")
    Project.objects.create(slug="other")
    key = make_key("check", project=own)
    assert post(client, {"name": "x"}, key).json()["project"] == "acme"
    assert post(client, {"name": "x", "project": "acme"}, key).json()["project"] == "acme"
    theirs = post(client, {"name": "x", "project": "other"}, key)
    nobodys = post(client, {"name": "x", "project": "nobody"}, key)
    assert theirs.status_code == nobodys.status_code == 404
    assert theirs.json()["detail"].replace("other", "") == nobodys.json()["detail"].replace("nobody", "")
    assert post(client, {"name": "x", "project": "other"}, make_key("check", prefix="p")).status_code == 200


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"name": "x", "surprise": 1}, "#/surprise"),
        ({"name": "x", "a/b~c": 1}, "#/a~1b~0c"),
        ({}, "#/name"),
        ({"name": 5}, "#/name"),
        ({"name": None}, "#/name"),
        ({"name": "x" * 11}, "#/name"),
        ({"name": "x", "cost": -1}, "#/cost"),
        ({"name": "x", "cost": 1.5}, "#/cost"),
        ({"name": "x", "cost": True}, "#/cost"),
        ({"name": "x", "cost": "1"}, "#/cost"),
        ({"name": "x", "cost": {"tokens": 2**53}}, "#/cost/tokens"),
        ({"name": "x", "cost": {"tokens": -1}}, "#/cost/tokens"),
        ({"name": "x", "cost": {"": 1}}, "#/cost/"),
        ({"name": "x", "cost": [1]}, "#/cost"),
        ({"name": "x", "keys": {"chat": 5}}, "#/keys/chat"),
        ({"name": "x", "keys": {"chat": "y" * 1025}}, "#/keys/chat"),
        ({"name": "x", "wait": "5"}, "#/wait"),
        ({"name": "x", "wait": 31}, "#/wait"),
        ({"name": "x", "dry_run": 1}, "#/dry_run"),
        (b'{"name": "x", "name": "y"}', "#/name"),
        (b'{"name": "x", "cost": {"a": 1, "a": 2}}', "#/cost/a"),
        (b'{"name": "x", "cost": NaN}', "#/cost"),
        (b'{"name": "x", "cost": {"t": Infinity}}', "#/cost/t"),
        (b'{"name": "x", "cost": 1e400}', "#/cost"),
        (b'{"name": "x", "cost": ' + b"9" * 5000 + b"}", "#/cost"),
        (b'{"name": "a\\u0000b"}', "#/name"),
        (b'{"name": "a\\ud800b"}', "#/name"),
        (b"[1]", "#"),
        (b'"text"', "#"),
    ],
)  # fmt: skip
def test_mistakes_are_named(client: Client, body: Any, pointer: str) -> None:
    answer = post(client, body, make_key("check"))
    assert answer.status_code == 400, answer.content
    assert answer["Content-Type"] == "application/problem+json"
    document = answer.json()
    assert document["type"] == "/problems/invalid-request" and document["status"] == 400
    assert [error["pointer"] for error in document["errors"]] == [pointer]


@pytest.mark.parametrize("body", [b"{", b"\xff{}", b'{"a": 1,}', b"[" * 100_000, b'{"name": "a\x00"}'])
def test_text_that_is_no_json(client: Client, body: bytes) -> None:
    answer = post(client, body, make_key("check"))
    assert answer.status_code == 400
    assert answer.json()["type"] == "/problems/invalid-request"


def test_all_mistakes_at_once(client: Client) -> None:
    answer = post(client, {"name": 1, "cost": -1, "more": 2}, make_key("check"))
    assert {error["pointer"] for error in answer.json()["errors"]} == {"#/name", "#/cost", "#/more"}


def test_oversize_body_is_413(client: Client, settings: Any) -> None:
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 100
    answer = post(client, {"name": "x" * 200}, make_key("check"))
    assert answer.status_code == 413
    assert answer.json()["type"] == "/problems/body-too-large"


def test_other_media_types_are_415(client: Client) -> None:
    key = make_key("check")
    answer = client.post("/api/things", "name=x", content_type="application/x-www-form-urlencoded", headers=key)
    assert answer.status_code == 415
    assert answer.json()["type"] == "/problems/unsupported-media-type"


def test_body_of_unknown_length_is_411(client: Client) -> None:
    answer = client.generic("POST", "/api/things", headers={**make_key("check"), "Transfer-Encoding": "chunked"})
    assert answer.status_code == 411


def test_internal_errors_reveal_nothing(client: Client) -> None:
    answer = client.get("/api/faulty", headers=make_key("read"))
    assert answer.status_code == 500
    assert answer.json()["type"] == "/problems/internal-error"
    assert b"secret" not in answer.content


@pytest.mark.parametrize("path", ["/api", "/api/", "/api/nothing", "/api/v2/limits/check"])
def test_unknown_addresses_are_problems(client: Client, path: str) -> None:
    for answer in (client.get(path), client.post(path, "{}", content_type="application/json")):
        assert answer.status_code == 404
        assert answer["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("query", ["color=red", "limit=0", "limit=501", "limit=x", "limit=1&limit=2", "cursor=%00", "cursor=!!", "cursor=YWJj.", "cursor=OTk5OTk5OTk5OTk5OTk5OTk5OTk5"])  # fmt: skip
def test_bad_queries_are_400(client: Client, query: str) -> None:
    answer = client.get(f"/api/things?{query}", headers=make_key("read"))
    assert answer.status_code == 400, answer.content
    assert answer.json()["errors"][0]["parameter"] == query.partition("=")[0]


def test_pages_are_complete_while_rows_are_added(client: Client) -> None:
    for number in range(25):
        Tier.objects.create(name=f"t{number:02}")
    key, seen, cursor = make_key("read"), [], None
    while True:
        query = {"limit": 10} | ({"cursor": cursor} if cursor else {})
        answer = client.get("/api/things", query, headers=key).json()
        seen += answer["results"]
        Tier.objects.create(name=f"new{len(seen)}")
        if not (cursor := answer["next"]):
            break
    assert seen == [f"t{number:02}" for number in reversed(range(25))]


def test_admin_session_reads_and_does_not_write(client: Client) -> None:
    client.force_login(User.objects.create_superuser("root"))
    assert client.get("/api/things").status_code == 200
    assert post(client, {"name": "x"}, {}).status_code == 401


def test_sessions_without_staff_or_project_are_refused(client: Client) -> None:
    user = User.objects.create_user("eve")
    client.force_login(user)
    assert client.get("/api/things").status_code == 401
    user.is_staff = True
    user.save()
    assert client.get("/api/things").status_code == 403
    user.sluice_projects.add(Project.objects.create(slug="acme"))
    assert client.get("/api/things").status_code == 403, "a member without a role"
    user.user_permissions.add(Permission.objects.get(codename="view_project"))
    assert client.get("/api/things").status_code == 200


def test_known_key_is_believed_while_sql_is_away(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    key = make_key("check")
    assert post(client, {"name": "x"}, key).status_code == 200

    def away(*args: Any, **kwargs: Any) -> Any:
        raise OperationalError("the server closed the connection")

    monkeypatch.setattr(ApiKey.objects, "select_related", away)
    monkeypatch.setattr("quotas.rest.authentication.KEY_TTL", 0.0)
    assert post(client, {"name": "x"}, key).status_code == 200
    stranger = post(client, {"name": "x"}, {"Authorization": "Bearer sl_nobody_secret"})
    assert stranger.status_code == 503 and stranger.json()["type"] == "/problems/storage-unavailable"


def test_changed_scopes_hold_within_a_second(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    key = make_key("check")
    assert post(client, {"name": "x"}, key).status_code == 200
    ApiKey.objects.update(scopes=["read"])
    assert authentication.KEY_TTL <= 1.0
    monkeypatch.setattr(authentication, "KEY_TTL", 0.0)
    assert post(client, {"name": "x"}, key).status_code == 403
