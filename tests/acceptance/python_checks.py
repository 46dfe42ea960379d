"""A process that answers each line of its input with 40 parallel checks through the Python API.

python -m tests.acceptance.python_checks PROJECT: prints for each line how many of the checks were counted against which limit.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import django

AT_ONCE = 40


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
    django.setup()
    from quotas import limits

    def limit(_: int) -> str:
        return str(limits.check(project=sys.argv[1], cost=0).limits[0].limit)

    with ThreadPoolExecutor(AT_ONCE) as threads:
        list(threads.map(limit, range(AT_ONCE)))
        print("ready", flush=True)
        for _ in sys.stdin:
            print(json.dumps(Counter(threads.map(limit, range(AT_ONCE)))), flush=True)


if __name__ == "__main__":
    main()
