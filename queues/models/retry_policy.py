"""When and how often a failed job is tried again."""

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models

from quotas.models.config_version import Versioned
from quotas.models.names import name_validator


class RetryPolicy(Versioned):
    name = models.CharField(max_length=63, unique=True, validators=[name_validator])
    strategy = models.CharField(
        max_length=16,
        default="exponential",
        choices=[(word, word) for word in ("exponential", "linear", "fixed", "smart")],
    )
    initial = models.FloatField(default=1.0, help_text="Seconds before the first retry.")
    max = models.FloatField(default=60.0, help_text="Longest wait between two attempts, in seconds.")
    max_attempts = models.PositiveIntegerField(default=5, validators=[MinValueValidator(1)])
    jitter = models.FloatField(
        default=0.1,
        validators=[MinValueValidator(0.0), MaxValueValidator(1.0)],
        help_text="Random variation of each wait, as a fraction: 0.1 is ±10 %.",
    )
    by_category = models.JSONField(
        default=dict,
        blank=True,
        help_text='Exceptions as a JSON object, such as {"auth": "never", "server": {"initial": 0.5, "max": 4}}.',
    )

    auto_replays = models.PositiveIntegerField(
        default=0,
        verbose_name="automatic replays",
        help_text="How often a dead letter of a transient category is replayed automatically. 0 disables it.",
    )
    auto_replay_after = models.FloatField(
        default=900.0,
        verbose_name="automatic replay delay",
        help_text="Seconds between the failure and the automatic replay.",
    )

    class Meta:
        ordering = ["name"]
        verbose_name_plural = "retry policies"

    def __str__(self) -> str:
        return self.name
