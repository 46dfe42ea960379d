"""One rule for a cost, a unit's name, a capacity and a priority's band, for all callers."""

from __future__ import annotations

from typing import Any

import pytest
from rest_framework.serializers import ValidationError

from queues.request_fields import Cost
from queues.worker.checked_result import mistake_in_use
from quotas.engine.costs import MAX_COST, check_amounts, is_count, is_unit
from quotas.engine.limits.capacity import burst_at, capacity_of
from quotas.engine.priorities import PRIORITIES, band, is_paused, rank
from quotas.rest.fields import CostField
from quotas.upstream.call import units

COUNTS = [0, 1, MAX_COST]
NO_COUNTS = [-1, MAX_COST + 1, True, 1.0, "1", None]


def refuses(check: Any) -> bool:
    try:
        return bool(check())
    except (ValueError, ValidationError):
        return True


@pytest.mark.parametrize("value", [*COUNTS, *NO_COUNTS])
def test_all_doors_take_the_same_counts(value: Any) -> None:
    wrong = not any(value is count for count in COUNTS)
    errors: list[Any] = []
    Cost().read({"tokens": value}, "/cost", errors.append)
    found = {
        "engine": refuses(lambda: check_amounts({"tokens": value})),
        "jobs": bool(errors),
        "results of tasks": bool(mistake_in_use({"tokens": value})),
        "REST": refuses(lambda: CostField().to_internal_value({"tokens": value}) == {}),
        "Python": refuses(lambda: units({"tokens": value}, None, None) == {}),
    }
    assert found == dict.fromkeys(found, wrong)
    assert is_count(value) is not wrong


@pytest.mark.parametrize(
    ("name", "right"),
    [("requests", True), ("a" * 32, True), ("", False), ("a" * 33, False), ("a\nb", False), (3, False), (None, False)],
)
def test_a_unit_has_a_name(name: Any, right: bool) -> None:
    assert is_unit(name) is right


@pytest.mark.parametrize(
    ("algorithm", "limit", "burst", "capacity"),
    [
        ("token_bucket", 100, 50, 50),
        ("token_bucket", 100, None, 100),
        ("token_bucket", 0, 50, 0),
        ("token_bucket", None, 50, None),
        ("fixed_window", 100, 50, 100),
        ("fixed_window", None, None, None),
    ],
)
def test_the_capacity_of_a_bucket_is_its_burst(
    algorithm: str, limit: int | None, burst: int | None, capacity: int | None
) -> None:
    assert capacity_of(algorithm, limit, burst) == capacity


@pytest.mark.parametrize(
    ("limit", "burst", "configured", "moved"),
    [
        (100, 50, 100, 50),
        (50, 50, 100, 25),
        (200, 50, 100, 100),
        (1, 50, 100, 1),
        (50, None, 100, None),
        (50, 9, None, None),
    ],
)
def test_a_burst_moves_with_its_limit(limit: int, burst: int | None, configured: int | None, moved: int | None) -> None:
    assert burst_at(limit, burst, configured) == moved


def test_bands_and_pauses_divide_priorities_alike() -> None:
    assert [band(number) for number in range(10)] == ["high"] * 4 + ["normal"] * 3 + ["low"] * 3
    assert all(band(rank(name)) == name for name in PRIORITIES)
    assert [number for number in range(10) if is_paused("low", number)] == [7, 8, 9]
    assert [number for number in range(10) if is_paused("normal", number)] == [4, 5, 6, 7, 8, 9]
    assert [number for number in range(10) if is_paused("all", number)] == list(range(10))
    assert not any(is_paused("", number) for number in range(10))
