"""Which dispatcher leads, in SQL: a lock with a fencing token that survives Redis."""

from django.db import models


class Leadership(models.Model):
    """One row per role. A leader renews it; a standby takes it when it ran out. `token` rises with each change."""

    role = models.CharField(max_length=32, primary_key=True)
    holder = models.CharField(max_length=128, blank=True)
    token = models.BigIntegerField(default=0)
    until = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.role}: {self.holder}"
