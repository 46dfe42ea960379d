"""Reads job specifications from untrusted JSON, field by field; each error has a JSON pointer.

`FIELDS` and `BATCH_FIELDS` are also what the API's schema says of these requests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from queues import request_fields as kinds
from queues.errors import FieldError, InvalidJob
from queues.request_fields import Field, Fields
from queues.transactions import in_turns
from quotas.engine.priorities import PRIORITIES
from quotas.rest.fingerprints import fingerprint
from quotas.rest.pointers import escape

MAX_DELAY = 366 * 86400.0
MAX_TIMEOUT = 86400.0
MAX_BULK = 10_000
"""Jobs."""


@dataclass(frozen=True, slots=True)
class Ids:
    """A list of ids, each of which counts once."""

    most: int

    def read(self, value: Any, pointer: str, report: kinds.Report) -> tuple[str, ...] | None:
        if isinstance(value, list) and len(value) <= self.most and all(isinstance(uid, str) for uid in value):
            return tuple(dict.fromkeys(value))
        report(FieldError(pointer, f"Must be a list of at most {self.most:,} job ids."))
        return None


@dataclass(frozen=True, slots=True)
class Reference:
    """An id, or an object with it as `id`."""

    noun: str

    def read(self, value: Any, pointer: str, report: kinds.Report) -> str | None:
        if not isinstance(value, Mapping):
            return kinds.Text(64).read(value, pointer, report)
        uid = value.get("id")
        if len(value) == 1 and isinstance(uid, str):
            return uid
        report(FieldError(pointer, f'Must be a {self.noun}\'s id, or {{"id": ..}}.'))
        return None


@dataclass(frozen=True, slots=True)
class Priority:
    def read(self, value: Any, pointer: str, report: kinds.Report) -> int | None:
        if isinstance(value, str) and value in PRIORITIES:
            return PRIORITIES[value]
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 9:
            return value
        report(FieldError(pointer, "Must be `high`, `normal`, `low` or a whole number from 0 (first) to 9."))
        return None


FIELDS = Fields.of(
    Field("type", kinds.Text(200, empty=False), "`http.request` or the name of a registered task.", "", required=True),
    Field("queue", kinds.Text(63), "Default: the type's own, else `batch`."),
    Field("priority", Priority(), "`high`, `normal`, `low` or 0 (first) to 9.", PRIORITIES["normal"]),
    Field("payload", kinds.Object(), "What the type takes.", dict, nullable=False),
    Field("project", kinds.Text(63), "Default: the key's own."),
    Field("user", kinds.Text(), "For whom it runs: limits of users apply, and the user's jobs start in order.", ""),
    Field("run_at", kinds.Moment(), "Not before this time."),
    Field("delay", kinds.Number(0, MAX_DELAY), "Seconds until it may start.", 0.0),
    Field("cost", kinds.Cost(), "Units; estimated, settled with the actual use. A number means requests."),
    Field("max_attempts", kinds.Whole(1, 1000), "Default: the retry policy's."),
    Field("timeout", kinds.Number(0, MAX_TIMEOUT, above=True), "Seconds."),
    Field("batch", Reference("batch"), "Id of a batch that takes more."),
    Field("callback_url", kinds.Text(1000), "Called when the job has ended.", ""),
    Field("keys", kinds.Texts(), "Custom keys, such as a chat.", dict),
    Field("delivery", kinds.Choice(("at_least_once", "at_most_once")), "", "at_least_once"),
    Field("after", Ids(1000), "Jobs that must complete before.", ()),
    Field(
        "unique_for", kinds.Number(0, MAX_DELAY, above=True), "Seconds in which a waiting or running twin is answered."
    ),
    Field("unique_key", kinds.Text(255), "What makes twins; default: type, queue and payload."),
    Field("idempotency_key", kinds.Text(255, empty=False), "As the header `Idempotency-Key`."),
)
BATCH_FIELDS = Fields.of(
    Field("name", kinds.Text(200), "", ""),
    Field("callback_url", kinds.Text(1000), "Called when all its jobs have ended.", ""),
    Field("id", kinds.Text(200), "Add to this batch."),
    Field("open", kinds.Flag(), "More will come, until it is sealed.", False),
)
"""Of the member `batch` of a bulk, besides `then`."""


@dataclass(frozen=True, slots=True)
class JobSpec:
    """A job's request, checked for form; names are not looked up yet. Durations in seconds."""

    type: str
    queue: str | None = None
    priority: int = 5
    payload: Mapping[str, Any] = field(default_factory=dict)
    project: str | None = None
    user: str = ""
    run_at: datetime | None = None
    delay: float = 0.0
    cost: Mapping[str, int] | None = None
    max_attempts: int | None = None
    timeout: float | None = None
    batch: str | None = None
    callback_url: str = ""
    keys: Mapping[str, str] = field(default_factory=dict)
    delivery: str = "at_least_once"
    after: tuple[str, ...] = ()
    unique_for: float | None = None
    unique_key: str | None = None
    idempotency_key: str | None = None
    held: str = ""
    """Why it waits until somebody releases it, though it names no other jobs: set by us, never by a caller."""
    digest: str = ""
    """Hash of the body, to recognise a repeated request under the same idempotency key."""


def read_job(data: Any, pointer: str = "") -> JobSpec:
    """Read one job from JSON. Raises `InvalidJob` with all that is wrong; `pointer` is where `data` stands."""
    if not isinstance(data, Mapping):
        raise InvalidJob([FieldError(pointer, "Must be an object.")])
    errors: list[FieldError] = []
    values = kinds.read(FIELDS, data, pointer, errors.append)
    if data.get("run_at") is not None and data.get("delay"):
        errors.append(FieldError(f"{pointer}/delay", "Give either `run_at` or `delay`."))
    if data.get("unique_key") is not None and data.get("unique_for") is None:
        errors.append(FieldError(f"{pointer}/unique_key", "Has a meaning only with `unique_for`."))
    if errors:
        raise InvalidJob(errors)
    return JobSpec(
        **values, digest=fingerprint({name: value for name, value in data.items() if name != "idempotency_key"})
    )


@dataclass(frozen=True, slots=True)
class BulkSpec:
    """A bulk's request, checked for form."""

    jobs: list[JobSpec]
    project: str | None
    """The one project that all of them name."""
    name: str
    callback_url: str
    batch: str | None
    """The id of the batch to which they are added."""
    open: bool
    then: JobSpec | None


def read_bulk(data: Any) -> BulkSpec:
    """Read a bulk from JSON: the batch's own members and the jobs. Raises `InvalidJob` with all that is wrong."""
    if not isinstance(data, Mapping):
        raise InvalidJob([FieldError("", "Must be an object.")])
    errors = [FieldError(f"/{escape(name)}", "Unknown field.") for name in data if name not in ("batch", "jobs")]
    about = data.get("batch")
    if about is not None and not isinstance(about, Mapping):
        errors.append(FieldError("/batch", "Must be an object."))
        about = None
    about = dict(about or {})
    if about.get("id") is not None:
        for name in ("name", "callback_url", "then"):
            if about.get(name) is not None:
                errors.append(FieldError(f"/batch/{name}", "Belongs to a new batch."))
    then = _read_then(about.pop("then", None), errors)
    values = kinds.read(BATCH_FIELDS, about, "/batch", errors.append)
    jobs = data.get("jobs")
    if not isinstance(jobs, list) or not 1 <= len(jobs) <= MAX_BULK:
        errors.append(FieldError("/jobs", f"Must be a list of 1 to {MAX_BULK:,} jobs."))
        jobs = []
    specs = []
    for position, item in enumerate(in_turns(jobs)):
        try:
            specs.append(read_job(item, f"/jobs/{position}"))
        except InvalidJob as error:
            errors += error.errors
    slugs = {spec.project for spec in [*specs, *([then] if then else [])]}
    if len(slugs) > 1:
        errors.append(FieldError("/jobs", "All jobs of a batch are of one project."))
    if errors:
        raise InvalidJob(errors)
    return BulkSpec(
        specs, next(iter(slugs), None), values["name"], values["callback_url"], values["id"], values["open"], then
    )


def _read_then(data: Any, errors: list[FieldError]) -> JobSpec | None:
    """The job that runs when the batch is complete."""
    if data is None:
        return None
    try:
        spec = read_job(data, "/batch/then")
    except InvalidJob as error:
        errors += error.errors
        return None
    for name in ("after", "batch", "idempotency_key", "unique_for"):
        if getattr(spec, name):
            errors.append(FieldError(f"/batch/then/{name}", "Has no meaning here: it waits for the batch."))
    return spec
