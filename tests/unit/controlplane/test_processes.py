"""The command lines of the processes that `up` runs."""

from __future__ import annotations

from controlplane import processes


def test_the_concurrency_is_that_of_workers_for_io() -> None:
    specs = processes.workers(2, 700)
    assert [spec.name for spec in specs] == ["worker-io-1", "worker-io-2", "worker-cpu-1"]
    assert [spec.argv[-3:] for spec in specs[:2]] == [("io", "--concurrency", "700")] * 2
    assert specs[2].argv[-1] == "cpu"


def test_without_one_the_environment_decides() -> None:
    assert processes.workers(1)[0].argv[-2:] == ("rqworker", "io")
