"""Less is written for each job: no second index and no look at the job for each attempt; jobs of no batch are not in its index."""

from typing import Any

from django.db import migrations, models

import quotas.clock

CONSTRAINTS = """
    SELECT conname FROM pg_constraint
    WHERE conrelid = 'queues_attempt'::regclass AND contype = 'f' AND confrelid = 'queues_job'::regclass"""
INDEXES = {
    "postgresql": """
        SELECT indexname FROM pg_indexes
        WHERE tablename = 'queues_attempt' AND schemaname = current_schema() AND indexname LIKE 'queues\\_attempt\\_job\\_id\\_%%'""",
    "sqlite": "SELECT name FROM sqlite_master WHERE type = 'index' AND name LIKE 'queues@_attempt@_job@_id@_%%' ESCAPE '@'",
}


def drop(apps: Any, schema_editor: Any) -> None:
    """On SQLite the constraint stays, since dropping it would copy the table; its check costs nothing there."""
    connection = schema_editor.connection
    with connection.cursor() as cursor:
        cursor.execute(INDEXES[connection.vendor].replace("%%", "%"))
        indexes = [name for (name,) in cursor.fetchall()]
        if connection.vendor == "postgresql":
            cursor.execute(CONSTRAINTS)
            for (name,) in cursor.fetchall():
                schema_editor.execute(f"ALTER TABLE queues_attempt DROP CONSTRAINT {schema_editor.quote_name(name)}")
    for name in indexes:
        schema_editor.execute(f"DROP INDEX {schema_editor.quote_name(name)}")


def restore(apps: Any, schema_editor: Any) -> None:
    schema_editor.execute("CREATE INDEX queues_attempt_job_id_restored ON queues_attempt (job_id)")
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute(
            "ALTER TABLE queues_attempt ADD CONSTRAINT queues_attempt_job_id_restored_fk FOREIGN KEY (job_id)"
            " REFERENCES queues_job (id) DEFERRABLE INITIALLY DEFERRED"
        )


class Migration(migrations.Migration):
    dependencies = [("queues", "0022_ignored_failures")]
    operations = [
        migrations.SeparateDatabaseAndState(
            [migrations.RunPython(drop, restore)],
            [
                migrations.AlterField(
                    "attempt",
                    "job",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=models.deletion.CASCADE,
                        related_name="attempts",
                        to="queues.job",
                    ),
                )
            ],
        ),
        migrations.RemoveIndex("job", "job_by_batch"),
        migrations.AddIndex(
            "job",
            models.Index(
                condition=models.Q(("batch__isnull", False)), fields=["batch", "status"], name="job_by_batch"
            ),
        ),
        migrations.AlterField("bulkaction", "created_at", models.DateTimeField(default=quotas.clock.now)),
    ]
