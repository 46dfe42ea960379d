"""REST `check` over 16 connections to one server process: the fast path, Django's view, a server that does nothing.

    python -m bench.rest_check [--seconds 5] [--rounds 3] [--connections 16]

Three granian processes on one Valkey, measured in turn: `lean` (this project's ASGI application), `drf` (its WSGI
application: the same check by DRF's view) and `bare` (an ASGI handler that reads the body and answers as many bytes as
a check does, without Redis). The load comes from one process that writes requests and counts answers on raw sockets.
Read the ratios: the machine is shared. `CPU` is what a request costs the server's processes, Redis not among them: where
more than two of the four processes want the two cores, it is more reliable than the rate.
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.support.valkey import free_port, run_server, valkey_binary, wait_for

ROOT = Path(__file__).resolve().parent.parent
SERVERS = {
    "lean": ("controlplane.asgi:application", "asgi"),
    "drf": ("controlplane.wsgi:application", "wsgi"),
    "bare": ("bench.bare:application", "asgi"),
}
BODY = {"user": "u-17", "endpoint": "/v1/chat", "method": "POST", "cost": {"requests": 1}}
PREPARE = """
import django; django.setup()
from django.core.management import call_command
call_command('migrate', verbosity=0)
from quotas.models import Policy
from quotas.services import api_keys
for name, scope, algorithm in (('hourly', 'user', 'sliding_window'), ('bursty', 'endpoint', 'token_bucket')):
    Policy.objects.create(name=name, scope=scope, algorithm=algorithm, limit=10**9, window=3600, match='POST /v1/*' if scope == 'endpoint' else '')
print(api_keys.create('bench', ['check'], actor='bench')[1])
"""
SERVE = """
import sys
from granian import Granian
from granian.constants import Interfaces
from granian.log import LogLevels
if __name__ == '__main__':
    target, interface, port = sys.argv[1:]
    Granian(target, address='127.0.0.1', port=int(port), interface=Interfaces(interface), workers=1, websockets=False,
            log_level=LogLevels.warning, **({'blocking_threads': 5} if interface == 'wsgi' else {})).serve()
"""


@contextmanager
def serving(name: str, environ: dict[str, str], directory: str) -> Iterator[tuple[int, int]]:
    """Port, and process group."""
    port = free_port()
    script = Path(directory) / "serve.py"
    script.write_text(SERVE)
    process = subprocess.Popen(
        [sys.executable, str(script), *SERVERS[name], str(port)], cwd=ROOT, env=environ, start_new_session=True
    )
    try:
        wait_for(lambda: _listens(port), 30)
        yield port, process.pid
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(20)


def cpu_of(group: int) -> float:
    """Seconds of CPU that the live processes of a group have used."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except FileNotFoundError:
            continue
        if int(fields[2]) == group:
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def rate(port: int, request: bytes, connections: int, seconds: float) -> tuple[float, list[float]]:
    """Answers a second, and the time of each in seconds; every connection has one request in progress."""
    poll = selectors.DefaultSelector()
    for _ in range(connections):
        sock = socket.create_connection(("127.0.0.1", port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(request)
        poll.register(sock, selectors.EVENT_READ, [b"", time.perf_counter()])
    times: list[float] = []
    refused: list[bytes] = []
    begun = time.perf_counter()
    until = begun + seconds
    while (moment := time.perf_counter()) < until:
        for key, _ in poll.select(1.0):
            state = key.data
            state[0] += key.fileobj.recv(65536)  # type: ignore[union-attr]
            if not _whole(state[0]):
                continue
            moment = time.perf_counter()
            if state[0].startswith(b"HTTP/1.1 200"):
                times.append(moment - state[1])
            else:
                refused.append(state[0])
            state[0], state[1] = b"", moment
            key.fileobj.sendall(request)  # type: ignore[union-attr]
    took = time.perf_counter() - begun
    for key in list(poll.get_map().values()):
        key.fileobj.close()  # type: ignore[union-attr]
    if refused:
        print(f"{len(refused)} other answers, such as {refused[0][:60]!r}")
    return len(times) / took, times


def _whole(data: bytes) -> bool:
    head, found, body = data.partition(b"\r\n\r\n")
    if not found:
        return False
    at = head.lower().find(b"content-length:")
    return at >= 0 and len(body) >= int(head[at + 15 :].split(b"\r\n", 1)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=16)
    options = parser.parse_args()
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        server = stack.enter_context(run_server(valkey_binary()))
        environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")},
            "SLUICE_DATA_DIR": directory, "SLUICE_SECRET_KEY": "bench" * 12, "REDIS_URL": server.unix_url,
            "SLUICE_CREDENTIAL_KEYS": "cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4=", "SLUICE_LOG_LEVEL": "ERROR",
            "DJANGO_SETTINGS_MODULE": "controlplane.settings", "PYTHONPATH": str(ROOT),
        }  # fmt: skip
        made = subprocess.run(
            [sys.executable, "-c", PREPARE], cwd=ROOT, env=environ, check=True, capture_output=True, text=True
        )
        key = made.stdout.split()[-1]
        body = json.dumps(BODY).encode()
        request = (
            b"POST /api/v1/limits/check HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Authorization: Bearer %s\r\nContent-Length: %d\r\n\r\n" % (key.encode(), len(body))
        ) + body
        ports = {name: stack.enter_context(serving(name, environ, directory)) for name in SERVERS}
        for port, _ in ports.values():
            rate(port, request, options.connections, 2.0)
        rates: dict[str, list[float]] = {name: [] for name in SERVERS}
        times: dict[str, list[float]] = {name: [] for name in SERVERS}
        costs: dict[str, list[float]] = {name: [] for name in SERVERS}
        for _ in range(options.rounds):
            for name, (port, group) in ports.items():
                before = cpu_of(group)
                found, each = rate(port, request, options.connections, options.seconds)
                costs[name].append((cpu_of(group) - before) / len(each) * 1e6)
                rates[name].append(found)
                times[name] += each
        print(f"{'':6}{'per second':>12}{'p50 ms':>9}{'p99 ms':>9}{'lean is':>10}{'CPU us':>9}{'of lean':>9}")
        for name in SERVERS:
            cuts = statistics.quantiles(times[name], n=100)
            faster = statistics.median(a / b for a, b in zip(rates["lean"], rates[name], strict=True))
            dearer = statistics.median(b / a for a, b in zip(costs["lean"], costs[name], strict=True))
            print(
                f"{name:6}{statistics.median(rates[name]):12,.0f}{cuts[49] * 1e3:9.2f}{cuts[98] * 1e3:9.2f}"
                f"{faster:9.2f}x{statistics.median(costs[name]):9.0f}{dearer:8.2f}x"
            )


if __name__ == "__main__":
    main()
