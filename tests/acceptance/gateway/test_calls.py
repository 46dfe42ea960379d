"""What is seen of the gateway's calls: recent calls, metrics, and why one was refused."""

from __future__ import annotations

import httpx
import pytest

from tests.support.gateway_scene import MESSAGES, PROMPT, Scene
from tests.support.instance import wait_until


def metric(scene: Scene, name: str) -> float:
    """The sum of a metric's samples that begin so."""
    lines = scene.instance.client().get("/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def test_a_call_is_among_the_recent_ones_with_all_but_its_body(scene: Scene) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    fields = {"Sluice-User": "u-seen", "traceparent": f"00-{trace}-b7ad6b7169203331-01"}
    answer = scene.call("llm", "/v1/chat/completions?token=hidden-7f3", headers=fields)
    call = scene.recent(answer)
    assert (call["pool"], call["project"], call["user"], call["actor"]) == ("llm", "acme", "u-seen", "key:g")
    assert (call["method"], call["path"]) == ("POST", "/v1/chat/completions")
    assert (call["status"], call["outcome"], call["attempts"]) == (200, "ok", 1)
    assert call["account"] == answer.headers["sluice-account"] and call["model"] == "gpt-4o-mini"
    assert call["cost"]["requests"] == 1 and call["cost"]["tokens"] > 500
    assert call["actual"]["tokens"] == answer.json()["usage"]["total_tokens"]
    assert 0 < call["overhead"] < call["seconds"] and call["first_byte"] <= call["seconds"]
    assert call["trace"] == trace and not call["is_stream"] and call["refusal"] == {}
    assert "hidden-7f3" not in str(call) and PROMPT not in str(call)


def test_calls_are_filtered_and_paged_newest_first(scene: Scene) -> None:
    answers = [scene.call("llm", headers={"Sluice-User": "u-pages"}) for _ in range(5)]
    scene.call("raw", "/v1/whole", headers={"Sluice-User": "u-pages"})
    scene.recent(answers[-1])
    client = scene.instance.client()
    seen: list[str] = []
    cursor = None
    while True:
        query = {"user": "u-pages", "pool": "llm", "limit": 2} | ({"cursor": cursor} if cursor else {})
        page = client.get("/api/v1/calls", params=query).json()
        seen += [call["id"] for call in page["results"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert seen == [answer.headers["sluice-request-id"] for answer in reversed(answers)]
    assert not scene.calls(user="u-pages", outcome="cancelled") and len(scene.calls(user="u-pages")) == 6
    assert client.get("/api/v1/calls", params={"cursor": "bm90LW9uZQ"}).status_code == 400
    assert client.get("/api/v1/calls", params={"nonsense": "1"}).status_code == 400


def test_a_project_sees_its_own_calls(scene: Scene) -> None:
    made = scene.instance.manage("apikey", "create", "--name", "r", "--project", "other", "--scopes", "read,call")
    key = made.stdout.strip()
    scene.recent(scene.call("llm"))
    other = scene.instance.client(key)
    mine = other.post("/gateway/closed/v1/chat/completions", json={"model": "m", "messages": MESSAGES})
    assert mine.status_code == 200
    scene.recent(mine)
    assert {call["project"] for call in other.get("/api/v1/calls").json()["results"]} == {"other"}
    foreign = scene.calls(project="acme", limit=1)[0]["id"]
    assert other.get(f"/api/v1/calls/{foreign}").status_code == 404
    assert other.get("/api/v1/calls", params={"project": "acme"}).status_code == 404
    assert scene.instance.client(scene.key).get("/api/v1/calls").status_code == 403


def test_a_refused_call_explains_itself(scene: Scene) -> None:
    few = {"Sluice-Keys": "few=explain"}
    scene.call("llm", headers=few)
    refused = scene.call("llm", headers=few)
    assert refused.status_code == 429
    call = scene.recent(refused)
    assert call["outcome"] == "quota_exceeded" and call["account"] == "" and call["attempts"] == 0
    assert call["refusal"]["code"] == "quota-exceeded" and call["refusal"]["binding"] == "few"
    assert 0 < call["refusal"]["retry_after"] <= 2.1
    explained = scene.instance.client().get(f"/api/v1/calls/{call['id']}/explain").json()
    assert explained["call"] == call and explained["now"]["allowed"]

    scene.call("narrow", headers={"Prefer": "wait=10"})
    none = scene.recent(scene.call("narrow"))
    assert none["outcome"] == "no_account" and none["refusal"]["reasons"]
    explained = scene.instance.client().get(f"/api/v1/calls/{none['id']}/explain").json()
    assert not explained["now"]["allowed"] and explained["now"]["retry_after"] > 0


def test_what_is_no_call_is_counted_and_not_listed(scene: Scene) -> None:
    before = metric(scene, 'sluice_gateway_requests_total{outcome="rejected",pool=""')
    missing = scene.call("missing")
    assert missing.status_code == 404 and "sluice-request-id" not in missing.headers
    url = f"{scene.instance.url}/gateway/llm/v1/models"
    assert httpx.get(url).status_code == 401
    counted = 'sluice_gateway_requests_total{outcome="rejected",pool=""'
    wait_until(lambda: metric(scene, counted) == before + 1, 5)
    assert not scene.calls(pool="missing")


@pytest.mark.parametrize("path", ["broken", "cut"])
def test_a_stream_that_breaks_off_is_distinguished(scene: Scene, path: str) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        scene.call("raw", f"/v1/{path}", headers={"Sluice-User": path})
    wait_until(lambda: scene.calls(user=path), 5)
    (call,) = scene.calls(user=path)
    assert (call["outcome"], call["status"], call["is_stream"]) == ("broken", 200, True)
    assert call["actual"]["tokens"] > 0
    # It is no fault of the server, and its log says nothing of one.
    assert not [line for line in scene.instance.lines if "Traceback" in line or "raised an exception" in line]


def test_a_client_that_vanishes_is_a_cancelled_call(scene: Scene) -> None:
    url = f"{scene.instance.url}/gateway/raw/v1/endless"
    headers = scene.headers | {"Sluice-User": "vanishes"}
    with httpx.stream("POST", url, headers=headers, json={}) as answer:
        parts = answer.iter_raw()
        assert next(parts)
        wait_until(lambda: metric(scene, "sluice_gateway_streams") >= 1, 5)
    wait_until(lambda: scene.calls(user="vanishes"), 5)
    assert scene.calls(user="vanishes")[0]["outcome"] == "cancelled"
    wait_until(lambda: metric(scene, "sluice_gateway_streams") == 0, 5)


def test_metrics_count_calls_tokens_and_time(scene: Scene) -> None:
    names = (
        'sluice_gateway_requests_total{outcome="ok",pool="llm",project="acme"}',
        'sluice_gateway_tokens_total{pool="llm",project="acme"}',
        "sluice_gateway_overhead_seconds_count", "sluice_gateway_first_byte_seconds_count",
    )  # fmt: skip
    before = [metric(scene, name) for name in names]
    tokens = scene.call("llm").json()["usage"]["total_tokens"]
    wait_until(lambda: metric(scene, names[0]) == before[0] + 1, 5)
    after = [metric(scene, name) for name in names]
    assert [now - then for now, then in zip(after, before, strict=True)] == [1, tokens, 1, 1]


def test_failovers_and_waits_are_measured(scene: Scene) -> None:
    failovers = metric(scene, "sluice_gateway_failovers_total")
    waits = metric(scene, "sluice_gateway_wait_seconds_count")
    assert scene.recent(scene.call("nobody"))["attempts"] == 2
    scene.call("narrow", headers={"Prefer": "wait=10"})
    waited = scene.recent(scene.call("narrow", headers={"Prefer": "wait=10"}))
    assert waited["waited"] > 0.2 and waited["waited_for"] == ["pool narrow: requests"]
    few = {"Sluice-Keys": "few=measured", "Prefer": "wait=10"}
    scene.call("llm", headers=few)
    assert scene.recent(scene.call("llm", headers=few))["waited_for"] == ["policy few"]
    wait_until(lambda: metric(scene, "sluice_gateway_failovers_total") == failovers + 1, 5)
    wait_until(lambda: metric(scene, "sluice_gateway_wait_seconds_count") >= waits + 1, 5)
