"""A worker process, with what it last reported."""

from django.db import models


class WorkerProcess(models.Model):
    name = models.CharField(max_length=128, unique=True)
    host = models.CharField(max_length=255)
    pid = models.PositiveIntegerField()
    lane = models.CharField(max_length=8)
    places = models.PositiveIntegerField(verbose_name="slots", help_text="Jobs it can run at once.")
    busy = models.PositiveIntegerField(default=0)
    lost_places = models.PositiveIntegerField(
        default=0, db_default=0, help_text="Threads whose jobs go on in spite of time-out or cancel."
    )
    jobs_done = models.BigIntegerField(
        default=0,
        verbose_name="attempts ended",
        help_text="All attempts that ended on this worker, failed ones included.",
    )
    jobs_failed = models.BigIntegerField(
        default=0, verbose_name="failed attempts", help_text="Those of them that failed, retried ones included."
    )
    memory = models.BigIntegerField(default=0, db_default=0, help_text="Bytes of resident memory; 0: not known.")
    version = models.CharField(max_length=32, blank=True, db_default="")
    started_at = models.DateTimeField()
    seen_at = models.DateTimeField()
    stopped_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["name"]
        verbose_name = "worker"
        indexes = [models.Index(fields=["seen_at"], name="worker_seen")]

    def __str__(self) -> str:
        return self.name
