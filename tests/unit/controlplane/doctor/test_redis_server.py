"""What the doctor says of a server's version."""

from __future__ import annotations

import pytest

from controlplane.doctor.finding import Level
from controlplane.doctor.redis_server import _version


@pytest.mark.parametrize(
    ("info", "level"),
    [
        ({"redis_version": "6.2.14"}, Level.ERROR),
        ({"redis_version": "7.0.15"}, Level.OK),
        ({"redis_version": "7.2.4", "server_name": "valkey", "valkey_version": "9.1.2"}, Level.OK),
        ({"redis_version": "10.0.0"}, Level.OK),
    ],
)
def test_function_libraries_need_version_7(info: dict[str, str], level: Level) -> None:
    assert _version("redis", info).level is level
