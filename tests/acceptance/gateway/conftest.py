"""One instance for all tests of the gateway."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.gateway_scene import Scene, gateway_scene


@pytest.fixture(scope="package")
def scene() -> Iterator[Scene]:
    with gateway_scene() as found:
        yield found


@pytest.fixture(autouse=True)
def _no_faults(scene: Scene) -> None:
    for simulator in (scene.sim, scene.claude, scene.gemini, scene.telegram):
        simulator.faults()
    scene.provider.hung_up.clear()
