"""The JSON from templates is, byte for byte, what the views' renderer makes of the same decision."""

from __future__ import annotations

from django.utils.crypto import salted_hmac
from hypothesis import given
from hypothesis import strategies as st

from controlplane.http.response import rendered
from quotas.engine.types import ALGORITHMS, Decision, LimitState
from quotas.rest import decision_json, decisions
from quotas.rest.reservation_ids import sign

TEXT = st.text(st.characters(codec="utf-8"), max_size=20) | st.sampled_from(
    ['"\\', "\u2028\u2029", "\x00\x1f\x7f", "é😀"]
)
COUNT = st.integers(0, 2**53 - 1)
STATES = st.builds(
    LimitState, policy=TEXT, scope=st.sampled_from(["user", "project", "global", "custom"]), key=TEXT, unit=TEXT,
    algorithm=st.sampled_from(sorted(ALGORITHMS)), limit=COUNT | st.none(), remaining=COUNT | st.none(),
    reset_after=st.floats(0, 1e9), mode=st.sampled_from(["enforce", "shadow"]), allowed=st.booleans(),
)  # fmt: skip


@given(
    states=st.lists(STATES, max_size=4), binding=TEXT | st.none(), degraded=st.booleans(), bypassed=st.booleans(),
    reservation=st.none() | st.from_regex(r"[A-Za-z0-9_-]{20}", fullmatch=True), project=st.none() | st.just("acme"),
)  # fmt: skip
def test_it_equals_what_the_renderer_makes(
    states: list[LimitState],
    binding: str | None,
    degraded: bool,
    bypassed: bool,
    reservation: str | None,
    project: str | None,
) -> None:
    decision = Decision(True, tuple(states), 0.0, binding, degraded, bypassed, reservation)
    assert decision_json.allowed(decision, project) == rendered(decisions.body_of(decision, project))


def test_ids_of_reservations_are_signed_as_they_always_were() -> None:
    expected = salted_hmac("quotas.api.reservation_ids", "acme\nabc", algorithm="sha256").hexdigest()[:20]
    assert sign("abc", "acme") == f"abc:{expected}"
