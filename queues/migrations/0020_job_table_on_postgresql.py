"""How PostgreSQL stores the table of jobs: cleaned more often, with room on its pages, without an index that nobody uses."""

from typing import Any

from django.db import migrations

LIKE_INDEXES = "SELECT indexname FROM pg_indexes WHERE tablename = 'queues_job' AND indexname LIKE 'queues\\_job\\_uid\\_%%\\_like'"
SETTINGS = {
    # Each job leaves three dead versions of its row. The default waits for a fifth of the table, which is 2,000,000 of
    # them with 10,000,000 finished jobs, while the indexes of waiting jobs fill up with what is no longer there.
    "autovacuum_vacuum_scale_factor": "0.01",
    "autovacuum_vacuum_threshold": "5000",
    "autovacuum_analyze_scale_factor": "0.02",
    "autovacuum_analyze_threshold": "5000",
    # The next version of a row fits on the same page, so that less of it is written to the WAL.
    "fillfactor": "70",
}


def tune(apps: Any, schema_editor: Any) -> None:
    if schema_editor.connection.vendor != "postgresql":
        return
    schema_editor.execute(f"ALTER TABLE queues_job SET ({', '.join(f'{name} = {value}' for name, value in SETTINGS.items())})")
    with schema_editor.connection.cursor() as cursor:
        cursor.execute(LIKE_INDEXES)
        names = [name for (name,) in cursor.fetchall()]
    for name in names:
        # An id is looked up whole, or as a range from its beginning, which its unique index serves.
        schema_editor.execute(f"DROP INDEX {schema_editor.quote_name(name)}")


def restore(apps: Any, schema_editor: Any) -> None:
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute(f"ALTER TABLE queues_job RESET ({', '.join(SETTINGS)})")
        schema_editor.execute("CREATE INDEX queues_job_uid_before_tuning_like ON queues_job (uid varchar_pattern_ops)")


class Migration(migrations.Migration):
    dependencies = [("queues", "0019_worker_memory_version")]
    operations = [migrations.RunPython(tune, restore)]
