"""When an adaptive limit goes down, up or nowhere, and by how much."""

from __future__ import annotations

from typing import Any

import pytest

from quotas.services.aimd import Outcomes, judge
from quotas.snapshot.adaptive_rule import AdaptiveRule

RULE = AdaptiveRule(floor=100, ceiling=1000, latency=2.0)


@pytest.mark.parametrize(
    ("outcomes", "direction"),
    [
        (Outcomes(seen=100, failed=21), -1),
        (Outcomes(seen=100, failed=20), 0),
        (Outcomes(seen=100, failed=6), 0),  # between bad and good nothing moves
        (Outcomes(seen=100, failed=5), 1),
        (Outcomes(seen=100, timed=100, slow=11), -1),
        (Outcomes(seen=100, timed=100, slow=5), 0),
        (Outcomes(seen=100, timed=100, slow=2), 1),
        (Outcomes(seen=100, with_quota=10, tight=6, roomy=4), -1),
        (Outcomes(seen=100, with_quota=10, tight=0, roomy=3), 0),
        (Outcomes(seen=100, with_quota=10, tight=0, roomy=9), 1),
        (Outcomes(seen=100, failed=50, with_quota=10, roomy=10), -1),  # the worst decides
    ],
)
def test_worse_better_or_neither(outcomes: Outcomes, direction: int) -> None:
    verdict = judge(RULE, outcomes)
    assert verdict.direction == direction and verdict.why


def test_down_by_a_share_up_by_a_step_and_never_out_of_bounds() -> None:
    assert RULE.lower(1000) == 700 and RULE.lower(110) == 100 and RULE.lower(100) == 100
    assert RULE.higher(100) == 145 and RULE.higher(990) == 1000 and RULE.higher(1000) == 1000
    tiny = AdaptiveRule(floor=1, ceiling=3)
    assert tiny.lower(2) == 1 and tiny.higher(2) == 3, "small limits move by whole units"


@pytest.mark.parametrize(
    ("data", "member"),
    [
        ({"floor": 0, "ceiling": 5}, "floor"),
        ({"floor": 5}, "ceiling"),
        ({"floor": 6, "ceiling": 5}, "floor"),
        ({"floor": 1, "ceiling": 5, "errors": 0}, "errors"),
        ({"floor": 1, "ceiling": 5, "use": 1.5}, "use"),
        ({"floor": 1, "ceiling": 5, "latency": "2s"}, "latency"),
        ({"floor": 1, "ceiling": 5, "interval": 0.1}, "interval"),
        ({"floor": 1, "ceiling": 5, "samples": True}, "samples"),
        ({"floor": 1, "ceiling": 5, "speed": 1}, "speed"),
        ([1, 5], "bounds"),
    ],
)
def test_mistakes_are_named(data: Any, member: str) -> None:
    with pytest.raises(ValueError, match=member):
        AdaptiveRule.of(data)


def test_only_what_is_no_default_is_written_down() -> None:
    assert AdaptiveRule.of({"floor": 1, "ceiling": 5, "errors": 0.2, "latency": 2}).document() == {
        "floor": 1,
        "ceiling": 5,
        "latency": 2,
    }
