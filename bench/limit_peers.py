"""The same four limits by other libraries, one call of each library per limit unless it has a batch of its own.

They are the dependency group `bench` of pyproject.toml (`pip install --group bench`, pip 25.1 or newer). Each gets the defaults that its
documentation shows for Redis, an exact or sliding algorithm where it has one, and keys and limits as the limiter gets them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from redis import Redis

Step = Callable[[int], object]
SCOPES = ("ip", "user", "project", "endpoint")
SUBJECTS = 1000
LIMIT = 1_000_000_000
HOUR = 3600


def keys_of(n: int) -> list[str]:
    return [f"{scope}-{n % SUBJECTS}" for scope in SCOPES]


def smart_ratelimit(port: int) -> Step:
    """django-smart-ratelimit: its batch, a pipeline that is not atomic and stores denied hits."""
    from django_smart_ratelimit.backends.redis_backend import RedisBackend

    logging.getLogger("django_smart_ratelimit").setLevel(logging.ERROR)
    backend = RedisBackend(url=f"redis://127.0.0.1:{port}/0")
    return lambda n: backend.check_batch([{"key": key, "limit": LIMIT, "period": HOUR} for key in keys_of(n)])


def limits(port: int) -> Step:
    """limits: a moving window of two buckets, its cheapest strategy that is not a fixed window."""
    from limits import RateLimitItemPerHour
    from limits.storage import RedisStorage
    from limits.strategies import SlidingWindowCounterRateLimiter

    limiter = SlidingWindowCounterRateLimiter(RedisStorage(f"redis://127.0.0.1:{port}/0"))
    item = RateLimitItemPerHour(LIMIT)
    return lambda n: all(limiter.hit(item, key) for key in keys_of(n))


def throttled(port: int) -> Step:
    """throttled-py: GCRA."""
    from throttled import RateLimiterType, Throttled, rate_limiter, store

    throttle = Throttled(
        using=RateLimiterType.GCRA.value,
        quota=rate_limiter.per_hour(LIMIT, burst=LIMIT),
        store=store.RedisStore(server=f"redis://127.0.0.1:{port}/0"),
    )
    return lambda n: all(not throttle.limit(key).limited for key in keys_of(n))


def pyrate(port: int) -> Step:
    """pyrate-limiter: a log of hits in a sorted set for each key; 100 subjects, since it keeps a bucket object for each."""
    from pyrate_limiter import Limiter, Rate, RedisBucket

    client = Redis(port=port)
    made: dict[str, Limiter] = {}
    for n in range(100):
        for key in keys_of(n):
            made[key] = Limiter(RedisBucket.init([Rate(LIMIT, HOUR * 1000)], client, f"pyrate:{key}"))
    return lambda n: all(made[key].try_acquire(key, blocking=False) for key in keys_of(n % 100))


def drf(port: int) -> Step:
    """Django REST framework's throttle on Django's Redis cache: a list of times, read and written back."""
    from django.core.cache.backends.redis import RedisCache
    from rest_framework.throttling import SimpleRateThrottle

    class Throttle(SimpleRateThrottle):
        cache = RedisCache(f"redis://127.0.0.1:{port}/0", {})  # type: ignore[assignment]
        rate = "1000/hour"

        def get_cache_key(self, request: object, view: object) -> str:
            return str(request)

    return lambda n: all(Throttle().allow_request(key, None) for key in keys_of(n))  # type: ignore[arg-type]


PEERS: dict[str, tuple[str, Callable[[int], Step]]] = {
    "django-smart-ratelimit, batch of 4": ("django_smart_ratelimit", smart_ratelimit),
    "limits, 4 hits": ("limits", limits),
    "throttled-py, 4 limits": ("throttled", throttled),
    "pyrate-limiter, 4 acquires": ("pyrate_limiter", pyrate),
    "DRF throttle, 4 requests": ("rest_framework", drf),
}


def installed(port: int) -> tuple[dict[str, Step], list[str]]:
    """The peers that can run here, and the names of those that are not installed."""
    steps: dict[str, Step] = {}
    missing: list[str] = []
    for name, (module, make) in PEERS.items():
        try:
            steps[name] = make(port)
        except ModuleNotFoundError as error:
            if error.name != module:
                raise
            missing.append(name)
    return steps, missing
