"""Lets a thread keep its connection to SQLite.

Django opens a connection to SQLite for each request and closes it at each `close_old_connections`, since its threads come and go.
Opening one takes longer than most queries. A thread that lasts as long as its process keeps its own for a minute, as Django
keeps those to PostgreSQL.
"""

from __future__ import annotations

from django.conf import settings
from django.db import connections

MAX_AGE = 60.0
"""Seconds for which a connection to SQLite is kept."""
CACHE = "PRAGMA cache_size=-8000;"
"""Each thread has a cache of its own: of 8 MB, where a connection for one request may use 32."""


def keep() -> None:
    """Let the present thread keep its connections. They are still closed by `close_old_connections` when they are old or broken."""
    if not settings.configured:
        return  # this process uses no SQL
    for connection in connections.all():
        given = connection.settings_dict
        if connection.vendor == "sqlite" and given["CONN_MAX_AGE"] == 0:
            options = {**given["OPTIONS"], "init_command": f"{given['OPTIONS'].get('init_command', '')} {CACHE}"}
            connection.settings_dict = {**given, "CONN_MAX_AGE": MAX_AGE, "OPTIONS": options}
