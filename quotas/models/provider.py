"""Where accounts call: an address, a dialect, how a credential is sent."""

from django.db import models

from quotas.engine.estimate import DEFAULT_OUTPUT
from quotas.models.config_version import Versioned
from quotas.models.names import name_validator

DIALECTS = (
    "openai", "azure", "anthropic", "gemini", "groq", "mistral", "telegram", "github", "slack", "discord", "shopify", "ietf", "generic",
)  # fmt: skip


class Provider(Versioned):
    name = models.CharField(max_length=63, unique=True, validators=[name_validator])
    dialect = models.CharField(max_length=16, choices=[(name, name) for name in DIALECTS], default="generic")
    base_url = models.URLField("base URL", max_length=500)
    auth_header = models.CharField(
        "authentication header",
        max_length=200,
        default="Authorization: Bearer {credential}",
        help_text="`{credential}` is replaced by the account's credential. Leave blank to send no header, for example where the credential is part of the path.",
    )
    timeout = models.FloatField(default=30.0, help_text="Seconds.")
    default_output_tokens = models.PositiveIntegerField(
        default=DEFAULT_OUTPUT,
        help_text="Output tokens to estimate for a call that sets no limit of its own.",
    )
    settings = models.JSONField(
        default=dict, blank=True, help_text="For the generic dialect: header names and encodings, as a JSON object."
    )

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name
