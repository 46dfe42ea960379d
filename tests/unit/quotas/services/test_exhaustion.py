"""When a quota is used up: arithmetic over its use, its rate and what comes back."""

from __future__ import annotations

from typing import Any

import pytest

from quotas.services.exhaustion import Exhaustion, Standing, exhaustion_of

NOW = 1_000_000.0


def found(algorithm: str, **fields: Any) -> tuple[float | None, float | None]:
    """Seconds from now until it is used up, and until it is available again."""
    fields = {"used": 0.0, "capacity": 100.0, "rate": 1.0, "window": 3600.0, "ends_at": NOW + 1800.0, **fields}
    at, again = _seconds(exhaustion_of(Standing(algorithm=algorithm, **fields), NOW))
    return at, again


def _seconds(one: Exhaustion) -> tuple[float | None, float | None]:
    return (
        None if one.at is None else pytest.approx(one.at - NOW),  # type: ignore[return-value]
        None if one.again_at is None else pytest.approx(one.again_at - NOW),  # type: ignore[return-value]
    )


@pytest.mark.parametrize("algorithm", ["fixed_window", "calendar"])
def test_a_period_is_used_up_before_it_ends_or_not(algorithm: str) -> None:
    assert found(algorithm) == (100.0, 1800.0)
    assert found(algorithm, used=60.0) == (40.0, 1800.0)
    assert found(algorithm, rate=0.01) == (None, 0.0), "36 of 100 in a whole window"
    assert found(algorithm, rate=0.05) == (1800.0 + 2000.0, 1800.0 + 3600.0), "not in this window, but in the next one"


def test_a_bucket_is_used_up_where_more_is_used_than_comes_back() -> None:
    assert found("token_bucket", refill=0.5) == (200.0, 202.0)
    assert found("token_bucket", refill=1.0) == (None, 0.0)
    assert found("token_bucket", refill=2.0, used=99.0) == (None, 0.0)


def test_a_sliding_window_gains_what_leaves_it() -> None:
    assert found("sliding_window", window=50.0) == (None, 0.0), "50 in a window of 100"
    at, again = found("sliding_window", window=200.0, used=50.0)
    assert at == 50 / (1 - 50 / 200) and again is not None


@pytest.mark.parametrize("algorithm", ["fixed_window", "calendar", "sliding_window", "token_bucket"])
def test_what_is_used_up_now_is_so_until_its_end(algorithm: str) -> None:
    assert found(algorithm, used=100.0) == (0.0, 1800.0)
    assert found(algorithm, used=130.0, rate=0.0) == (0.0, 1800.0), "overdrawn"
    assert found(algorithm, capacity=0.0) == (0.0, None), "a limit of 0 never admits"


@pytest.mark.parametrize("algorithm", ["fixed_window", "calendar", "sliding_window", "token_bucket", "concurrency"])
def test_what_is_not_used_is_never_used_up(algorithm: str) -> None:
    assert found(algorithm, rate=0.0) == (None, 0.0)
