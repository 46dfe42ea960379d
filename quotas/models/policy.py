"""A limit for callers: who, on what, how much, in which time."""

from __future__ import annotations

from django.db import models

from quotas import clock
from quotas.engine.limits.capacity import burst_at, capacity_of
from quotas.models.config_version import Versioned
from quotas.models.names import name_validator


class Algorithm(models.TextChoices):
    SLIDING_WINDOW = "sliding_window", "Sliding window (exact)"
    SLIDING_WINDOW_COUNTER = "sliding_window_counter", "Sliding window counter (approximate, up to twice the limit)"
    TOKEN_BUCKET = "token_bucket", "Token bucket"
    FIXED_WINDOW = "fixed_window", "Fixed window"
    CALENDAR = "calendar", "Calendar (day, week, month)"
    CONCURRENCY = "concurrency", "Concurrency (in flight)"


class Scope(models.TextChoices):
    IP = "ip", "IP address"
    USER = "user", "User"
    PROJECT = "project", "Project"
    ENDPOINT = "endpoint", "Endpoint"
    QUEUE = "queue", "Queue"
    CUSTOM = "custom", "Custom key"
    GLOBAL = "global", "Global"


class Mode(models.TextChoices):
    ENFORCE = "enforce", "Enforce"
    SHADOW = "shadow", "Shadow: count and report, never deny"


class OnRedisDown(models.TextChoices):
    FAIL_OPEN = "fail_open", "Fail open: limit in each process"
    FAIL_CLOSED = "fail_closed", "Fail closed: refuse with 503"


class PausedPriorities(models.TextChoices):
    LOW = "low", "Low"
    NORMAL = "normal", "Normal and low"
    ALL = "all", "All"


COUNTED = (
    "scope", "key_name", "match", "project", "unit", "algorithm", "window", "period", "timezone",
)  # fmt: skip
"""What a policy counts, and in which time. After a change of these its counters begin anew; after a change of how much
(`limit`, `burst`, ...) what was used stays used."""


def default_warnings() -> list[float]:
    """Warning, critical, emergency."""
    return [0.6, 0.8, 0.95]


class Policy(Versioned):
    name = models.CharField(max_length=63, unique=True, validators=[name_validator])
    enabled = models.BooleanField(default=True)
    scope = models.CharField(max_length=16, choices=Scope.choices)
    key_name = models.CharField(
        max_length=63, blank=True, help_text="Required for scope custom: the member of `keys` that is counted."
    )
    match = models.CharField(
        max_length=500,
        blank=True,
        help_text="For scope endpoint: a method and a path pattern, such as `POST /v1/*`. For scope queue: the queue's name; leave blank for each queue.",
    )
    project = models.ForeignKey(
        "quotas.Project",
        null=True,
        blank=True,
        on_delete=models.CASCADE,
        related_name="policies",
        help_text="Leave blank to apply to every project separately.",
    )
    tier = models.ForeignKey("quotas.Tier", null=True, blank=True, on_delete=models.CASCADE, related_name="policies")
    unit = models.CharField(max_length=32, default="requests", validators=[name_validator])
    algorithm = models.CharField(max_length=32, choices=Algorithm.choices)
    limit = models.BigIntegerField(null=True, blank=True, help_text="0 blocks everything; blank = unlimited.")
    window = models.FloatField(null=True, blank=True, help_text="Seconds.")
    burst = models.BigIntegerField(
        null=True, blank=True, help_text="Capacity of a token bucket. Leave blank to use the limit."
    )
    period = models.CharField(max_length=8, blank=True, choices=[("day", "Day"), ("week", "Week"), ("month", "Month")])
    timezone = models.CharField(
        max_length=64, default="UTC", verbose_name="time zone", help_text="Such as `UTC` or `Europe/Berlin`."
    )
    lease_ttl = models.FloatField(
        default=60.0,
        verbose_name="slot TTL",
        help_text="For concurrency: seconds after which a slot that was not settled is freed.",
    )
    mode = models.CharField(max_length=8, choices=Mode.choices, default=Mode.ENFORCE)
    on_redis_down = models.CharField(
        "if Redis is unavailable", max_length=12, choices=OnRedisDown.choices, default=OnRedisDown.FAIL_CLOSED
    )
    warn_at = models.JSONField(
        default=default_warnings,
        blank=True,
        help_text="Fractions of the limit, such as [0.6, 0.8, 0.95], at which an event is emitted once.",
    )
    pause_at = models.FloatField(
        "hold at",
        null=True,
        blank=True,
        help_text="Hold these priorities once usage reaches this fraction of the limit. Leave blank to never hold.",
    )
    pause = models.CharField(
        "hold priorities", max_length=8, choices=PausedPriorities.choices, default=PausedPriorities.LOW
    )
    exempt = models.JSONField(
        default=list, blank=True, help_text="Subjects that this policy does not apply to, as a JSON list."
    )
    excluded_paths = models.JSONField(
        default=list, blank=True, help_text="Endpoint patterns that this policy does not apply to, as a JSON list."
    )
    adaptive = models.JSONField(
        null=True,
        blank=True,
        help_text='Adjust the limit automatically between bounds: {"floor": 10, "ceiling": 100, "errors": 0.2}.',
    )
    generation = models.PositiveIntegerField(default=0, editable=False)
    counted_since = models.DateTimeField(null=True, editable=False)
    """When the counters began anew; None: with the policy."""

    class Meta:
        ordering = ["name"]
        verbose_name_plural = "policies"

    def __str__(self) -> str:
        return self.name

    def begin_anew(self) -> None:
        """What was counted so far means nothing under the new definition. Saves nothing."""
        self.generation += 1
        self.counted_since = clock.now()

    def capacity(self, limit: int | None) -> int | None:
        """The most that may be used at once under this limit: a token bucket's burst, else the limit itself."""
        return capacity_of(self.algorithm, limit, burst_at(limit, self.burst, self.limit))
