from controlplane.supervisor.backoff import Backoff


def test_waits_grow_with_deaths_that_follow_each_other() -> None:
    backoff = Backoff(deaths=5, window=60.0, first=0.2, longest=1.0)
    assert [backoff.died(float(second)) for second in range(4)] == [0.2, 0.4, 0.8, 1.0]


def test_the_fifth_death_within_the_window_is_the_last() -> None:
    backoff = Backoff(deaths=5, window=60.0)
    assert [backoff.died(second) is None for second in (0.0, 10.0, 20.0, 30.0, 59.9)] == [False] * 4 + [True]


def test_old_deaths_are_forgotten() -> None:
    backoff = Backoff(deaths=5, window=60.0, first=0.2)
    waits = [backoff.died(30.0 * number) for number in range(20)]
    assert None not in waits
    assert waits[0] == 0.2
    assert set(waits[1:]) == {0.4}
