"""Submit many calls as one batch, follow their progress, and print the totals.

    SLUICE_KEY=sl_... python examples/fan_out.py --project demo --pool demo-pool --calls 500

Every call has an idempotency key, so an interrupted script can run again without making a call twice.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from client import call

FINAL = ("completed", "dead", "cancelled")


def jobs(options: argparse.Namespace) -> list[dict[str, Any]]:
    """One job per call. `max_tokens` bounds the answer, and the estimate of its cost."""
    return [
        {
            "type": "http.request",
            "project": options.project,
            "queue": options.queue,
            "idempotency_key": f"{options.name}-{number}",
            "payload": {
                "pool": options.pool,
                "method": "POST",
                "path": "/v1/chat/completions",
                "json": {
                    "model": "small",
                    "max_tokens": 20,
                    "messages": [{"role": "user", "content": f"Summarise document {number}."}],
                },
            },
        }
        for number in range(options.calls)
    ]


def main() -> None:
    """Submit, follow, report. Exits with 1 if any call died."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--project", default="demo")
    parser.add_argument("--pool", default="demo-pool")
    parser.add_argument("--queue", default="batch")
    parser.add_argument("--name", default="fan-out", help="name of the batch, and the prefix of the idempotency keys")
    parser.add_argument("--calls", type=int, default=500)
    options = parser.parse_args()

    made = call("POST", "jobs/bulk", {"batch": {"name": options.name}, "jobs": jobs(options)})
    batch = made["batch"]["id"]
    while True:
        progress = call("GET", f"batches/{batch}")
        ended = sum(progress["totals"].get(status, 0) for status in FINAL)
        print(f"{ended} of {progress['total']}, eta {progress['eta']}, limited by {progress['binding']}", flush=True)
        if ended == progress["total"]:
            break
        time.sleep(1)
    print(f"totals: {progress['totals']}")
    raise SystemExit(1 if progress["totals"].get("dead") else 0)


if __name__ == "__main__":
    main()
