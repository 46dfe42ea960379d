"""What the property tests of limits draw from: awkward limits, costs and moments."""

from __future__ import annotations

from hypothesis import strategies as st

from quotas.engine.types import ALGORITHMS, Limit

MICRO = 1_000_000
START = 1_800_000_000 * MICRO

WINDOWS = (0.001, 1.0, 1.7, 60.0, 3600.0, 30 * 86400.0)
SIZES = (0, 1, 2, 3, 7, 60, 997, 10**9, 2**53 - 1)


class Clock:
    """Microseconds, moved by hand."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> int:
        return self.now


def gaps(window: float) -> st.SearchStrategy[int]:
    """Microseconds between two arrivals: next to nothing, anything, or right at the edges of (sub-)windows."""
    whole = max(1, round(window * MICRO))
    edges = [whole, -(-whole // 60), whole // 2, 2 * whole, whole + whole // 60]
    near = st.builds(lambda edge, by: max(0, edge + by), st.sampled_from(edges), st.integers(-1, 1))
    return st.one_of(st.integers(0, 3), st.integers(0, 2 * whole), near)


@st.composite
def limits(draw: st.DrawFn, id: str = "p", algorithms: tuple[str, ...] = ALGORITHMS, small: bool = False) -> Limit:
    algorithm = draw(st.sampled_from(algorithms))
    size = draw(st.sampled_from(SIZES[1:6] if small or algorithm == "concurrency" else SIZES))
    burst = draw(st.one_of(st.none(), st.integers(1, 100))) if algorithm == "token_bucket" else None
    window = draw(st.sampled_from(WINDOWS))
    return Limit(
        id=id,
        name=id,
        scope="user",
        subject="u",
        algorithm=algorithm,
        limit=size,
        unit=draw(st.sampled_from(["requests", "tokens"])),
        window=window,
        burst=burst,
        period=draw(st.sampled_from(["day", "week", "month"])) if algorithm == "calendar" else "",
        timezone=draw(st.sampled_from(["UTC", "Europe/Berlin", "America/St_Johns", "Pacific/Apia"])),
        mode=draw(st.sampled_from(["enforce", "enforce", "enforce", "shadow"])),
        lease_ttl=max(window, 60.0),
    )


def costs(limit: Limit) -> st.SearchStrategy[int]:
    assert limit.limit is not None
    top = limit.limit if limit.burst is None else limit.burst
    usual = st.integers(0, min(top + 1, 5))
    if limit.algorithm == "concurrency":
        return usual
    return st.one_of(usual, st.integers(0, min(top + 1, 2**53 - 1)), st.just(min(top, 2**53 - 1)))
