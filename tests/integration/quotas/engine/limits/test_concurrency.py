"""Two processes of 32 threads each fire 2,000 checks at four limits: exactly as many pass as the tightest allows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import redis

from quotas.engine.limits.limiter import Limiter
from quotas.engine.types import Limit
from tests.support.valkey import Server

ROOT = Path(__file__).parents[5]
LIMITS = [
    Limit("ip", "ip", "ip", "192.0.2.1", "fixed_window", 70, window=86400.0),
    Limit("user", "user", "user", "u", "sliding_window", 50, window=86400.0),
    Limit("project", "project", "project", "p", "token_bucket", 90, window=86400.0 * 30),
    Limit("endpoint", "endpoint", "endpoint", "/v1", "sliding_window", 1000, window=86400.0),
]
FIRE = """
import sys
from concurrent.futures import ThreadPoolExecutor
import redis
from quotas.engine.limits.limiter import Limiter
from tests.integration.quotas.engine.limits.test_concurrency import LIMITS
limiter = Limiter(redis.Redis(port=int(sys.argv[1])))
print("ready", flush=True)
sys.stdin.readline()
with ThreadPoolExecutor(32) as pool:
    print(sum(bool(d) for d in pool.map(lambda n: limiter.check(LIMITS), range(1000))))
"""


def test_exactly_the_tightest_limit_passes_under_racing_processes(valkey_server: Server, valkey: redis.Redis) -> None:
    command = [sys.executable, "-c", FIRE, str(valkey_server.port)]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) for _ in range(2)
    ]
    for process in processes:
        assert process.stdout and process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    passed = sum(int(process.communicate(timeout=60)[0]) for process in processes)
    limiter = Limiter(valkey)
    assert passed == 50
    assert [state.used for state in limiter.peek(LIMITS)] == [50, 50, 50, 50]
    limiter.transport.close()
