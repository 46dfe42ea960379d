"""Trace points between the commit of a submit and the start of its job. They are off: `observer` is None.

A program that measures sets `observer`, as `bench.hops` does; each point then calls it with its name, in the thread that
passes it. Otherwise a point costs the look at one module attribute.
"""

from __future__ import annotations

from collections.abc import Callable

COMMITTED = "committed"
"""The submit's transaction is committed."""
PUBLISHED = "wake-up published"
AWAKE = "dispatcher awake"
ADMITTED = "admitted"
RELEASED = "release committed"
ENQUEUED = "enqueued in RQ"
TAKEN = "taken by a worker"
CLAIMED = "claim committed"
STARTED = "task called"
POINTS = (COMMITTED, PUBLISHED, AWAKE, ADMITTED, RELEASED, ENQUEUED, TAKEN, CLAIMED, STARTED)
"""In the order in which a job that is alone passes them."""

observer: Callable[[str], None] | None = None
