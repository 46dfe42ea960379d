"""Depths by priority and groups of failures are read from indexes alone; a bulk action can be undone before it starts."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("queues", "0020_job_table_on_postgresql")]
    operations = [
        migrations.RemoveIndex("job", "job_waiting"),
        migrations.AddIndex(
            "job",
            models.Index(
                condition=models.Q(("stage__in", [0, 1, 2])),
                fields=["queue", "stage", "priority", "project", "status"],
                name="job_waiting",
            ),
        ),
        migrations.RemoveIndex("deadletter", "letter_by_fingerprint"),
        migrations.AddIndex(
            "deadletter", models.Index(fields=["fingerprint", "created_at"], name="letter_by_fingerprint")
        ),
        migrations.AddIndex(
            "deadletter",
            models.Index(
                condition=models.Q(("handled_at__isnull", False)),
                fields=["fingerprint", "handled_at"],
                name="letter_resolved",
            ),
        ),
        migrations.AddIndex(
            "deadletter",
            models.Index(
                condition=models.Q(("handled_at__isnull", True)),
                fields=["fingerprint", "category", "severity", "type", "created_at"],
                name="letter_open_groups",
            ),
        ),
        migrations.AddField(
            "bulkaction",
            "starts_at",
            models.DateTimeField(help_text="Nothing is done before. Until then it can be undone.", null=True),
        ),
    ]
