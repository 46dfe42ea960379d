"""What a check costs that names no cost of its own."""

from django.db import models

from quotas.models.config_version import Versioned


class CostRule(Versioned):
    match = models.CharField(
        max_length=500, unique=True, help_text="A method and a path pattern, such as `POST /v1/embeddings`."
    )
    cost = models.JSONField(help_text='Cost per unit as a JSON object, such as {"requests": 5}.')

    class Meta:
        ordering = ["match"]

    def __str__(self) -> str:
        return self.match
