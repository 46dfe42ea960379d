"""What has gone wrong in other gateways, tried on this one."""

from __future__ import annotations

import contextlib
import gzip
import json
import re
import socket
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance.gateway.test_calls import metric
from tests.support.gateway_scene import MESSAGES, SECRETS, Scene
from tests.support.instance import process_table, wait_until
from tests.support.streaming_provider import ODD_EVENTS, ODD_USAGE

SINGLE = {"Sluice-Keys": "single=a"}


def raw(scene: Scene, request: bytes, seconds: float = 10.0) -> bytes:
    """All that comes back until the connection ends, or for so long."""
    answer = b""
    with socket.create_connection(("127.0.0.1", scene.instance.port), timeout=seconds) as connection:
        connection.sendall(request)
        try:
            while piece := connection.recv(65536):
                answer += piece
        except TimeoutError:
            pass
    return answer


def head(scene: Scene, method: str, path: str, fields: str = "", version: str = "1.1") -> bytes:
    text = f"{method} {path} HTTP/{version}\r\nHost: localhost\r\nAuthorization: Bearer {scene.key}\r\n{fields}\r\n"
    return text.encode()


def test_a_client_with_one_slot_finds_it_free_when_its_answer_is_whole(scene: Scene) -> None:
    with httpx.Client() as client:
        for path in ("/gateway/llm/v1/chat/completions", "/gateway/raw/v1/whole", "/gateway/raw/v1/echo") * 4:
            answer = client.post(
                f"{scene.instance.url}{path}", headers=scene.headers | SINGLE, json={"model": "m", "messages": MESSAGES}
            )
            assert answer.status_code in (200, 418), (path, answer.text)


def test_a_cancelled_stream_and_a_timeout_leave_no_slot_taken(scene: Scene) -> None:
    keys = {"Sluice-Keys": "single=b"}
    url = f"{scene.instance.url}/gateway/raw/v1/endless"
    for _ in range(3):
        with httpx.stream("POST", url, headers=scene.headers | keys, json={}) as answer:
            assert answer.status_code == 200
            parts = answer.iter_raw()
            next(parts)
        wait_until(lambda: scene.call("llm", headers=keys).status_code == 200, 2)
    assert scene.call("hasty", "/v1/silent", headers=keys).status_code == 504
    assert scene.call("llm", headers=keys).status_code == 200


def test_a_call_that_one_limit_refuses_is_charged_to_no_other(scene: Scene) -> None:
    keys = {"Sluice-Keys": "single=c"}
    url = f"{scene.instance.url}/gateway/raw/v1/endless"
    with httpx.stream("POST", url, headers=scene.headers | keys, json={}) as answer:
        parts = answer.iter_raw()
        next(parts)
        before = scene.used("two-per-minute")
        assert scene.call("llm", headers=keys).status_code == 429
        assert scene.used("two-per-minute") == before


def test_what_a_vanished_client_has_read_is_charged(scene: Scene) -> None:
    headers = scene.headers | {"Sluice-User": "u-read", "Sluice-Cost": "tokens=5000"}
    with httpx.stream("POST", f"{scene.instance.url}/gateway/raw/v1/endless", headers=headers, json={}) as answer:
        parts = answer.iter_raw()
        for _ in range(3):
            next(parts)
    wait_until(lambda: scene.calls(user="u-read"), 5)
    assert 0 < scene.calls(user="u-read")[0]["actual"]["tokens"] < 1000


def test_a_use_of_zero_is_a_use(scene: Scene) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        scene.call("raw", "/v1/zero", headers={"Sluice-User": "u-zero"})
    wait_until(lambda: scene.calls(user="u-zero"), 5)
    assert scene.calls(user="u-zero")[0]["actual"]["tokens"] == 0


def test_comments_pass_and_are_no_tokens(scene: Scene) -> None:
    answer = scene.call("raw", "/v1/pings")
    assert answer.content.count(b": ping\n\n") == 3 and answer.content.endswith(b": end\n\n")
    assert scene.recent(answer)["actual"]["tokens"] == 10
    with pytest.raises(httpx.RemoteProtocolError):
        scene.call("raw", "/v1/pinged", headers={"Sluice-User": "u-pinged"})
    wait_until(lambda: scene.calls(user="u-pinged"), 5)
    assert scene.calls(user="u-pinged")[0]["actual"]["tokens"] < 50


def test_the_use_of_the_responses_api_is_read_from_its_stream(scene: Scene) -> None:
    answer = scene.call("raw", "/v1/responses", json={"model": "m", "input": "hi", "stream": True})
    assert answer.status_code == 200 and scene.recent(answer)["actual"]["tokens"] == 13
    assert b"stream_options" not in scene.provider.requests[-1]


def test_an_answer_that_is_compressed_unasked_arrives_readable_and_is_measured(scene: Scene) -> None:
    answer = scene.call("raw", "/v1/gzip", headers={"Accept-Encoding": "gzip"})
    assert answer.json()["usage"]["total_tokens"] == 42 and "content-encoding" not in answer.headers
    assert scene.recent(answer)["actual"]["tokens"] == 42


@pytest.mark.parametrize("path", ["/v1/gzip-error", "/v1/brotli-error"])
def test_no_credential_hides_in_a_compressed_error(scene: Scene, path: str) -> None:
    answer = scene.call("raw", path)
    assert answer.status_code == 400 and "content-encoding" not in answer.headers
    assert SECRETS["GATEWAY_ONE"] not in answer.text
    assert ("[redacted]" in answer.text) == (path == "/v1/gzip-error")


def test_a_compressed_body_passes_unchanged_and_is_estimated(scene: Scene) -> None:
    body = gzip.compress(json.dumps({"model": "zipped", "stream": True, "messages": MESSAGES}).encode())
    fields = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    answer = scene.call("raw", "/v1/whole/completions", json=None, content=body, headers=fields)
    assert answer.status_code == 200
    sent = scene.provider.requests[-1]
    assert sent.endswith(body) and b"content-encoding: gzip" in sent.lower()
    call = scene.recent(answer)
    assert call["model"] == "zipped" and call["cost"]["tokens"] > 500


def test_nothing_is_sent_again_after_a_part_of_the_answer_was_passed_on(scene: Scene) -> None:
    sent = len(scene.provider.requests)
    with pytest.raises(httpx.RemoteProtocolError):
        scene.call("raw", "/v1/broken", headers={"Idempotency-Key": "partial"})
    assert len(scene.provider.requests) == sent + 1


def test_no_other_account_is_tried_for_a_client_that_is_gone(scene: Scene) -> None:
    sent = len(scene.provider.requests)
    headers = scene.headers | {"Idempotency-Key": "gone"}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{scene.instance.url}/gateway/hasty/v1/silent", headers=headers, json={}, timeout=0.5)
    time.sleep(1.5)  # longer than the provider's timeout of 1 s, after which another account would be tried
    assert len(scene.provider.requests) == sent + 1


def test_a_connection_that_the_provider_has_closed_is_not_used_again(scene: Scene) -> None:
    # This provider closes each connection without a word, after its answer.
    for _ in range(20):
        closed = scene.provider.closed
        assert scene.call("raw", "/v1/record").status_code == 200
        wait_until(lambda before=closed: scene.provider.closed > before, 5)  # type: ignore[misc]


def test_a_multipart_body_in_chunks_arrives_byte_for_byte(scene: Scene) -> None:
    content = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + bytes(range(256)) * 40
    content += b"\r\n--x--\r\n"
    fields = {"Content-Type": "multipart/form-data; boundary=x"}
    parts = iter([content[:7], content[7:5000], content[5000:]])
    answer = scene.call("raw", "/v1/record", json=None, content=parts, headers=fields)
    assert answer.status_code == 200
    assert scene.provider.requests[-1].partition(b"\r\n\r\n")[2] == content
    assert b"content-type: multipart/form-data; boundary=x" in scene.provider.requests[-1].lower()


def test_interim_answers_of_the_provider_are_no_answers(scene: Scene) -> None:
    answer = scene.call("raw", "/v1/hints")
    assert answer.status_code == 200 and answer.json()["usage"]["total_tokens"] == 42


def test_expect_100_continue_is_met(scene: Scene) -> None:
    request = head(scene, "POST", "/gateway/raw/v1/record", "Expect: 100-continue\r\nContent-Length: 2\r\n")
    with socket.create_connection(("127.0.0.1", scene.instance.port), timeout=10) as connection:
        connection.sendall(request)
        assert connection.recv(65536).startswith(b"HTTP/1.1 100 Continue\r\n")
        connection.sendall(b"{}")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
    assert b"expect:" not in scene.provider.requests[-1].lower()


@pytest.mark.parametrize("path", ["/gateway/raw/v1/whole", "/gateway/llm/v1/models"])
def test_an_http_1_0_client_gets_no_chunks(scene: Scene, path: str) -> None:
    answer = raw(scene, head(scene, "GET", path, version="1.0"))
    first, _, body = answer.partition(b"\r\n\r\n")
    assert first.split(b" ")[1] == b"200" and b"chunked" not in first.lower() and body


def test_head_and_empty_answers_have_no_body(scene: Scene) -> None:
    for method, path, status in (("HEAD", "/v1/record", 200), ("GET", "/v1/no-content", 204)):
        answer = httpx.request(method, f"{scene.instance.url}/gateway/raw{path}", headers=scene.headers, timeout=10)
        assert answer.status_code == status and answer.content == b""


def test_a_preflight_without_a_key_is_refused(scene: Scene) -> None:
    fields = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
    answer = httpx.options(f"{scene.instance.url}/gateway/llm/v1/models", headers=fields)
    assert answer.status_code == 401 and "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    "path", ["/v1/record/", "/v1/record/caf%C3%A9", "/v1/record/a;b=c,d@e:f", "/v1/record/%e4%bd%a0?q=%20&q=2"]
)
def test_paths_and_queries_arrive_as_they_were_written(scene: Scene, path: str) -> None:
    answer = raw(scene, head(scene, "GET", f"/gateway/raw{path}", "Connection: close\r\n"))
    assert answer.startswith(b"HTTP/1.1 200")
    assert scene.provider.requests[-1].startswith(f"GET {path} HTTP/1.1\r\n".encode())


def test_a_large_image_in_a_prompt_passes_and_costs_its_text(scene: Scene) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 900_000}}
    body: Any = {"model": "m", "messages": [{"role": "user", "content": [image, {"type": "text", "text": "what?"}]}]}
    answer = scene.call("raw", "/v1/record", json=body)
    assert answer.status_code == 200 and scene.recent(answer)["cost"]["tokens"] < 1000


@pytest.mark.parametrize(
    "field",
    [b"X-A: a\rX-Evil: 1", b"X-A: a\nX-Evil: 1", b"X-A: a\x00b", b"X-A : a", b"X-A: a\r\n folded", b"X\x01A: a", b": a"],
)  # fmt: skip
def test_no_field_smuggles_another(scene: Scene, field: bytes) -> None:
    sent = len(scene.provider.requests)
    answer = raw(
        scene, head(scene, "GET", "/gateway/raw/v1/record", "Connection: close\r\n")[:-2] + field + b"\r\n\r\n", 3
    )
    assert not answer or answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 200"))
    for request in scene.provider.requests[sent:]:
        lines = request.partition(b"\r\n\r\n")[0].split(b"\r\n")
        # A bare line feed may end a line (RFC 9112, 2.2): then there are two fields, which arrive as two.
        assert not [line for line in lines if b"\r" in line or b"\n" in line or b"\x00" in line]
        assert b"x-evil: 1" not in lines or field == b"X-A: a\nX-Evil: 1"


@pytest.mark.parametrize(
    "body",
    [
        b"5;x=y\r\nhello\r\n0\r\n\r\n",  # extensions of chunks are allowed
        b"0000000005\r\nhello\r\n0\r\nTrailer: x\r\n\r\n",
        b"5\r\nhelloXX0\r\n\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
        b"FFFFFFFFFFFFFFFFF\r\nhello",
        b"5 \nhello\r\n0\r\n\r\n",
    ],
)
def test_odd_chunks_are_read_as_written_or_refused(scene: Scene, body: bytes) -> None:
    sent = len(scene.provider.requests)
    request = head(scene, "POST", "/gateway/raw/v1/record", "Transfer-Encoding: chunked\r\nConnection: close\r\n")
    answer = raw(scene, request + body, 3)
    assert not answer or answer.split(b" ")[1] in (b"200", b"400")
    for one in scene.provider.requests[sent:]:
        assert one.endswith(b"\r\n\r\nhello") and b"content-length: 5" in one.lower()


def test_a_body_above_the_limit_is_refused_while_it_is_sent(scene: Scene) -> None:
    """In chunks its size is not known before; the account is not blamed."""
    part = b"y" * 1_000_000
    errors = scene.account("raw")["errors"].get("network", 0)
    with httpx.Client(timeout=30) as client:
        answer = client.post(
            f"{scene.instance.url}/gateway/raw/v1/upload", headers=scene.headers, content=iter([part] * 40)
        )
    assert answer.status_code == 413, answer.text
    wait_until(lambda: scene.is_idle("raw"), 3)
    assert scene.account("raw")["errors"].get("network", 0) == errors


def test_a_client_that_leaves_its_upload_frees_its_slot(scene: Scene) -> None:
    errors = scene.account("raw")["errors"].get("network", 0)
    with socket.create_connection(("127.0.0.1", scene.instance.port), timeout=10) as connection:
        connection.sendall(
            head(scene, "POST", "/gateway/raw/v1/upload", "Content-Length: 5000000\r\n") + b"z" * 2_000_000
        )
        wait_until(lambda: not scene.is_idle("raw"), 5)
    wait_until(lambda: scene.is_idle("raw"), 3)
    assert scene.account("raw")["errors"].get("network", 0) == errors


def test_many_clients_that_leave_at_once_hold_up_nobody(scene: Scene) -> None:
    """They leave large streams: what is done then may not keep the others waiting."""
    url = f"{scene.instance.url}/gateway/cached/v1/endless-fat"
    gone = threading.Barrier(11)

    def leave() -> None:
        with httpx.stream("POST", url, headers=scene.headers, json={}) as answer:
            size = 0
            for part in answer.iter_raw():
                size += len(part)
                if size > 3_000_000:
                    break
            gone.wait(30)

    threads = [threading.Thread(target=leave) for _ in range(10)]
    for thread in threads:
        thread.start()
    gone.wait(30)
    assert scene.call("llm").status_code == 200
    for thread in threads:
        thread.join(10)
    wait_until(lambda: scene.is_idle("cached"), 5)


def test_prompts_of_open_streams_are_not_kept_in_memory(scene: Scene) -> None:
    """Forty streams whose prompts have a mebibyte each, twice over where they are parsed."""
    body = {"model": "m", "messages": [{"role": "user", "content": "x" * 1_000_000}]}
    url = f"{scene.instance.url}/gateway/cached/v1/endless"
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(httpx.Client(timeout=30, limits=httpx.Limits(max_connections=None)))
        before = memory_of(scene)
        kept = []
        for number in range(40):
            headers = scene.headers | {"Sluice-Sticky": str(number)}
            answer = stack.enter_context(client.stream("POST", url, headers=headers, json=body))
            parts = answer.iter_raw()
            assert answer.status_code == 200 and next(parts)
            kept.append(parts)
        assert memory_of(scene) - before < 40
    wait_until(lambda: scene.is_idle("cached"), 5)


def memory_of(scene: Scene) -> int:
    """MiB of the web server's processes."""
    (parent,) = scene.instance.pids("web")
    children = [row.pid for row in process_table().values() if row.parent == parent]
    sizes = [Path(f"/proc/{pid}/status").read_text() for pid in (parent, *children)]
    return sum(int(re.search(r"VmRSS:\s+(\d+)", text)[1]) for text in sizes) // 1024  # type: ignore[index]


@pytest.mark.parametrize("asks", [False, True], ids=["hidden", "requested"])
def test_borders_of_chunks_inside_of_characters_change_nothing(scene: Scene, asks: bool) -> None:
    body: dict[str, Any] = {"model": "m", "stream": True, "messages": MESSAGES}
    if asks:
        body["stream_options"] = {"include_usage": True}
    answer = scene.call("raw", "/v1/bytewise/completions", json=body)
    assert answer.content == ODD_EVENTS + (ODD_USAGE if asks else b"") + b"data:[DONE]\r\n\r\n"
    assert scene.recent(answer)["actual"]["tokens"] == 21


def test_an_error_event_in_a_good_answer_is_no_success(scene: Scene) -> None:
    answer = scene.call("raw", "/v1/overloaded", json={"model": "m", "stream": True})
    assert answer.status_code == 200 and b"overloaded_error" in answer.content
    assert scene.recent(answer)["outcome"] not in ("ok", "broken")


def test_the_providers_wait_reaches_the_caller(scene: Scene) -> None:
    scene.telegram.faults({"status": 429, "headers": {"Retry-After": "3"}})
    answer = scene.call("tg", "/sendMessage", json={"chat_id": 99, "text": "t"})
    assert answer.status_code == 429 and 1 <= int(answer.headers["retry-after"]) <= 4


def test_repeated_fields_of_the_caller_all_arrive(scene: Scene) -> None:
    fields = "anthropic-beta: context-1m\r\nanthropic-beta: tools-2\r\nanthropic-version: 2023-06-01\r\n"
    raw(scene, head(scene, "GET", "/gateway/raw/v1/record", f"{fields}Connection: close\r\n"))
    sent = scene.provider.requests[-1].lower()
    assert b"anthropic-version: 2023-06-01\r\n" in sent
    assert all(word in sent for word in (b"context-1m", b"tools-2"))


def test_a_refusal_that_a_stream_begins_with_goes_to_another_account(scene: Scene) -> None:
    """The caller has nothing of it yet, and is charged once."""
    body = {"model": "m", "stream": True, "messages": MESSAGES}
    before = scene.used("by-user")
    answers = [
        scene.call("inside", "/v1/limited-inside", json=body, headers={"Sluice-User": "u-inside"}) for _ in range(2)
    ]
    for answer in answers:
        assert answer.status_code == 200 and b"word " in answer.content and b"Rate limit" not in answer.content
        assert answer.headers["sluice-account"] == "second" and scene.recent(answer)["actual"]["tokens"] == 10
    assert max(answer.headers["sluice-attempts"] for answer in answers) == "2"
    wait_until(lambda: scene.used("by-user") == before + 2, 5)


def test_a_refusal_inside_of_a_stream_by_all_accounts_names_its_time(scene: Scene) -> None:
    body = {"model": "m", "stream": True, "messages": MESSAGES}
    answer = scene.call("inside", "/v1/limited-inside/all", json=body)
    assert answer.status_code == 429 and answer.json()["error"]["code"] == "no-account-available"
    assert 0 < int(answer.headers["retry-after-ms"]) < 5000
    waited = scene.call("inside", "/v1/limited-inside", json=body, headers={"Prefer": "wait=20"})
    assert waited.status_code == 200 and b"Rate limit" not in waited.content


def test_a_stream_that_is_only_an_error_costs_no_tokens(scene: Scene) -> None:
    answer = scene.call("raw", "/v1/overloaded", json={"model": "m", "stream": True, "messages": MESSAGES})
    assert answer.status_code == 200 and answer.headers["content-type"] == "text/event-stream"
    assert answer.content.startswith(b"event: error\n") and b"overloaded_error" in answer.content
    call = scene.recent(answer)
    assert call["cost"]["tokens"] > 500 and call["actual"]["tokens"] == 0


def test_a_provider_that_refuses_the_request_for_the_use_gets_the_callers_own_body(scene: Scene) -> None:
    body = {"model": "strict", "stream": True, "messages": MESSAGES}
    before, sent = scene.used("by-user"), len(scene.provider.requests)
    for _ in range(2):
        answer = scene.call("raw", "/v1/strict/completions", json=body, headers={"Sluice-User": "u-strict"})
        assert answer.status_code == 200 and answer.content.count(b"word ") == 3
    written = [b"stream_options" not in request for request in scene.provider.requests[sent:]]
    assert written == [False, True, True]
    assert answer.headers["sluice-attempts"] == "1"
    wait_until(lambda: scene.used("by-user") == before + 2, 5)


@pytest.mark.parametrize(("method", "count"), [("PUT", 1), ("DELETE", 1), ("GET", 2)])
def test_only_safe_requests_are_sent_again_on_a_connection_that_breaks_off(
    scene: Scene, method: str, count: int
) -> None:
    path = f"/v1/stale/{method}"
    for _ in range(2):  # the second one goes by the connection of the first
        answer = httpx.request(method, f"{scene.instance.url}/gateway/raw{path}", headers=scene.headers, timeout=10)
    assert answer.status_code == (200 if method == "GET" else 502)
    assert sum(path.encode() in request for request in scene.provider.requests) == 1 + count


def test_a_redirect_to_the_provider_leads_through_the_gateway(scene: Scene) -> None:
    """Otherwise a client that follows it would send its key to the provider, past all limits."""
    answer = scene.call("raw", "/v1/moved")
    assert answer.status_code == 307 and answer.headers["location"] == "/gateway/raw/v1/record/?q=1"
    assert "x-basic" not in answer.headers, "the credential, in base64"
    followed = scene.call("raw", "/v1/moved", follow_redirects=True)
    assert followed.status_code == 200 and followed.url.path == "/gateway/raw/v1/record/"
    assert scene.call("raw", "/v1/moved-away").headers["location"] == "https://elsewhere.example/x"


def test_a_large_body_of_known_length_keeps_its_length(scene: Scene) -> None:
    answer = scene.call("raw", "/v1/upload/sized", json=None, content=b"x" * 2_000_000)
    assert answer.status_code == 200
    sent = next(request for request in reversed(scene.provider.requests) if b"/upload/sized" in request).lower()
    assert b"content-length: 2000000\r\n" in sent and b"transfer-encoding" not in sent


def said(fields: bytes, body: bytes = b"{}", status: bytes = b"200 OK") -> bytes:
    if b"Connection: " not in fields:
        fields += b"\r\nConnection: close"
    return b"HTTP/1.1 %b\r\n%b\r\n\r\n%b" % (status, fields, body)


MANY = b"\r\n".join(b"X-%d: y" % number for number in range(200))
HALF = gzip.compress(b"word " * 100)[:20]


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (said(b"Content-Length: 100", b"x" * 50), None),
        (said(b"Content-Encoding: gzip\r\nContent-Length: 20", HALF), None),
        (said(b"Content-Encoding: gzip\r\nContent-Length: 4", b"abcd"), 502),
        (said(b"Content-Length: 2\r\nTransfer-Encoding: chunked", b"2\r\n{}\r\n0\r\n\r\n"), 502),
        (said(b"Content-Length: 2\r\nContent-Length: 3"), 502),
        (said(b"Upgrade: x\r\nConnection: upgrade", b"", b"101 Switching Protocols"), 502),
        (b"hello\r\n\r\n", 502),
        (said(b"Content-Length: 2\r\n" + MANY), 200),
        (said("X-Name: café\r\nContent-Length: 2".encode("latin-1")), 200),
        (said(b"Connection: close"), 200),
        (said(b'Content-Length: 200\r\nETag: "x"', b"", b"304 Not Modified"), 304),
    ],
    ids=[
        "cut",
        "gzip-cut",
        "no-gzip",
        "length-and-chunks",
        "two-lengths",
        "other-protocol",
        "no-http",
        "200-fields",
        "latin-1",
        "until-close",
        "304-with-length",
    ],
)
def test_odd_answers_pass_or_are_errors_and_never_end_as_if_they_were_whole(
    scene: Scene, answer: bytes, status: int | None
) -> None:
    fields = {"Sluice-User": "u-odd"}
    if status is None:
        with pytest.raises(httpx.RemoteProtocolError):
            scene.call("raw", "/v1/answer-of-body", json=None, content=answer, headers=fields)
        return
    found = scene.call("raw", "/v1/answer-of-body", json=None, content=answer, headers=fields)
    assert found.status_code == status
    if status == 502:
        assert found.json()["error"]["code"] == "upstream-broken"
    else:
        assert found.content == (b"{}" if status == 200 else b"")


@pytest.mark.long
def test_a_head_does_not_wait_for_its_body_for_long(scene: Scene) -> None:
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", scene.instance.port), timeout=20) as connection:
        connection.sendall(head(scene, "POST", "/gateway/raw/v1/late", "Content-Length: 0\r\n"))
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        assert time.monotonic() - began < 10, "the body comes after 12 s"
        answer = b""
        while b"\r\n0\r\n\r\n" not in answer:
            answer += connection.recv(65536)
        assert b"word " in answer


def test_a_client_that_takes_nothing_ends_with_the_providers_timeout(scene: Scene) -> None:
    """Its connection stays open, so that it is not known to be gone."""
    scene.provider.hung_up.clear()
    with socket.create_connection(("127.0.0.1", scene.instance.port), timeout=20) as connection:
        connection.sendall(head(scene, "POST", "/gateway/hasty/v1/endless-fat", "Content-Length: 2\r\n") + b"{}")
        assert scene.provider.hung_up.wait(15), "the provider's connection is closed"
        wait_until(lambda: metric(scene, "sluice_gateway_streams") == 0, 5)


def test_a_client_that_offers_http_2_is_answered(scene: Scene) -> None:
    """As Java's does with each request that is not encrypted; a server may ignore the offer."""
    fields = (
        "Connection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk\r\n"
    )
    request = head(scene, "POST", "/gateway/raw/v1/record", f"{fields}Content-Length: 2\r\n") + b"{}"
    answer = raw(scene, request)
    assert answer.startswith(b"HTTP/1.1 200 ")
    sent = scene.provider.requests[-1].lower()
    assert sent.endswith(b"\r\n\r\n{}") and b"upgrade" not in sent and b"http2-settings" not in sent


def test_the_provider_gets_no_field_that_the_caller_has_not_sent(scene: Scene) -> None:
    request = (
        f"POST /gateway/raw/v1/bare HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {scene.key}\r\n"
        "Content-Length: 2\r\nConnection: close\r\n\r\n{}"
    )
    assert raw(scene, request.encode())
    (sent,) = [one for one in scene.provider.requests if b"/v1/bare" in one]
    names = {line.partition(b":")[0].lower() for line in sent.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]}
    # The last two are set by the gateway.
    assert names == {b"host", b"content-length", b"accept-encoding", b"authorization"}
