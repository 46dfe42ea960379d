"""A Django project of its own, `tests.example`, limited by middleware, decorator and throttle."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest

from tests.support.instance import BASE_DIR, wait_until
from tests.support.shapes import Deployment
from tests.support.valkey import free_port

CONFIGURATION = """
version: 1
projects: [{slug: shop}]
policies:
  - {name: shop-user, project: shop, scope: user, algorithm: fixed_window, limit: 3, window: 365d}
  - {name: shop-ip, project: shop, scope: ip, algorithm: fixed_window, limit: 6, window: 365d}
  - {name: shop-chat, project: shop, scope: custom, key_name: chat, algorithm: fixed_window, limit: 1, window: 365d}
"""


@pytest.fixture(scope="module")
def web(shared: Deployment) -> Iterator[httpx.Client]:
    """The example project, served, on the shared instance's database and Redis."""
    shared.apply(CONFIGURATION)
    port = free_port()
    environ = {
        **shared.instance.environ,
        "DJANGO_SETTINGS_MODULE": "tests.example.settings",
        "SLUICE_TRUSTED_PROXIES": "127.0.0.0/8",
    }
    command = [sys.executable, "manage.py", "runserver", "--noreload", "--skip-checks", f"127.0.0.1:{port}"]
    server = subprocess.Popen(
        command, cwd=BASE_DIR, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            wait_until(lambda: _is_serving(client), 60)
            yield client
    finally:
        server.kill()
        server.wait()


def _is_serving(client: httpx.Client) -> bool:
    try:
        return client.get("/health").status_code == 200
    except httpx.TransportError:
        return False


def get(web: httpx.Client, path: str, address: str, **headers: str) -> httpx.Response:
    return web.get(path, headers={"X-Forwarded-For": address, **headers})


def test_middleware_counts_by_the_callers_address(web: httpx.Client) -> None:
    seven = [get(web, "/plain", "203.0.113.50") for _ in range(7)]
    assert [one.status_code for one in seven] == [200] * 6 + [429]
    assert seven[0].headers["X-RateLimit-Remaining"] == "5" and int(seven[6].headers["Retry-After"]) >= 1
    assert seven[6].json()["violated-policies"] == ["shop-ip"]
    assert get(web, "/plain", "192.0.2.99, 203.0.113.50").status_code == 429, "the client's own entry is not trusted"


def test_one_ipv6_network_is_one_caller_and_excluded_paths_are_free(web: httpx.Client) -> None:
    for n in range(6):
        assert get(web, "/plain", f"2001:db8:1:2::{n + 1}").status_code == 200
    assert get(web, "/plain", "2001:db8:1:2::1").status_code == 429, "one caller has all of a /64"
    assert get(web, "/health", "2001:db8:1:2::1").status_code == 200


def test_decorator_and_throttle(web: httpx.Client) -> None:
    orders = [get(web, "/orders", "203.0.113.51", **{"X-Customer": "c-1"}).status_code for _ in range(4)]
    assert orders == [200, 200, 200, 429]
    assert [get(web, "/chats/7/send", "203.0.113.52").status_code for _ in range(2)] == [200, 429]
    # One by the middleware and two by the throttle, each time.
    assert [get(web, "/search", "203.0.113.53").status_code for _ in range(3)] == [200, 200, 429]
