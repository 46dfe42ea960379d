"""Ids: 26 characters, unique, rising with time."""

from __future__ import annotations

import time

from queues import ids


def test_form_and_uniqueness() -> None:
    made = {ids.new_id() for _ in range(20_000)}
    assert len(made) == 20_000
    assert all(len(uid) == 26 and set(uid) <= set(ids.ALPHABET) for uid in made)
    assert len(set(ids.ALPHABET)) == 32


def test_they_rise_with_time(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    now = time.time_ns()
    made = []
    for step in range(50):
        monkeypatch.setattr(ids.time, "time_ns", lambda step=step: now + step * 1_000_000)
        made.append(ids.new_id())
    assert made == sorted(made)
