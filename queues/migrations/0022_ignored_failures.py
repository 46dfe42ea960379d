"""Groups of failures that operators ignore until a time."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("queues", "0021_console_indexes_and_undo"), ("quotas", "0012_permissions_to_act")]
    operations = [
        migrations.CreateModel(
            "IgnoredFailure",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("fingerprint", models.CharField(max_length=32)),
                ("until", models.DateTimeField()),
                ("ignored_at", models.DateTimeField()),
                ("ignored_by", models.CharField(max_length=200)),
                ("reason", models.CharField(blank=True, max_length=500)),
                (
                    "project",
                    models.ForeignKey(
                        db_index=False, on_delete=models.deletion.CASCADE, related_name="+", to="quotas.project"
                    ),
                ),
            ],
            options={
                "ordering": ["until"],
                "constraints": [
                    models.UniqueConstraint(fields=("project", "fingerprint"), name="one_ignore_of_a_failure")
                ],
            },
        ),
    ]
