"""Calls through the gateway: how many, what it adds, and how many streams one process carries.

    python -m bench.gateway calls [--seconds 5] [--rounds 3] [--connections 16] [--litellm /path/to/litellm]
        [--starlette /path/to/python]
    python -m bench.gateway streams [--streams 1000] [--seconds 30] [--postgres]
    python -m bench.gateway use [--calls 20000] [--clients 200] [--rpm 600]

`calls`: one granian process with this project's application, one with a bare pass-through by the same HTTP client, one of
Starlette and uvicorn that passes through by this client (`--starlette` names a Python that has both), and LiteLLM's proxy where
one is named, measured in turn against a provider that answers at once, whole and streamed.
`streams`: one process, streams of a chunk a second; what each chunk is delayed against the same streams without a
gateway, memory, a reader of one byte a second among them, and how soon slots are free when all clients vanish.
`use`: `bench.gateway_use`.

LiteLLM is in the dependency group `bench` and in no lock. Read the ratios: the machine is shared. `CPU us` is what a call
costs the server's process, Redis and the provider not among them; `rate is` and `CPU is` compare the gateway with each line.
`calls` measures twice: as fast as answers come, where the time of a call is mostly the wait for a busy process, and at half
of that rate, where it is the call's own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import socket
import statistics
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field

import aiohttp

from bench import gateway_use
from bench.gateway_yard import CHAT, PATH, Yard, configuration, memory_of
from bench.rest_check import cpu_of


def request_of(path: str, key: str, *, stream: bool) -> bytes:
    body = json.dumps({**CHAT, **({"stream": True} if stream else {})}, separators=(",", ":")).encode()
    return (
        b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nAuthorization: Bearer %b\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (path.encode(), key.encode(), len(body), body)
    )


class Load:
    """Connections with one request in progress each, on raw sockets: little CPU next to what is measured."""

    def __init__(self, port: int, request: bytes) -> None:
        self._port, self._request = port, request
        self.times: list[float] = []
        self.refused: Counter[bytes] = Counter()

    async def run(self, connections: int, seconds: float, rate: float = 0.0) -> float:
        """Answers a second. With a `rate`, each connection sends its part of so many requests a second, at even distances
        and beside those of the others; without one, as fast as it is answered."""
        began = time.perf_counter()
        pause = connections / rate if rate else 0.0
        starts = [began + number * pause / connections for number in range(connections)]
        await asyncio.gather(*[self._one(began + seconds, start, pause) for start in starts])
        return len(self.times) / (time.perf_counter() - began)

    async def _one(self, until: float, start: float, pause: float) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        due = start
        while time.perf_counter() < until:
            if pause:
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                due = max(due + pause, time.perf_counter())
            began = time.perf_counter()
            writer.write(self._request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
            if length:
                await reader.readexactly(int(length[1]))
            else:
                while not (await reader.readuntil(b"\r\n")).startswith(b"0\r\n"):
                    pass
                await reader.readuntil(b"\r\n")
            if head.startswith(b"HTTP/1.1 200"):
                self.times.append(time.perf_counter() - began)
            else:
                self.refused[head[:15]] += 1
        writer.close()


@dataclass
class Server:
    """One of the servers that are compared, and what was measured of it."""

    port: int
    group: int
    path: str
    key: str
    rates: list[float] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)
    """Microseconds of processor time a call."""
    times: list[float] = field(default_factory=list)

    def measure(self, options: argparse.Namespace, seconds: float, rate: float = 0.0, *, stream: bool) -> Load:
        load = Load(self.port, request_of(self.path, self.key, stream=stream))
        before = cpu_of(self.group)
        self.rates.append(asyncio.run(load.run(options.connections, seconds, rate)))
        self.costs.append((cpu_of(self.group) - before) / max(1, len(load.times)) * 1e6)
        self.times += load.times
        if load.refused:
            print(f"port {self.port}: {dict(load.refused)}")
        return load

    def forget(self) -> None:
        self.rates, self.costs, self.times = [], [], []

    def percentile(self, number: int) -> float:
        """Milliseconds."""
        return statistics.quantiles(self.times, n=100)[number - 1] * 1e3


def calls(options: argparse.Namespace) -> None:
    with ExitStack() as stack:
        yard = Yard(stack, stack.enter_context(tempfile.TemporaryDirectory()))
        provider = yard.provider()
        port, group, key = yard.gateway(configuration(provider))
        servers = {"gateway": Server(port, group, PATH, key), "bare": Server(*yard.bare(provider), PATH, key)}
        if options.starlette:
            servers["starlette"] = Server(*yard.starlette(options.starlette, provider), PATH, key)
        if options.litellm:
            servers["litellm"] = Server(*yard.litellm(options.litellm, provider), "/v1/chat/completions", "sk-bench")
        direct = Server(int(provider.rpartition(":")[2]), 0, "/v1/chat/completions", "x")
        for stream in (False, True):
            what = f"{'streamed' if stream else 'whole'} answers, {options.connections} connections"
            for server in servers.values():
                server.measure(options, 2.0, stream=stream)  # to warm up
            at_once = _compared(servers, direct, options, stream=stream)
            print(f"\n{what}, as fast as they are answered\n{at_once}")
            rate = statistics.median(servers["gateway"].rates) / 2
            paced = {name: server for name, server in servers.items() if name != "litellm"}
            print(
                f"\n{what}, {rate:,.0f} a second: half of that\n{_compared(paced, direct, options, rate, stream=stream)}"
            )
        print(overheads(port, key, options.connections))


def _compared(
    servers: dict[str, Server], direct: Server, options: argparse.Namespace, rate: float = 0.0, *, stream: bool
) -> str:
    """Measure in turn, with the same load: a table. `added` is the time beyond that of the provider alone."""
    for server in (*servers.values(), direct):
        server.forget()
    for _ in range(options.rounds):
        for server in servers.values():
            server.measure(options, options.seconds, rate, stream=stream)
    direct.measure(options, 2.0, rate, stream=stream)
    lines = [
        f"{'':9}{'per second':>12}{'p50 ms':>9}{'p95 ms':>9}{'added p50':>11}{'p95':>8}{'rate is':>10}{'CPU us':>9}{'CPU is':>9}{'MiB':>7}"
    ]
    ours = servers["gateway"]
    for name, server in servers.items():
        faster = statistics.median(a / b for a, b in zip(ours.rates, server.rates, strict=True))
        cheaper = statistics.median(b / a for a, b in zip(ours.costs, server.costs, strict=True))
        p50, p95 = server.percentile(50), server.percentile(95)
        lines.append(
            f"{name:9}{statistics.median(server.rates):12,.0f}{p50:9.2f}{p95:9.2f}{p50 - direct.percentile(50):11.2f}"
            f"{p95 - direct.percentile(95):8.2f}{faster:9.2f}x{statistics.median(server.costs):9.0f}{cheaper:8.2f}x"
            f"{memory_of(server.group):7.0f}"
        )
    return "\n".join(
        [*lines, f"provider alone: p50 {direct.percentile(50):.2f} ms, p95 {direct.percentile(95):.2f} ms"]
    )


def overheads(port: int, key: str, connections: int) -> str:
    """What the gateway itself says in `Sluice-Overhead`."""

    async def measure() -> list[float]:
        found: list[float] = []
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=connections)) as session:

            async def one() -> None:
                for _ in range(50):
                    async with session.post(
                        f"http://127.0.0.1:{port}{PATH}", json=CHAT, headers={"Authorization": f"Bearer {key}"}
                    ) as answer:
                        await answer.read()
                        found.append(float(answer.headers["sluice-overhead"]))

            await asyncio.gather(*[one() for _ in range(connections)])
        return found

    found = asyncio.run(measure())
    cuts = statistics.quantiles(found, n=100)
    return f"Sluice-Overhead at {connections} connections: p50 {cuts[49] * 1e3:.2f} ms, p99 {cuts[98] * 1e3:.2f} ms"


class Streams:
    """Streams in progress, and how late each of their chunks came."""

    def __init__(self, url: str, key: str, chunks: int, interval: float) -> None:
        self._url, self._interval = url, interval
        self._headers = {"Authorization": f"Bearer {key}", "x-chunks": str(chunks), "x-interval": str(interval)}
        self.delays: list[float] = []
        self.done = self.failed = self.open = 0

    async def run(self, count: int, ramp: float) -> None:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, read_bufsize=4096) as session:
            await asyncio.gather(*[self._one(session, number * ramp / count) for number in range(count)])

    async def _one(self, session: aiohttp.ClientSession, wait: float) -> None:
        await asyncio.sleep(wait)
        try:
            async with session.post(
                self._url, json={**CHAT, "stream": True}, headers=self._headers, timeout=aiohttp.ClientTimeout(total=600)
            ) as answer:  # fmt: skip
                assert answer.status == 200, answer.status
                self.open += 1
                async for line in answer.content:
                    if line.startswith(b"data: {") and (at := line.rfind(b'"at":')) > 0:
                        self.delays.append(time.monotonic() - float(line[at + 5 : line.index(b"}", at)]))
            self.done += 1
        except (aiohttp.ClientError, AssertionError, TimeoutError):
            self.failed += 1
        finally:
            self.open -= 1

    def summary(self) -> str:
        cuts = statistics.quantiles(self.delays, n=100)
        return f"p50 {cuts[49] * 1e3:.2f} ms, p99 {cuts[98] * 1e3:.2f} ms"


def streams(options: argparse.Namespace) -> None:
    count, seconds = options.streams, options.seconds
    with ExitStack() as stack:
        yard = Yard(stack, stack.enter_context(tempfile.TemporaryDirectory()), postgres=options.postgres)
        provider = yard.provider()
        port, group, key = yard.gateway(configuration(provider))
        url, chunks = f"http://127.0.0.1:{port}{PATH}", max(1, round(seconds))
        warm = Streams(url, key, 3, 0.1)
        asyncio.run(warm.run(20, 0.1))
        idle = memory_of(group)

        async def measured(at: str, of: int) -> Streams:
            found = Streams(at, key, chunks, 1.0)
            work = asyncio.ensure_future(found.run(of, 3.0))
            slow = _crawl(port, key, chunks) if at == url else None
            most = 0.0
            while not work.done():
                await asyncio.sleep(1.0)
                most = max(most, memory_of(group))
            await work
            if slow is not None:
                slow.close()
                print(
                    f"gateway: {idle:.0f} MiB idle, {most:.0f} MiB at most with {of:,} streams; done {found.done}, failed {found.failed}"
                )
            return found

        before = cpu_of(group)
        through = asyncio.run(measured(url, count))
        print(f"CPU of the gateway: {(cpu_of(group) - before) / (seconds + 3):.0%} of a core")
        direct = asyncio.run(measured(f"{provider}/v1/chat/completions", count))
        print(f"delay of a chunk: through the gateway {through.summary()}; without it {direct.summary()}")
        asyncio.run(_vanish(port, key, min(count, 500)))


def _crawl(port: int, key: str, chunks: int) -> socket.socket:
    """A client that reads one byte a second, of a stream without pauses."""
    crawler = socket.create_connection(("127.0.0.1", port))
    request = request_of(PATH, key, stream=True).replace(b"\r\nHost", b"\r\nx-chunks: 200000\r\nHost", 1)
    crawler.sendall(request)

    async def crawl() -> None:
        crawler.setblocking(False)
        for _ in range(chunks):
            await asyncio.get_running_loop().sock_recv(crawler, 1)
            await asyncio.sleep(1.0)

    asyncio.ensure_future(crawl()).add_done_callback(lambda done: done.cancelled() or done.exception())
    return crawler


async def _vanish(port: int, key: str, count: int) -> None:
    """All clients of endless streams go at once: how long until no account has a call in flight."""
    sockets = []
    for _ in range(count):
        client = socket.create_connection(("127.0.0.1", port))
        client.sendall(
            request_of(PATH, key, stream=True).replace(b"\r\nHost", b"\r\nx-interval: 0.5\r\nx-chunks: 600\r\nHost", 1)
        )
        sockets.append(client)
    headers = {"Authorization": f"Bearer {key}"}

    async with aiohttp.ClientSession(headers=headers) as session:

        async def in_flight() -> int:
            async with session.get(
                f"http://127.0.0.1:{port}/api/v1/calls", params={"outcome": "cancelled", "limit": 500}
            ) as answer:
                return len((await answer.json())["results"])

        await asyncio.sleep(5.0)
        began = time.perf_counter()
        for client in sockets:
            client.close()
        while await in_flight() < min(count, 500):
            await asyncio.sleep(0.1)
            assert time.perf_counter() - began < 60
        print(
            f"{count} clients vanish: all their calls have ended within {time.perf_counter() - began:.2f} s (listed once a second)"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    one = parts.add_parser("calls")
    one.add_argument("--seconds", type=float, default=5.0)
    one.add_argument("--rounds", type=int, default=3)
    one.add_argument("--connections", type=int, default=16)
    one.add_argument("--litellm", default="", help="LiteLLM's program")
    one.add_argument("--starlette", default="", help="a Python that has starlette, uvicorn[standard] and aiohttp")
    two = parts.add_parser("streams")
    two.add_argument("--streams", type=int, default=1000)
    two.add_argument("--seconds", type=float, default=30.0)
    two.add_argument("--postgres", action="store_true", help="on a PostgreSQL that is started here")
    three = parts.add_parser("use")
    three.add_argument("--calls", type=int, default=20_000)
    three.add_argument("--clients", type=int, default=200)
    three.add_argument("--rpm", type=int, default=600)
    options = parser.parse_args()
    {"calls": calls, "streams": streams, "use": gateway_use.use}[options.part](options)


if __name__ == "__main__":
    main()
