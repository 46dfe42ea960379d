"""Open dead letters of a category are found without the resolved ones, of which there may be many more."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("queues", "0023_fewer_index_entries_per_job")]
    operations = [
        migrations.AddIndex(
            "deadletter",
            models.Index(
                condition=models.Q(("handled_at__isnull", True)),
                fields=["category", "-id"],
                name="letter_open_by_category",
            ),
        ),
    ]
