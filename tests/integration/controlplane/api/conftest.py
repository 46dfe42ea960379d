"""All endpoints of an instance in one process: a desk that drives jobs, on real SQL and a real Valkey."""

from __future__ import annotations

from tests.integration.queues.conftest import desk, empty

__all__ = ["desk", "empty"]
