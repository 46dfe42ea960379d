"""Makes checks from many threads of one process and prints how many had each status.

python -m tests.acceptance.concurrent_checks URL KEY CHECKS THREADS BODY
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx


def main() -> None:
    url, key, checks, threads, body = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
    with httpx.Client(
        base_url=url,
        headers={"Authorization": f"Bearer {key}"},
        timeout=60,
        limits=httpx.Limits(max_connections=threads),
    ) as client:

        def check(_: int) -> int:
            return client.post("/api/v1/limits/check", json=json.loads(body)).status_code

        with ThreadPoolExecutor(threads) as pool:
            print(json.dumps(Counter(pool.map(check, range(checks)))))


if __name__ == "__main__":
    main()
