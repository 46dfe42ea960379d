"""A process that resolves limits again and again: `python -m tests.integration.quotas.snapshot.watcher`.

Each line on standard input is a limit to wait for, as JSON (null: that it is gone); the answer says since when it applies, and how many resolutions and
SQL queries there were since the last answer.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import django


def main() -> None:
    django.setup()
    from django.db import connection

    from quotas.snapshot import resolve

    queries = [0]

    def counted(execute: Any, *args: Any) -> Any:
        queries[0] += 1
        return execute(*args)

    with connection.execute_wrapper(counted):
        for line in sys.stdin:
            wanted = json.loads(line)
            began, resolved, queries[0] = time.monotonic(), 0, 0
            while time.monotonic() - began < 60:
                found = {
                    limit.name: [limit.algorithm, limit.limit, limit.mode] for limit in resolve.limits_for(user="u")
                }
                resolved += 1
                if found.get("watched") == wanted:
                    break
                time.sleep(0.001)
            answer = {
                "found": found.get("watched"), "at": time.time(), "seconds": time.monotonic() - began,
                "resolved": resolved, "queries": queries[0], "limits": len(found),
            }  # fmt: skip
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
