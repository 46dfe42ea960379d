"""The one port: hot calls, pages, large files, odd requests, live events, and shutdown."""

from __future__ import annotations

import socket
import time

import httpx

from tests.support.instance import Instance, wait_until
from tests.support.product import Product
from tests.support.shapes import Deployment


def raw(instance: Instance, request: bytes, then: tuple[bytes, ...] = ()) -> tuple[bytes, bytes]:
    """The response on a connection of its own: (head, body)."""
    with socket.create_connection(("127.0.0.1", instance.port), timeout=20) as sock:
        sock.sendall(request)
        for more in then:
            sock.sendall(more)
        data = b""
        while piece := sock.recv(65536):
            data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    return head, body


def test_hot_calls_and_pages_share_a_port(product: Product) -> None:
    assert product.post("limits/check", {"user": "u"})["allowed"] is True
    assert product.call("GET", "limits/check").status_code == 405
    product.post("limits/check", {"colour": 1}, expected=400)
    assert len(product.post("limits/check-batch", {"checks": [{}] * 1000})["results"]) == 1000
    product.post("pools/nope/acquire", expected=404)
    assert "csrf" in product.http.get("/admin/login/").text


def test_a_chunked_body_is_read_by_hot_path_and_django(shared: Deployment) -> None:
    instance = shared.instance
    key = instance.credentials["platform_key"].encode()
    for path, expected in ((b"/api/v1/limits/check", b"400"), (b"/api/v1/limits/reset", b"400")):
        head, body = raw(
            instance,
            b"POST %s HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n" % (path, key),
            (b'9\r\n{"colour"\r\n', b"5\r\n: 12}\r\n", b"0\r\n\r\n"),
        )
        assert head.split()[1] == expected and b"#/colour" in body, (head, body)


def test_head_and_large_files(shared: Deployment) -> None:
    instance = shared.instance
    path = "/static/drf_spectacular_sidecar/swagger-ui-dist/swagger-ui-bundle.js"
    whole = httpx.get(instance.url + path)
    assert whole.status_code == 200 and len(whole.content) > 1_000_000
    assert whole.headers.get("content-length") in (None, str(len(whole.content)))
    assert httpx.get(instance.url + path, headers={"Range": "bytes=0-9"}).content == whole.content[:10]
    head, body = raw(instance, b"HEAD %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % path.encode())
    assert head.split()[1] == b"200" and body == b""


def test_a_client_that_disconnects_early_affects_no_other(shared: Deployment) -> None:
    instance = shared.instance
    key = instance.credentials["platform_key"].encode()
    for _ in range(30):
        with socket.create_connection(("127.0.0.1", instance.port)) as sock:
            sock.sendall(
                b"POST /api/v1/limits/check HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\n"
                b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{" % key
            )
    shared.product.post("limits/check")


def test_events_of_a_job_go_to_its_project_only(shared: Deployment) -> None:
    product = shared.product
    shared.apply(CONFIGURATION)
    ours, theirs = (api_key(shared.instance, project) for project in ("ours", "theirs"))
    mine, other, everything = shared.events(ours), shared.events(theirs), shared.events()
    product.pause("unused")
    wait_until(lambda: "queue.paused" in everything.names(), 10)
    product.resume("unused")
    payload = {"pool": "nowhere", "method": "GET", "path": "/"}
    uid = product.submit("http.request", project="ours", payload=payload, max_attempts=1)
    wait_until(lambda: "job.dead" in mine.names(job=uid), 30, lambda: str(mine.received))
    assert mine.names(job=uid)[0] == "job.executing"
    wait_until(lambda: "job.dead" in everything.names(job=uid), 10)
    assert not other.received
    assert "queue.paused" not in mine.names()
    again = shared.events(ours, since=mine.received[0].id)
    wait_until(lambda: again.received == mine.received[1:], 10)


def api_key(instance: Instance, project: str) -> str:
    made = instance.manage("apikey", "create", "--name", project, "--project", project, "--scopes", "read,submit")
    return next(word for word in made.stdout.split() if word.startswith("sl_"))


CONFIGURATION = """
version: 1
projects: [{slug: ours}, {slug: theirs}]
queues: [{name: unused}]
providers: [{name: nowhere, dialect: generic, base_url: "http://127.0.0.1:9", auth_header: "Authorization: Bearer {credential}", timeout: 2s}]
pools:
  - name: nowhere
    provider: nowhere
    breaker: {failures: 50, window: 60s, open_for: 60s, probes: 1}
    accounts: [{name: a1, credential_env: PATH}]
"""


def test_open_streams_do_not_delay_the_shutdown(fresh: Deployment) -> None:
    instance, events = fresh.instance, fresh.events()
    begun = time.monotonic()
    assert instance.stop() == 0
    assert events.ended.wait(5)
    assert events.complete, instance.output
    # A process that has written nothing has no log file; the parent shows each line, too.
    assert "refused to gracefully stop" not in instance.output, instance.output
    assert time.monotonic() - begun < 60
    instance.no_survivors()
