"""Interchangeable accounts of one provider."""

from __future__ import annotations

from django.db import models

from quotas.models.config_version import Versioned
from quotas.models.names import name_validator
from quotas.models.policy import Algorithm, PausedPriorities


class Strategy(models.TextChoices):
    ROUND_ROBIN = "round_robin", "Round robin"
    HEALTH = "health", "Best health"
    LEAST_RECENTLY_USED = "least_recently_used", "Least recently used"
    WEIGHTED_RANDOM = "weighted_random", "Weighted random"
    MOST_HEADROOM = "most_headroom", "Most headroom"


class StickyBy(models.TextChoices):
    KEY = "key", "The key that the call names"
    PREFIX = "prefix", "The beginning of its prompt (gateway)"


class Pool(Versioned):
    name = models.CharField(max_length=63, unique=True, validators=[name_validator])
    provider = models.ForeignKey("quotas.Provider", on_delete=models.PROTECT, related_name="pools")
    strategy = models.CharField(max_length=20, choices=Strategy.choices, default=Strategy.ROUND_ROBIN)
    concurrency_initial = models.PositiveIntegerField(
        null=True, blank=True, help_text="Calls in flight per account. Leave blank for no limit."
    )
    concurrency_floor = models.PositiveIntegerField(null=True, blank=True)
    concurrency_ceiling = models.PositiveIntegerField(null=True, blank=True)
    breaker_failures = models.PositiveIntegerField(default=5)
    breaker_window = models.FloatField(default=60.0, help_text="Seconds.")
    breaker_open_for = models.FloatField(default=60.0, help_text="Seconds.")
    breaker_probes = models.PositiveIntegerField(default=1)
    cooldown_default = models.FloatField(
        default=60.0, help_text="Seconds to wait after a 429 that says nothing about when to retry."
    )
    cooldown_max = models.FloatField(default=3600.0, help_text="Seconds.")
    pause_at = models.FloatField(
        null=True,
        blank=True,
        default=0.8,
        verbose_name="hold at",
        help_text="Hold these priorities once usage of an account's quota reaches this fraction. Leave blank to never hold.",
    )
    pause = models.CharField(
        "hold priorities", max_length=8, choices=PausedPriorities.choices, default=PausedPriorities.LOW
    )
    sticky = models.BooleanField(
        default=False, help_text="Keep calls with the same key on one account while it is available."
    )
    sticky_by = models.CharField(
        max_length=8,
        choices=StickyBy.choices,
        default=StickyBy.KEY,
        help_text="What a sticky pool goes by. A prompt's beginning keeps a conversation where its prompt is cached.",
    )
    fallback = models.JSONField(
        default=list, blank=True, help_text="Pools to use, in order, when no account is free; a JSON list of names."
    )
    projects = models.JSONField(
        null=True,
        blank=True,
        default=None,
        help_text='Slugs of the projects that may use it, such as ["acme"]; leave blank for every project; [] allows none.',
    )
    tries = models.PositiveIntegerField(
        default=3, help_text="Accounts that a call through the gateway is sent to at most."
    )
    repeat_unsafe = models.BooleanField(
        default=False,
        help_text="Send a call that may have been executed to another account, also where that could execute it twice.",
    )
    show_provider_limits = models.BooleanField(
        default=False, help_text="Pass on the provider's own rate limit headers, which describe the account."
    )
    paused_at = models.DateTimeField(null=True, blank=True, help_text="When an operator paused it.")
    paused_reason = models.CharField(max_length=500, blank=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    def is_used_only_by(self, slug: str) -> bool:
        """Whether no other project may use it, so that actions on it affect no other project."""
        return self.projects == [slug]


class PoolLimit(Versioned):
    """What each account of a pool may use; with `per_key`, what each key (a chat) may use on it."""

    pool = models.ForeignKey(Pool, on_delete=models.CASCADE, related_name="limits")
    unit = models.CharField(max_length=32, default="requests", validators=[name_validator])
    algorithm = models.CharField(max_length=32, choices=Algorithm.choices, default=Algorithm.TOKEN_BUCKET)
    limit = models.BigIntegerField(null=True, blank=True)
    window = models.FloatField(null=True, blank=True, help_text="Seconds.")
    burst = models.BigIntegerField(null=True, blank=True)
    period = models.CharField(max_length=8, blank=True)
    timezone = models.CharField("time zone", max_length=64, default="UTC")
    per_key = models.BooleanField(default=False)
    key_match = models.CharField(
        max_length=200,
        blank=True,
        help_text="With per key: a pattern for the keys it applies to, such as `-*` for Telegram groups.",
    )
    generation = models.PositiveIntegerField(default=0, editable=False)

    class Meta:
        ordering = ["pk"]

    def __str__(self) -> str:
        return f"{self.pool}: {self.limit} {self.unit}"
