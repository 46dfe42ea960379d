"""Networks whose addresses skip IP policies, or are refused."""

from django.db import models

from quotas.models.config_version import Versioned
from quotas.models.names import name_validator


class Network(Versioned):
    name = models.CharField(max_length=63, unique=True, validators=[name_validator])
    action = models.CharField(max_length=8, choices=[("allow", "Allow: skip IP policies"), ("deny", "Deny: 403")])
    cidrs = models.JSONField(
        "CIDR ranges",
        default=list,
        help_text='A JSON list of IPv4 and IPv6 networks, such as ["192.0.2.0/24", "2001:db8::/32"].',
    )

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name
