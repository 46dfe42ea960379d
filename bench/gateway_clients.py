"""HTTP clients for the gateway's calls to providers: what a call and a stream cost with each.

    python -m bench.gateway_clients [--seconds 3] [--rounds 3] [--connections 16]

Each client has a process of its own that calls the provider of `bench.gateway_provider` from some coroutines at once, as
the gateway does: whole answers, and streams of 40 events that are read part by part. Clients that are not installed are
left out; `aiohttp`, `httpx`, `niquests` and `pyreqwest` are known. `CPU` is the client process's alone.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import re
import resource
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CHAT = {"model": "gpt-4o-mini", "max_tokens": 50, "messages": [{"role": "user", "content": "word " * 40}]}
HEADERS = {"Authorization": "Bearer x", "Content-Type": "application/json"}
Once = Callable[[bytes], Awaitable[int]]
"""Sends a body and reads the answer part by part. Returns the answer's size in bytes."""


async def _aiohttp(url: str, stack: AsyncExitStack) -> Once:
    import aiohttp

    connector = aiohttp.TCPConnector(limit=0)
    session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector, auto_decompress=False))

    async def once(body: bytes) -> int:
        async with session.post(url, data=body, headers=HEADERS) as answer:
            return sum([len(part) async for part in answer.content.iter_any()])

    return once


async def _httpx(url: str, stack: AsyncExitStack) -> Once:
    import httpx

    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    client = await stack.enter_async_context(httpx.AsyncClient(limits=limits))

    async def once(body: bytes) -> int:
        async with client.stream("POST", url, content=body, headers=HEADERS) as answer:
            return sum([len(part) async for part in answer.aiter_raw()])

    return once


async def _niquests(url: str, stack: AsyncExitStack) -> Once:
    import niquests

    session = await stack.enter_async_context(niquests.AsyncSession(pool_connections=100, pool_maxsize=1000))

    async def once(body: bytes) -> int:
        answer: Any = await session.post(url, data=body, headers=HEADERS, stream=True)
        size = 0
        async for part in await answer.iter_raw(-1):
            size += len(part)
        await answer.close()
        return size

    return once


async def _pyreqwest(url: str, stack: AsyncExitStack) -> Once:
    from pyreqwest.client import ClientBuilder

    client = await stack.enter_async_context(ClientBuilder().timeout(timedelta(seconds=60)).build())

    async def once(body: bytes) -> int:
        size = 0
        async with client.post(url).headers(HEADERS).body_bytes(body).build_streamed() as answer:
            while part := await answer.body_reader.read_chunk():
                size += len(part)
        return size

    return once


CLIENTS = {"aiohttp": _aiohttp, "httpx": _httpx, "niquests": _niquests, "pyreqwest": _pyreqwest}


async def measure(name: str, url: str, seconds: float, connections: int) -> dict[str, dict[str, float]]:
    """By kind of answer: calls a second, CPU microseconds per call, MiB at most so far."""
    found = {}
    async with AsyncExitStack() as stack:
        once = await CLIENTS[name](url, stack)
        for kind in ("whole", "streamed"):
            body = json.dumps({**CHAT, **({"stream": True} if kind == "streamed" else {})}).encode()

            async def work(until: float, body: bytes = body) -> int:
                done = 0
                while time.perf_counter() < until:
                    assert await once(body) > 200
                    done += 1
                return done

            for span in (0.5, seconds):  # the first is to warm up
                spent, began = time.process_time(), time.perf_counter()
                done = sum(await asyncio.gather(*[work(began + span) for _ in range(connections)]))
                took = time.perf_counter() - began
            found[kind] = {"rate": done / took, "cpu": (time.process_time() - spent) / done * 1e6}
    found["whole"]["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--one", nargs=2, metavar=("CLIENT", "URL"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(asyncio.run(measure(*options.one, options.seconds, options.connections))))
        return
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    provider = subprocess.Popen([sys.executable, "-m", "bench.gateway_provider", str(port)], cwd=ROOT)
    try:
        _wait_for(port)
        known = [name for name in CLIENTS if importlib.util.find_spec(name) is not None]
        results: dict[str, list[dict[str, dict[str, float]]]] = {name: [] for name in known}
        for _ in range(options.rounds):
            for name in known:
                command = [sys.executable, "-m", "bench.gateway_clients", "--one", name]
                command += [f"http://127.0.0.1:{port}/v1/chat/completions", "--seconds", str(options.seconds)]
                command += ["--connections", str(options.connections)]
                ran = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
                results[name].append(json.loads(ran.stdout))
    finally:
        provider.terminate()
        provider.wait(10)
    print(f"{'':22}{'whole/s':>9}{'CPU us':>8}{'streams/s':>11}{'CPU us':>8}{'MiB':>6}")
    for name in known:
        figures = [
            statistics.median(one[kind][figure] for one in results[name])
            for kind, figure in (
                ("whole", "rate"), ("whole", "cpu"), ("streamed", "rate"), ("streamed", "cpu"), ("whole", "memory"),
            )
        ]  # fmt: skip
        print("{:22}{:9,.0f}{:8.0f}{:11,.0f}{:8.0f}{:6.0f}".format(f"{name} {_version(name)}", *figures))


def _version(name: str) -> str:
    from importlib.metadata import version

    return re.split(r"[^0-9.]", version(name))[0]


def _wait_for(port: int) -> None:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError("the provider does not listen")


if __name__ == "__main__":
    main()
