"""Whatever a task raises, returns or says of its use: the job is dead as `code`, and its worker continues."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from queues import JobError, registry
from queues.models import Attempt, DeadLetter, Job
from queues.presenters.jobs import job_whole, payload_of
from queues.registry import RunResult
from queues.selectors.timeline import timeline
from queues.states import Status
from queues.worker.requeue import requeue_unfinished
from quotas import limits
from tests.integration.queues.desk import Desk
from tests.integration.queues.hands import Hands, hands


@pytest.fixture
def worker(desk: Desk) -> Iterator[Hands]:
    with hands(desk) as made:
        yield made


def assert_dead(job: Job, *parts: str) -> None:
    assert (job.status, job.category) == (Status.DEAD, "code"), (job.status, job.category, job.error)
    for part in parts:
        assert part in job.error
    assert DeadLetter.objects.get(job=job).category == "code"


def assert_goes_on(worker: Hands) -> None:
    (job,) = worker.desk.submit(user="after")
    assert worker.run(job).status == Status.COMPLETED


def used_tokens() -> int:
    decision = limits.check(project="acme", cost={"tokens": 0, "requests": 0}, dry_run=True)
    (state,) = decision.limits
    return state.used


BAD_USE = [None, 12.5, "12", -5, True, 2**53, float("nan"), [], {}]


@pytest.mark.parametrize("amount", BAD_USE, ids=repr)
def test_a_use_that_is_no_whole_number_is_the_task_s_mistake(
    desk: Desk, worker: Hands, type_of: Any, amount: Any
) -> None:
    desk.policy("tokens", "project", 1000, unit="tokens")

    def overstates(job: Any) -> str:
        job.actual["tokens"] = amount
        return "done"

    type_of("test.overstates", cost={"tokens": 10})(overstates)
    jobs = desk.submit(2, type="test.overstates", max_attempts=1)
    for job in jobs:
        assert_dead(worker.run(job), "job.actual['tokens']", "whole number")
    assert used_tokens() == 20, "the estimates stand"
    assert_goes_on(worker)


@pytest.mark.parametrize("use", [None, 7, [("tokens", 1)], {3: 1}, {"": 1}, {"x" * 1000: 1}], ids=repr)
def test_a_use_that_is_no_mapping_of_units_is_the_task_s_mistake(
    desk: Desk, worker: Hands, type_of: Any, use: Any
) -> None:
    def replaces(job: Any) -> None:
        job.actual = use

    type_of("test.replaces")(replaces)
    (job,) = desk.submit(type="test.replaces", max_attempts=1)
    assert_dead(worker.run(job), "job.actual")
    assert_goes_on(worker)


def test_good_members_of_a_bad_use_are_charged(desk: Desk, worker: Hands, type_of: Any) -> None:
    desk.policy("tokens", "project", 1000, unit="tokens")

    def half_right(job: Any) -> None:
        job.actual |= {"tokens": 7, "images": "two"}

    type_of("test.half", cost={"tokens": 100})(half_right)
    (job,) = desk.submit(type="test.half", max_attempts=1)
    assert_dead(worker.run(job), "job.actual['images']", "'two'")
    assert used_tokens() == 7


class Mute(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


class Leaving(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


class Numeric(Exception):
    def __str__(self) -> str:
        return 7  # type: ignore[return-value]


class Locked(Exception):
    """Can't be pickled: it has a lock and needs two arguments."""

    def __init__(self, name: str, lock: Any) -> None:
        super().__init__(name)
        self.lock = lock


class Named(type):
    @property
    def __name__(cls) -> str:
        raise LookupError("no name")


class Nameless(Exception, metaclass=Named):
    pass


class Unmade(JobError):
    """Never called its base's constructor."""

    def __init__(self) -> None:
        pass


class Wordy(str):
    def __getitem__(self, key: Any) -> Any:
        raise RuntimeError("not to be cut")


class Strange(SyntaxError):
    lineno = property(lambda self: 1 / 0)  # type: ignore[assignment]


def loop_of_causes() -> Exception:
    first, second = ValueError("first"), KeyError("second")
    first.__cause__, second.__cause__ = second, first
    return first


def long_chain() -> Exception:
    error: Exception = ValueError("0")
    for number in range(3000):
        following = ValueError(str(number))
        following.__cause__ = error
        error = following
    return error


def marked(**fields: Any) -> JobError:
    error = JobError("marked", category="server")
    for name, value in fields.items():
        setattr(error, name, value)
    return error


FAULTS: dict[str, tuple[Any, str]] = {
    "its message raises": (lambda: Mute(), "Mute: [its message can't be shown: ValueError]"),
    "its message leaves": (lambda: Leaving(), "Leaving: [its message can't be shown: SystemExit]"),
    "its message is no text": (lambda: Numeric(), "Numeric: [its message can't be shown: TypeError]"),
    "its message is a subclass": (lambda: ValueError(Wordy("odd")), "ValueError: odd"),
    "it can't be pickled": (lambda: Locked("held", threading.Lock()), "Locked: held"),
    "its class has no name": (lambda: Nameless("x"), "[its class can't be shown"),
    "fifty megabytes": (lambda: ValueError("x" * 50_000_000), "ValueError: xxx"),
    "causes in a loop": (loop_of_causes, "ValueError: first"),
    "three thousand causes": (long_chain, "ValueError: 2999"),
    "a nested group": (lambda: ExceptionGroup("all", [ExceptionGroup("in", [Mute()])]), "ExceptionGroup: all"),
    "a base of a job error was not made": (lambda: Unmade(), ""),
    "a category that is none": (lambda: marked(category=None), "marked"),
    "a category that can't be hashed": (lambda: marked(category=["server"]), "marked"),
    "a position that can't be read": (lambda: Strange("odd"), "Strange"),
    "no Exception": (lambda: SystemExit(Mute()), "SystemExit"),
    "NUL and half a pair": (lambda: ValueError("a\x00b\ud800"), "ValueError: a"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_a_task_raises_ends_its_job(desk: Desk, worker: Hands, type_of: Any, fault: str) -> None:
    make, shown = FAULTS[fault]

    def raises(job: Any) -> None:
        raise make()

    type_of("test.raises")(raises)
    (job,) = desk.submit(type="test.raises", max_attempts=1)
    row = worker.run(job)
    assert_dead(row, shown)
    assert len(row.error) <= 2000
    assert len(Attempt.objects.get(job=job).traceback) <= 20_000
    assert_goes_on(worker)


@pytest.mark.parametrize("hint", [float("nan"), float("inf"), -1, "soon", None, True])
def test_a_hint_that_is_set_later_is_read_like_any(desk: Desk, worker: Hands, type_of: Any, hint: Any) -> None:
    def raises(job: Any) -> None:
        raise marked(retry_after=hint)

    type_of("test.hints")(raises)
    (job,) = desk.submit(type="test.hints", max_attempts=2)
    assert worker.run(job).status == Status.RETRYING
    assert_goes_on(worker)


def deep() -> list[Any]:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    return value


class Greedy(dict[str, Any]):
    def items(self) -> Any:
        raise ValueError("not to be looked at")

    def __len__(self) -> int:
        return 1


RESULTS: dict[str, Any] = {
    "no JSON": lambda: object(),
    "too deep": deep,
    "too large": lambda: "x" * 1_000_000,
    "NaN": lambda: [float("nan")],
    "a mapping that raises": lambda: Greedy(a=1),
    "a loop": lambda: (lambda value: value.append(value) or value)([]),
}


@pytest.mark.parametrize("kind", RESULTS)
def test_a_result_that_can_t_be_kept_is_the_task_s_mistake(desk: Desk, worker: Hands, type_of: Any, kind: str) -> None:
    type_of("test.returns")(lambda job: RESULTS[kind]())
    (job,) = desk.submit(type="test.returns", max_attempts=1)
    assert_dead(worker.run(job))
    assert_goes_on(worker)


class OwnType(registry.JobType):
    """A job type of a user's own."""

    name, queue = "test.own", "batch"

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def validate(self, payload: Any, pointer: str) -> list[Any]:
        return []

    def run(self, job: Any, payload: Any) -> Any:
        return self.answer


ANSWERS = [
    None,
    {"outcome": "succeeded"},
    RunResult("victory", category="code"),
    RunResult("failed"),
    RunResult("failed", category="melancholy", retry_after="soon"),  # type: ignore[arg-type]
    RunResult("failed", category=None, error=None, traceback=b"", status="two"),  # type: ignore[arg-type]
    RunResult("succeeded", result=object()),
    RunResult("failed", category="server", result=object()),
    RunResult("succeeded", upstream="fine", actual=None),  # type: ignore[arg-type]
]


@pytest.mark.parametrize("answer", ANSWERS, ids=range(len(ANSWERS)))
def test_a_job_type_that_answers_anything_is_a_mistake_of_code(
    desk: Desk, worker: Hands, type_of: Any, answer: Any
) -> None:
    registry.register(OwnType(answer))
    (job,) = desk.submit(type="test.own", max_attempts=1)
    row = worker.run(job)
    assert_dead(row)
    assert (row.attempts_made, row.attempts_counted) == (1, 1)
    assert_goes_on(worker)


def test_a_job_type_that_returns_its_jobs_for_want_of_a_slot_is_not_called_without_end(
    desk: Desk, worker: Hands, type_of: Any
) -> None:
    """Only a worker returns deliveries uncounted and at once."""
    registry.register(OwnType(RunResult("lost", error="later", counted=False, returned=True, no_slot=True)))
    (job,) = desk.submit(type="test.own")
    row = worker.run(job)
    assert row.returns == 1 and row.not_before is not None


@pytest.mark.parametrize("hint", [0, 0.001, float("nan"), -1])
def test_a_limit_that_a_task_says_is_over_now_is_not_met_again_at_once(
    desk: Desk, worker: Hands, type_of: Any, hint: float
) -> None:
    def limited(job: Any) -> None:
        raise JobError("limited", category="rate_limited", retry_after=hint)

    type_of("test.limited")(limited)
    (job,) = desk.submit(type="test.limited", max_attempts=1)
    row = worker.run(job)
    ended_at = Attempt.objects.get(job=job).ended_at
    assert row.status == Status.RATE_LIMITED
    assert row.not_before is not None and (row.not_before - ended_at).total_seconds() >= 1.0


def test_a_limit_of_a_pool_that_admission_does_not_see_is_not_met_without_a_pause(desk: Desk, type_of: Any) -> None:
    desk.queue("q", pool=desk.pool())
    (job,) = desk.submit(max_attempts=1, queue="q")
    hand = desk.worker()
    limited = RunResult("rate_limited", category="rate_limited", error="HTTP 429", counted=False)
    rounds = 0
    while Job.objects.get(pk=job.pk).not_before is None:
        desk.cycle()
        hand.settle(hand.claim(), limited)
        rounds += 1
        assert rounds <= 20
    assert Job.objects.get(pk=job.pk).status == Status.RATE_LIMITED


def test_what_a_task_hides_is_in_no_text_that_is_kept(desk: Desk, worker: Hands, type_of: Any) -> None:
    def slips(job: Any, password: str, deep: dict[str, Any]) -> None:
        raise ValueError(f"no login with {password!r}, nor with {deep}")

    type_of("test.slips", redact=("password", "deep"))(slips)
    payload = {"password": "hush-hush", "deep": {"keys": ["open-sesame", 471147]}}
    (job,) = desk.submit(type="test.slips", payload=payload, max_attempts=1)
    row = worker.run(job)
    kept = row.error + row.reason + Attempt.objects.get(job=job).traceback + DeadLetter.objects.get(job=job).error
    assert "no login with '[redacted]'" in row.error
    for secret in ("hush-hush", "open-sesame", "471147"):
        assert secret not in kept


def test_a_payload_whose_type_is_not_known_here_is_not_shown(desk: Desk, type_of: Any) -> None:
    type_of("test.gone", redact=("password",))(lambda job, password, city: None)
    (job,) = desk.submit(type="test.gone", payload={"password": "hush-hush", "city": "Ulm"})
    assert payload_of(job) == {"password": "[redacted]", "city": "Ulm"}
    registry.unregister("test.gone")
    assert payload_of(job) == {"password": "[redacted]", "city": "[redacted]"}
    assert job_whole(job)["payload"] == payload_of(job)


def test_a_worker_that_stops_says_so_of_what_may_not_run_again(desk: Desk) -> None:
    (job,) = desk.submit(delivery="at_most_once")
    hand = desk.worker()
    desk.cycle()
    assert requeue_unfinished(hand.claim(), hand.name) == 0
    row = Job.objects.get(pk=job.pk)
    letter = DeadLetter.objects.get(job=job)
    assert (row.status, letter.category, letter.error) == (
        Status.DEAD,
        "lost",
        "Its worker stopped before it was done.",
    )
    assert [step.state for step in timeline(row)].count("dead") == 1
    assert row.deaths == 0, "the job is not blamed"
