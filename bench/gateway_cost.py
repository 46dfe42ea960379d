"""What the application itself costs a call through the gateway, without the server in front of it.

    python -m bench.gateway_cost [--calls 2000] [--rounds 5] [--connections 16] [--parts]

One process calls the ASGI application, and the bare pass-through of `bench.gateway_bare`, in turn: a coroutine for each
connection, whole answers and streamed ones, with a provider and a Redis in processes of their own. Printed is the processor
time of the event loop's thread, the least of all rounds, since others load the machine. `--parts` samples ten more rounds of
each, once in so much processor time, and prints where it goes; a function in C counts for who called it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from contextlib import ExitStack
from types import FrameType
from typing import Any

import uvloop

from bench.gateway_yard import CHAT, PATH, ROOT, Yard, configuration

PARTS = (
    ("HTTP client", ("/aiohttp/", "/yarl/", "/multidict/", "/propcache/", "gateway/upstream.py", "async_timeout")),
    ("reading the answer: errors, quota, use", ("engine/dialects/", "gateway/usage.py", "gateway/attempt.py")),
    ("admission", ("accounts/admission", "accounts/packed_pool", "limits/codec", "gateway/admission.py", "engine/keys.py",
                   "snapshot/", "limits/requests", "accounts/lease_keys", "accounts/accounts.py")),
    ("settlement", ("limits/settlement", "accounts/outcome", "services/accounts.py")),
    ("Redis: pipeline, services around it", ("engine/redis/", "services/admissions_async", "services/limits", "limits/limiter")),
    ("fields, key, path, body, estimate", ("gateway/fields", "gateway/arrival", "gateway/target", "gateway/body", "gateway/call",
                                           "engine/estimate", "http/hot_cache", "rest/authentication", "rest/caller")),
    ("passing the answer on", ("gateway/answer", "rest/decisions", "gateway/encodings")),
    ("events, metrics, recent calls", ("/observability/", "quotas/events/", "runtime/counters", "gateway/progress")),
    ("the rest of the gateway", ("controlplane/", "quotas/")),
)  # fmt: skip


class Caller:
    """Calls an application as a server does: a body, then nothing until the call has ended."""

    def __init__(self, application: Any, key: str, *, stream: bool) -> None:
        self._application = application
        self._body = json.dumps({**CHAT, **({"stream": True} if stream else {})}, separators=(",", ":")).encode()
        self._headers = [
            (b"host", b"localhost"), (b"content-type", b"application/json"), (b"accept", b"*/*"),
            (b"user-agent", b"bench"), (b"authorization", b"Bearer " + key.encode()),
            (b"content-length", b"%d" % len(self._body)),
        ]  # fmt: skip
        self.failed = 0

    async def once(self) -> None:
        scope = {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1",
            "server": ("127.0.0.1", 8000), "client": ("127.0.0.1", 50000), "scheme": "http", "method": "POST",
            "root_path": "", "path": PATH, "raw_path": PATH.encode(), "query_string": b"", "headers": self._headers,
            "state": {}, "extensions": {},
        }  # fmt: skip
        is_read = False

        async def receive() -> dict[str, Any]:
            nonlocal is_read
            if is_read:
                await asyncio.get_running_loop().create_future()
            is_read = True
            return {"type": "http.request", "body": self._body, "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            if message.get("status", 200) != 200:
                self.failed += 1

        await self._application(scope, receive, send)

    async def many(self, calls: int, connections: int) -> float:
        """Seconds of processor time a call."""

        async def some() -> None:
            for _ in range(calls // connections):
                await self.once()

        before = time.thread_time()
        await asyncio.gather(*[some() for _ in range(connections)])
        return (time.thread_time() - before) / (calls // connections * connections)


async def inside(key: str, calls: int, rounds: int, connections: int, parts: bool) -> None:
    from bench.gateway_bare import application as bare
    from controlplane.asgi import application

    for stream in (False, True):
        callers = {"gateway": Caller(application, key, stream=stream), "bare": Caller(bare, key, stream=stream)}
        count = calls // 4 if stream else calls
        found: dict[str, list[float]] = defaultdict(list)
        for turn in range(rounds + 1):  # the first is to warm up
            for name, caller in callers.items():
                cost = await caller.many(count, connections)
                if turn:
                    found[name].append(cost * 1e6)
        least = {name: min(costs) for name, costs in found.items()}
        print(
            f"{'streamed' if stream else 'whole':9} gateway {least['gateway']:6.0f} us, bare {least['bare']:5.0f} us: "
            f"{least['bare'] / least['gateway']:.2f} x   ({', '.join(f'{cost:.0f}' for cost in found['gateway'])})"
        )
        for name, caller in callers.items():
            if caller.failed:
                print(f"{name}: {caller.failed} calls failed")
        if parts:
            for name, caller in callers.items():
                await _print_parts(name, caller, count * 10, connections)
    await application.close()


async def _print_parts(name: str, caller: Caller, calls: int, connections: int) -> None:
    found: Counter[str] = Counter()

    def sample(_: int, frame: FrameType | None) -> None:
        while frame is not None and not (part := _part_of(frame.f_code.co_filename)):
            frame = frame.f_back
        found[part if frame is not None else "event loop, sockets"] += 1

    signal.signal(signal.SIGPROF, sample)
    signal.setitimer(signal.ITIMER_PROF, 0.001, 0.001)
    cost = await caller.many(calls, connections)
    signal.setitimer(signal.ITIMER_PROF, 0)
    print(f"  {name}: {cost * 1e6:.0f} us while it was sampled, {found.total()} times")
    for part, samples in found.most_common():
        print(f"  {samples / found.total():6.1%} {samples / found.total() * cost * 1e6:6.0f} us   {part}")


def _part_of(file: str) -> str:
    """Empty for a file that counts for who calls it, such as the standard library's and this one."""
    return next((part for part, marks in PARTS if any(mark in file for mark in marks)), "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--parts", action="store_true")
    parser.add_argument("--key", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.key:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # the server's choice, too
            runner.run(inside(options.key, options.calls, options.rounds, options.connections, options.parts))
        return
    with ExitStack() as stack:
        yard = Yard(stack, stack.enter_context(tempfile.TemporaryDirectory()))
        provider = yard.provider()
        key = yard.prepared(configuration(provider))
        environ = {**yard.environ, "PROVIDER": provider}
        command = [sys.executable, "-m", "bench.gateway_cost", *sys.argv[1:], "--key", key]
        subprocess.run(command, cwd=ROOT, env=environ, check=True)


if __name__ == "__main__":
    main()
