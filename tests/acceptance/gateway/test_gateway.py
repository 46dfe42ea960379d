"""The gateway from outside: unchanged SDKs, a real instance, and providers that stream, refuse and break off."""

from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.support.gateway_scene import MESSAGES, PROMPT, SECRETS, Scene
from tests.support.instance import wait_until


def test_the_openai_sdk_works_unchanged(scene: Scene) -> None:
    client = scene.openai("llm")
    answer = client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES)
    assert answer.choices[0].message.content == PROMPT
    assert answer.usage is not None and answer.usage.total_tokens > 0
    assert len(client.embeddings.create(model="text-embedding-3-small", input="x").data[0].embedding) == 16
    assert [model.id for model in client.models.list()]


def test_a_stream_is_passed_on_and_the_use_that_the_gateway_asked_for_is_hidden(scene: Scene) -> None:
    before = scene.used("tokens", "tokens")
    client = scene.openai("llm", default_headers={"Sluice-User": "streamer", "Sluice-Cost": "tokens=5000"})
    chunks = list(client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == PROMPT
    direct = scene.sim.chat(PROMPT)[2]["usage"]["total_tokens"]
    # The estimate of 5000 tokens was replaced by what the hidden event reported.
    wait_until(lambda: scene.used("tokens", "tokens") - before == direct, 10)
    asked = list(
        client.chat.completions.create(
            model="gpt-4o-mini", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
    )
    assert asked[-1].usage is not None and not asked[-1].choices


def test_the_anthropic_sdk_works_unchanged(scene: Scene) -> None:
    import anthropic  # here: it takes a second, in each process that collects tests

    client = anthropic.Anthropic(base_url=f"{scene.instance.url}/gateway/claude", api_key=scene.key)
    answer = client.messages.create(model="claude", max_tokens=20, messages=MESSAGES)
    assert answer.content[0].text == PROMPT  # type: ignore[union-attr]
    with client.messages.stream(model="claude", max_tokens=20, messages=MESSAGES) as stream:
        assert "".join(stream.text_stream) == PROMPT
    with pytest.raises(anthropic.BadRequestError):
        client.messages.create(model="claude", max_tokens=20, messages=[])
    bad = anthropic.Anthropic(base_url=f"{scene.instance.url}/gateway/claude", api_key="sl_no_key")
    with pytest.raises(anthropic.AuthenticationError, match="missing, unknown, revoked"):
        bad.messages.create(model="claude", max_tokens=20, messages=MESSAGES)


def test_a_refusal_names_its_time_and_the_sdk_waits_for_it(scene: Scene) -> None:
    few = {"Sluice-Keys": "few=sdk"}
    client = scene.openai("llm", default_headers=few, max_retries=1)
    client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES)
    refused = scene.call("llm", headers=few)
    assert refused.status_code == 429
    error = refused.json()["error"]
    assert error["code"] == "quota-exceeded" and error["type"] == "rate_limit_error" and error["param"] is None
    assert 0 < int(refused.headers["retry-after-ms"]) <= 2100 and refused.headers["retry-after"] in "123"
    # One retry is enough, since the SDK sleeps for exactly the time that it gets.
    client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES)


def test_prefer_wait_waits_for_the_caller_and_for_the_account(scene: Scene) -> None:
    for pool, fields in (("llm", {"Sluice-Keys": "few=wait"}), ("narrow", {})):
        assert scene.call(pool, headers=fields).status_code == 200
        assert scene.call(pool, headers=fields).status_code == 429
        waited = scene.call(pool, headers={**fields, "Prefer": "wait=10"})
        assert waited.status_code == 200 and waited.headers["preference-applied"] == "wait=10"
        assert float(waited.headers["sluice-waited"]) > 0.2


@pytest.mark.parametrize(
    ("pool", "fields", "change"),
    [
        ("llm", {"Sluice-Keys": "rarely=x"}, "Policy.objects.get(name='rarely')"),
        ("rare", {}, "PoolLimit.objects.get(pool__name='rare')"),
    ],
)
def test_prefer_wait_follows_a_change_of_what_it_waits_for(
    scene: Scene, pool: str, fields: dict[str, str], change: str
) -> None:
    assert scene.call(pool, headers=fields).status_code == 200
    with ThreadPoolExecutor(1) as threads:
        waiter = threads.submit(scene.call, pool, headers={**fields, "Prefer": "wait=60"})
        time.sleep(0.5)
        assert not waiter.done(), "it waits"
        code = f"from quotas.models import Policy, PoolLimit; row = {change}; row.limit = 100; row.save()"
        scene.instance.manage("shell", "-c", code)
        assert waiter.result(20).status_code == 200, "long before the window moves on"


def test_those_who_wait_go_in_order_of_arrival(scene: Scene) -> None:
    assert scene.call("narrow", headers={"Prefer": "wait=10"}).status_code == 200
    done: list[int] = []

    def wait(number: int) -> None:
        assert scene.call("narrow", headers={"Prefer": "wait=30"}).status_code == 200
        done.append(number)

    with ThreadPoolExecutor(3) as threads:
        for number in range(3):
            threads.submit(wait, number)
            time.sleep(0.3)  # so that the order of arrival is known
    assert done == [0, 1, 2]


def test_another_account_takes_what_one_refuses_and_the_caller_pays_once(scene: Scene) -> None:
    before = scene.used("by-user")
    for fault in ({"status": 429}, {"status": 503}, {"status": 529}, {"invalid_key": SECRETS["GATEWAY_BAD"]}):
        scene.sim.faults({**fault, "key": SECRETS["GATEWAY_BAD"]} if "status" in fault else fault)
        answers = [scene.call("failing", headers={"Sluice-User": "failover"}) for _ in range(2)]
        assert [one.status_code for one in answers] == [200, 200], answers[-1].text
        assert {one.headers["sluice-account"] for one in answers} == {"two"}
        assert scene.used("by-user") - before == 2
        before = scene.used("by-user")
        for account in scene.instance.client().get("/api/v1/accounts", params={"limit": 100}).json()["results"]:
            if account["pool"] == "failing" and account["name"] == "one":
                for verb in ("clear-cooldown", "enable"):
                    reason = {"reason": "next fault"}
                    scene.instance.client().post(f"/api/v1/accounts/{account['id']}/{verb}", json=reason)


def test_what_may_have_been_executed_is_repeated_only_where_that_is_safe(scene: Scene) -> None:
    scene.sim.faults({"status": 500})
    requests = scene.sim.stats()["requests"]
    assert scene.call("llm").status_code == 500
    assert scene.sim.stats()["requests"] == requests + 1
    assert scene.call("llm", headers={"Idempotency-Key": "k"}).status_code == 500
    assert scene.sim.stats()["requests"] > requests + 2
    sent = len(scene.provider.requests)
    assert scene.call("hasty", "/v1/silent").status_code == 504
    assert len(scene.provider.requests) == sent + 1


def test_a_provider_that_is_not_reached_is_replaced_by_the_next_pool_or_named(scene: Scene) -> None:
    answer = scene.call("nobody")
    assert answer.status_code == 200 and answer.headers["sluice-attempts"] == "2"
    answer = scene.call("lonely")
    assert answer.status_code == 502 and answer.json()["type"] == "/problems/upstream-unreachable"


def test_the_keys_of_both_sides_stay_on_their_side(scene: Scene) -> None:
    fields = {
        "Cookie": "a=b", "Sluice-User": "u", "X-Forwarded-For": "9.9.9.9", "X-Mine": "stays", "X-Sneaky": scene.key,
        "Connection": "X-Hop", "X-Hop": "1", "Proxy-Authorization": "Basic eA==", "TE": "trailers",
    }  # fmt: skip
    answer = scene.call("raw", "/v1/echo?q=1", headers=fields)
    sent = scene.provider.requests[-1].lower()
    assert sent.startswith(b"post /v1/echo?q=1 http/1.1\r\n") and b"x-mine: stays" in sent
    assert f"authorization: bearer {SECRETS['GATEWAY_ONE']}".encode() in sent
    for gone in (scene.key.lower(), "cookie", "sluice-", "9.9.9.9", "x-hop", "proxy-auth", "te:", "x-sneaky"):
        assert gone.encode() not in sent, gone
    assert answer.status_code == 418
    assert SECRETS["GATEWAY_ONE"] not in answer.text + str(answer.headers) and "[redacted]" in answer.text
    for name in ("set-cookie", "x-ratelimit-limit-requests", "x-hop", "x-echo"):
        assert name not in answer.headers
    assert answer.headers["sluice-account"] == "one" and float(answer.headers["sluice-overhead"]) >= 0


@pytest.mark.parametrize("path", ["broken", "cut"])
def test_a_provider_that_breaks_off_ends_the_callers_connection_in_error(scene: Scene, path: str) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        scene.call("raw", f"/v1/{path}")
    wait_until(lambda: scene.is_idle("raw"), 5)


def test_a_client_that_vanishes_frees_its_slot(scene: Scene) -> None:
    url = f"{scene.instance.url}/gateway/raw/v1/endless"
    with httpx.stream("POST", url, headers=scene.headers, json={}) as answer:
        parts = answer.iter_raw()  # kept: a generator that is dropped ends the stream
        assert next(parts)
        assert not scene.is_idle("raw")
    wait_until(lambda: scene.is_idle("raw"), 3)
    assert scene.provider.hung_up.wait(3)


def test_a_slow_reader_costs_a_bounded_buffer_and_holds_up_nobody(scene: Scene) -> None:
    with socket.create_connection(("127.0.0.1", scene.instance.port)) as slow:
        slow.sendall(
            b"POST /gateway/raw/v1/endless-fat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n"
            + f"Authorization: Bearer {scene.key}\r\n\r\n{{}}".encode()
        )
        sent = [-1, 0]
        while sent[-1] != sent[-2] or not sent[-1]:  # until the provider can send no more
            time.sleep(0.5)
            sent.append(scene.provider.sent)
            assert sent[-1] < 200_000_000
        assert scene.call("raw", "/v1/whole").status_code == 200
    wait_until(lambda: scene.is_idle("raw"), 5)


@pytest.mark.parametrize(
    "path",
    [
        "/gateway/raw/v1/../x", "/gateway/raw//evil.example/x", "/gateway/raw/%2e%2e/x", "/gateway/raw/%252e%252e/x",
        "/gateway/raw/a%2fb", "/gateway/raw/a%5cb", "/gateway/raw/a%00b", "/gateway/raw/..;/x", "/gateway/raw/a\\b",
        "/gateway/raw/http://evil.example/", "/gateway/raw", "/gateway/raw/%zz",
    ],
)  # fmt: skip
def test_a_path_that_could_be_read_in_two_ways_is_refused(scene: Scene, path: str) -> None:
    sent = len(scene.provider.requests)
    with socket.create_connection(("127.0.0.1", scene.instance.port), timeout=10) as connection:
        head = (
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {scene.key}\r\nConnection: close\r\n\r\n"
        )
        connection.sendall(head.encode())
        assert connection.recv(65536).startswith(b"HTTP/1.1 400")
    assert len(scene.provider.requests) == sent


@pytest.mark.parametrize(
    "fields",
    [
        "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", "Content-Length: 2\r\nContent-Length: 3\r\n",
        "Transfer-Encoding: chunked, identity\r\n", "Transfer-Encoding: xchunked\r\n", "Content-Length: +2\r\n",
    ],
)  # fmt: skip
def test_a_request_with_an_ambiguous_length_smuggles_nothing(scene: Scene, fields: str) -> None:
    with socket.create_connection(("127.0.0.1", scene.instance.port), timeout=10) as connection:
        head = (
            f"POST /gateway/raw/v1/x HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {scene.key}\r\n{fields}\r\n"
        )
        connection.sendall(head.encode() + b"0\r\n\r\nGET /gateway/raw/v1/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n")
        connection.settimeout(3)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    # Refused, or (as RFC 9112, 6.1 has it) read by its chunks alone; what follows on the connection is never read.
    assert answer.count(b"HTTP/1.1 ") <= 1
    assert not answer or answer.startswith(b"HTTP/1.1 4") or b"connection: close" in answer.lower()
    assert not [request for request in scene.provider.requests if b"smuggled" in request]


def test_who_may_call_what(scene: Scene) -> None:
    weak = scene.instance.manage(
        "apikey", "create", "--name", "w", "--project", "acme", "--scopes", "read"
    ).stdout.strip()
    assert scene.call("llm", headers={"Authorization": ""}).status_code == 401
    assert scene.call("llm", headers={"Authorization": f"Bearer {weak}"}).status_code == 403
    assert scene.call("closed").status_code == scene.call("missing").status_code == 404
    assert scene.call("llm", headers={"Sluice-Project": "other"}).status_code == 404
    assert scene.call("llm", headers={"Sluice-Nonsense": "1"}).status_code == 400
    platform = {"Authorization": f"Bearer {scene.instance.credentials['platform_key']}"}
    assert scene.call("closed", headers={**platform, "Sluice-Project": "other"}).status_code == 200
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade"}
    assert scene.call("llm", headers=upgrade).status_code == 501
    for name in ("x-api-key", "api-key", "x-goog-api-key"):
        assert scene.call("llm", headers={"Authorization": "", name: scene.key}).status_code == 200


def test_large_bodies_pass_unread_and_too_large_ones_are_refused(scene: Scene) -> None:
    body = b"x" * 3_000_000
    answer = scene.call("raw", "/v1/upload", json=None, content=iter([body[:1_500_000], body[1_500_000:]]))
    assert answer.status_code in (200, 502)
    head = scene.headers | {"Content-Length": str(64 * 1024 * 1024)}
    with socket.create_connection(("127.0.0.1", scene.instance.port), timeout=10) as connection:
        lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
        connection.sendall(f"POST /gateway/raw/v1/x HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n".encode())
        assert connection.recv(65536).startswith(b"HTTP/1.1 413")


def test_a_pool_shows_the_providers_limits_only_where_it_says_so(scene: Scene) -> None:
    for pool, shows in (("raw", False), ("shown", True)):
        answer = scene.call(pool, "/v1/plain")
        assert ("x-ratelimit-limit-requests" in answer.headers) is shows
        assert answer.headers["ratelimit-policy"], "those of the caller's own policies are always there"


def test_a_fallback_takes_only_the_calls_of_projects_that_may_use_it(scene: Scene) -> None:
    assert scene.call("shut").status_code == 502
    platform = {"Authorization": f"Bearer {scene.instance.credentials['platform_key']}"}
    answer = scene.call("shut", headers={**platform, "Sluice-Project": "other"})
    assert answer.status_code == 200 and answer.headers["sluice-attempts"] == "2"


def test_limits_of_addresses_and_paths_hold_for_calls(scene: Scene) -> None:
    """The address is the client's own, not one that it claims, and the path is the provider's."""
    url = f"{scene.instance.url}/gateway/raw/v1/by-path/record"
    answers = [
        httpx.get(url, headers={**scene.headers, "X-Forwarded-For": address}) for address in ("8.8.8.8", "9.9.9.9")
    ]
    assert [answer.status_code for answer in answers] == [200, 429]
    assert scene.recent(answers[1])["refusal"]["binding"] == "by-path"
    rows = scene.instance.client().get("/api/v1/limits/usage", params={"policy": "by-ip"}).json()["results"]
    assert {row["key"] for row in rows} == {"127.0.0.1"}, rows


def test_the_sdk_waits_for_an_account_by_the_time_of_a_refusal(scene: Scene) -> None:
    client = scene.openai("narrow", max_retries=1)
    for _ in range(2):  # one call in any 2 s: the one retry comes at the time that the refusal names
        client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES)
