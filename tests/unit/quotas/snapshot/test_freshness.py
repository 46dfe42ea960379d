"""How long a copy of the configuration is used, with real threads."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from quotas.snapshot import freshness
from quotas.snapshot.freshness import Freshness


class Source:
    """A number that `look` copies; a look can be delayed and can fail."""

    def __init__(self) -> None:
        self.number = 0
        self.copy = 0
        self.looks = 0
        self.fails: Exception | None = None
        self.begun = threading.Event()
        self.goes_on = threading.Event()
        self.goes_on.set()
        self.freshness = Freshness(self._look, lambda error: isinstance(error, OSError))

    def _look(self) -> None:
        self.looks += 1
        seen = self.number
        self.begun.set()
        assert self.goes_on.wait(30)
        if self.fails:
            raise self.fails
        self.copy = seen

    def use(self) -> int:
        self.freshness.ensure()
        return self.copy


def test_who_comes_during_a_look_waits_where_the_copy_is_too_old() -> None:
    source = Source()
    source.use()
    time.sleep(freshness.PROMISE + 0.05)
    source.number = 1
    source.goes_on.clear()
    source.begun.clear()
    with ThreadPoolExecutor(40) as threads:
        answers = [threads.submit(source.use) for _ in range(40)]
        assert source.begun.wait(10)
        time.sleep(0.1)
        assert not any(answer.done() for answer in answers), "somebody used the old copy"
        source.goes_on.set()
        assert {answer.result(30) for answer in answers} == {1}
    assert source.looks == 2, "one look for all"


def test_a_young_copy_is_used_without_waiting() -> None:
    source = Source()
    source.use()
    time.sleep(freshness.LOOK_EVERY + 0.05)
    source.goes_on.clear()
    source.begun.clear()
    looking = threading.Thread(target=source.use)
    looking.start()
    assert source.begun.wait(10)
    if source.freshness.age < freshness.PROMISE:  # else this machine was too slow to see it
        assert source.use() == 0
    source.goes_on.set()
    looking.join()


def test_a_look_that_began_before_does_not_count() -> None:
    source = Source()
    source.use()
    source.freshness.expire()
    source.goes_on.clear()
    source.begun.clear()
    looking = threading.Thread(target=source.use)
    looking.start()
    assert source.begun.wait(10)
    source.number = 1
    source.freshness.expire()
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(source.use)
        source.goes_on.set()
        assert answer.result(30) == 1
    looking.join()


def test_a_database_that_hangs_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freshness, "MAX_WAIT", 0.2)
    source = Source()
    source.use()
    source.freshness.expire()
    source.goes_on.clear()
    source.begun.clear()
    looking = threading.Thread(target=source.use)
    looking.start()
    assert source.begun.wait(10)
    assert source.use() == 0
    assert source.freshness.hung
    with monkeypatch.context() as patched:
        patched.setattr(freshness, "MAX_WAIT", 3600.0)
        assert source.use() == 0, "nobody waits any more"
    source.number = 1
    source.goes_on.set()
    looking.join()
    source.freshness.expire()
    assert source.use() == 1
    assert not source.freshness.hung


def test_a_database_that_refuses_leaves_the_copy_in_use() -> None:
    source = Source()
    source.use()
    source.fails = OSError("away")
    source.freshness.expire()
    assert source.use() == 0
    looks = source.looks
    assert source.use() == 0
    assert source.looks == looks, "not read by every thread"
    source.fails = ValueError("a mistake of ours")
    source.freshness.expire()
    with pytest.raises(ValueError, match="a mistake of ours"):
        source.use()


def test_a_forked_child_waits_for_no_thread_of_its_parent() -> None:
    source = Source()
    source.use()
    source.freshness.expire()
    source.goes_on.clear()
    source.begun.clear()
    looking = threading.Thread(target=source.use)
    looking.start()
    assert source.begun.wait(10)
    source.number = 1
    child = os.fork()
    if not child:
        source.goes_on = threading.Event()
        source.goes_on.set()
        os._exit(source.use() if not source.freshness.hung else 9)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    source.goes_on.set()
    looking.join()
