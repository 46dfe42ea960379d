"""The openai dialect, from outside."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys

import pytest

from tests.integration.controlplane.simulator.process import ROOT, Simulator
from tests.support.valkey import wait_for


def test_limits_headers_and_refusals_per_key():
    with Simulator("--key", "k1:rpm=1,tpm=1000,burst=2", "k2:rpm=0", "--key", "k3") as sim:
        first, second, third = sim.chat(), sim.chat(), sim.chat()
        assert [first[0], second[0], third[0]] == [200, 200, 429]
        assert first[1]["x-ratelimit-limit-requests"] == "1"
        assert (first[1]["x-ratelimit-remaining-requests"], second[1]["x-ratelimit-remaining-requests"]) == ("1", "0")
        assert first[1]["x-ratelimit-reset-requests"] in ("1m0s", "59.999s", "59.998s", "59.997s")
        assert 55 <= int(third[1]["retry-after"]) <= 60
        assert third[2]["error"]["code"] == "rate_limit_exceeded"
        assert "Please try again in" in third[2]["error"]["message"]
        assert sim.chat(key="k2")[0] == 429
        assert "retry-after" not in sim.chat(key="k2")[1]
        assert all(sim.chat(key="k3")[0] == 200 for _ in range(20))
        assert all(sim.chat(key="not-listed")[0] == 200 for _ in range(3))
        stats = sim.stats()
        assert (stats["requests"], stats["refused"]) == (28, 3)
        assert stats["by_key"]["k1"]["requests"] == 3
        assert stats["by_key"]["k1"]["refused"] == 1


def test_tokens_are_charged_by_estimate_and_reconciled_with_use():
    with Simulator("--tpm", "1") as sim:
        assert sim.chat()[0] == 429
        assert sim.chat()[2]["error"]["type"] == "tokens"
    with Simulator("--tpm", "600") as sim:
        status, headers, body = sim.chat("A prompt of forty characters, no less...")
        assert status == 200
        used = body["usage"]["total_tokens"]
        assert body["usage"]["prompt_tokens"] == 10
        assert 600 - used <= int(headers["x-ratelimit-remaining-tokens"]) <= 600 - used + 5


def test_the_answer_is_a_completion_derived_from_the_prompt():
    with Simulator() as sim:
        one = sim.chat("Summarise. The package does many useful things every day.")[2]
        two = sim.chat("Summarise. The package does many useful things every day.")[2]
        assert one == two
        assert one["choices"][0]["message"]["content"] == "The package does many useful things every day."
        assert one["object"] == "chat.completion"
        status, _, body = sim.call("POST", "/v1/embeddings", {"model": "m", "input": ["a", "b"]})
        assert (status, [item["index"] for item in body["data"]]) == (200, [0, 1])
        assert sim.call("GET", "/v1/models")[2]["data"][0]["object"] == "model"


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/v1/chat/completions", b"{", 400),
        ("POST", "/v1/chat/completions", {"messages": []}, 400),
        ("POST", "/v1/chat/completions", {"model": "m", "messages": []}, 400),
        ("POST", "/v1/embeddings", {"model": "m", "input": [1]}, 400),
        ("GET", "/v1/chat/completions", None, 405),
        ("POST", "/nowhere", {}, 404),
    ],
)
def test_bad_calls_get_the_providers_error_and_are_not_charged(method, path, body, status):
    with Simulator("--rpm", "1") as sim:
        assert sim.call(method, path, body)[0] == status
        assert sim.chat()[0] == 200


def test_duplicates_count_only_what_was_answered_with_success():
    with Simulator("--key", "k1:rpm=60,burst=2") as sim:
        sim.faults({"status": 503})
        assert sim.chat(Idempotency_Key="a", X_Request_Id="a.1")[0] == 503
        sim.faults({"drop": True})
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            sim.chat(Idempotency_Key="a", X_Request_Id="a.2")
        sim.faults()
        assert sim.chat(Idempotency_Key="a", X_Request_Id="a.3")[0] == 200
        assert sim.stats()["duplicates"] == 0
        sim.chat(Idempotency_Key="a", X_Request_Id="a.3", key="k2")
        stats = sim.stats()
        assert stats["duplicates"] == 1
        assert (stats["request_ids"], stats["repeated_request_ids"]) == (3, 1)


def test_faults_add_up_per_key_and_clear():
    with Simulator() as sim:
        for fault in ({"status": 429, "key": "k1", "headers": {"Retry-After": "7"}}, {"invalid_key": "k2"}):
            assert sim.call("POST", "/_faults", fault)[0] == 200
        status, headers, _ = sim.chat(key="k1")
        assert (status, headers["retry-after"]) == (429, "7")
        status, _, body = sim.chat(key="k2")
        assert (status, body["error"]["code"]) == (401, "invalid_api_key")
        assert sim.chat(key="k3")[0] == 200
        assert sim.call("POST", "/_faults", {})[2] == {"faults": []}
        assert sim.chat(key="k1")[0] == sim.chat(key="k2")[0] == 200
        for bad in ({"stauts": 500}, {"rate": 2}, {"status": True}, {"headers": {"a": "b\r\nc"}}, [1], {"latency": -1}):
            assert sim.call("POST", "/_faults", bad)[0] == 400
        assert sim.call("POST", "/_faults", b"{")[0] == 400


def test_wrong_clock_missing_headers_and_echoed_keys():
    with Simulator("--rpm", "60") as sim:
        sim.faults({"missing_headers": True})
        assert set(sim.chat()[1]) == {"content-type", "content-length"}
        sim.faults({"clock_skew": 3600, "status": 500, "body": "key {credential} failed"})
        status, headers, body = sim.chat(key="secret-1")
        assert (status, body) == (500, "key secret-1 failed")
        assert "date" in headers


def test_no_key_is_unauthorised():
    with Simulator() as sim:
        assert sim.chat(key="")[0] == 401


def test_concurrency_is_per_key():
    with Simulator("--concurrency", "1", "--latency", "400") as sim:
        slow = socket.create_connection(("127.0.0.1", sim.port))
        body = b'{"model": "m", "input": "x"}'
        head = "POST /v1/embeddings HTTP/1.1\r\nhost: x\r\nauthorization: Bearer k1\r\ncontent-length: %d\r\n\r\n"
        slow.sendall((head % len(body)).encode() + body)
        while sim.stats()["by_key"].get("k1", {}).get("in_flight") != 1:
            pass
        assert sim.chat()[0] == 429
        assert sim.chat(key="k2")[0] == 200
        slow.recv(10)
        slow.close()
        assert sim.chat()[0] == 200


def test_keep_alive_pipelining_and_chunks():
    with Simulator() as sim:
        head = b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\nauthorization: Bearer k1\r\n"
        one = head + b'content-length: 28\r\n\r\n{"model": "m", "input": "x"}'
        two = (
            head + b"connection: close\r\ntransfer-encoding: chunked\r\n\r\n"
            b'10\r\n{"model": "m", "\r\nc\r\ninput": "x"}\r\n0\r\n\r\n'
        )
        with socket.create_connection(("127.0.0.1", sim.port)) as connection:
            connection.sendall(one + two)
            received = b""
            while chunk := connection.recv(65536):
                received += chunk
        assert received.count(b"HTTP/1.1 200 OK") == 2
        with socket.create_connection(("127.0.0.1", sim.port)) as connection:
            connection.sendall(b"nonsense\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(signum):
    assert Simulator().stop(signum) == 0


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--rpm", "-1"], "--rpm"),
        (["--rpm", "nan"], "--rpm"),
        (["--error-rate", "1.5"], "--error-rate"),
        (["--port", "70000"], "--port"),
        (["--dialect", "cobol"], "--dialect"),
        (["--key", "k1:rpm=x"], "rpm"),
        (["--key", "k1:rmp=1"], "rmp"),
        (["--key", "k1", "k1"], "k1"),
    ],
)
def test_bad_flags_name_themselves(flags, said):
    command = [sys.executable, "-m", "controlplane.simulator", *flags]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20)
    assert ended.returncode == 2
    assert said in ended.stderr.splitlines()[-1]


def test_a_taken_port_is_an_error():
    with Simulator() as sim:
        command = [sys.executable, "-m", "controlplane.simulator", "--port", str(sim.port)]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20)
        assert ended.returncode == 1
        assert "cannot listen" in ended.stderr


def test_it_ends_with_its_parent_when_asked():
    script = (
        "import subprocess, sys\n"
        "command = [sys.executable, '-m', 'controlplane.simulator', '--port', '0', '--die-with-parent']\n"
        "child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)\n"
        "print(child.stdout.readline(), flush=True)\n"
        "sys.stdin.read()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    port = int(parent.stdout.readline().rpartition(":")[2])
    socket.create_connection(("127.0.0.1", port), timeout=5).close()
    parent.kill()
    parent.communicate()
    wait_for(lambda: _refused(port))


def _refused(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


def test_the_management_command_needs_no_database_and_no_redis():
    env = {**os.environ, "DATABASE_URL": "postgres://nobody@127.0.0.1:1/none", "REDIS_URL": "redis://127.0.0.1:1/0"}
    command = [sys.executable, "manage.py", "simulate_upstream", "--port", "0", "--dialect", "telegram"]
    process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("ready: http://127.0.0.1:")
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    process.stdout.close()
    bad = subprocess.run([*command, "--key", "k1:rpm=x"], cwd=ROOT, env=env, capture_output=True, text=True, timeout=30)
    assert bad.returncode != 0
    assert "--key" in bad.stderr
    assert "rpm" in bad.stderr
    assert "Traceback" not in bad.stderr
