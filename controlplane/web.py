"""The web server's process: `python -m controlplane.web --host 127.0.0.1 --port 8000`.

Only this module knows the server and its interface.
"""

from __future__ import annotations

import argparse
import os

from granian import Granian
from granian.constants import HTTPModes, Interfaces
from granian.log import LogLevels

from controlplane import parent_death
from controlplane.http import server_log

TARGET = "controlplane.asgi:application"
INTERFACE = Interfaces.ASGI
HTTP = HTTPModes.http1
"""To distinguish HTTP/2 from HTTP/1.1 by a connection's first bytes takes 8 KiB more for each connection. Proxies speak HTTP/1.1 with
what is behind them."""
ARENAS = "2"
"""How many heaps the C library divides memory into: by default eight for each core, of which each keeps what it once needed."""
STOP_SECONDS = 5
"""Seconds that running requests get when the server stops."""


def serve(host: str, port: int, workers: int = 1) -> None:
    """Serve until SIGTERM. `workers` are processes; each answers on a few threads."""
    Granian(
        TARGET,
        address=host,
        port=port,
        interface=INTERFACE,
        http=HTTP,
        workers=workers,
        websockets=False,
        log_level=LogLevels.warning,
        log_dictconfig=server_log.configuration(),
        workers_kill_timeout=STOP_SECONDS,
    ).serve()


def main() -> None:
    """Parse the command line and serve."""
    parser = argparse.ArgumentParser(prog="python -m controlplane.web", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--workers", type=int, default=1, help="Server processes.")
    options = parser.parse_args()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
    os.environ.setdefault("MALLOC_ARENA_MAX", ARENAS)  # read by the C library when a server process starts
    parent_death.hand_down()
    serve(options.host, options.port, options.workers)


if __name__ == "__main__":
    main()
