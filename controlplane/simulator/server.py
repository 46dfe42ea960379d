"""The server: listens until a signal arrives or its parent process ends."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
from collections.abc import Callable

from controlplane.simulator.provider import Provider, Settings
from controlplane.simulator.wire import Connection

_PR_SET_PDEATHSIG = 1


def run(settings: Settings, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT. `ready` is called once with the base URL. OSError if the port is taken."""
    asyncio.run(_serve(settings, host, port, ready))


async def _serve(settings: Settings, host: str, port: int, ready: Callable[[str], None]) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    provider = Provider(settings)
    connections: set[Connection] = set()
    server = await loop.create_server(lambda: Connection(provider.answer, connections), host, port, backlog=1024)
    real_port = server.sockets[0].getsockname()[1]
    shown = f"[{host}]" if ":" in host else host
    ready(f"http://{shown}:{real_port}")
    await stop.wait()
    server.close()
    for connection in list(connections):
        connection.close()
    await server.wait_closed()


def die_with_parent() -> None:
    """Request SIGTERM from the kernel when the starting process ends (Linux); elsewhere this is an OSError."""
    if not sys.platform.startswith("linux"):
        raise OSError("--die-with-parent needs Linux")
    parent = os.getppid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    if os.getppid() != parent:
        raise SystemExit(0)
