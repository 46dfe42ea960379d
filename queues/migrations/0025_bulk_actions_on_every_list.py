"""A bulk action may be on rows of any list; it keeps why rows were skipped, and why it ended early."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("queues", "0024_open_letters_by_category")]
    operations = [
        migrations.AlterField("bulkaction", "verb", models.CharField(max_length=32)),
        migrations.AlterField(
            "bulkaction",
            "target",
            models.CharField(
                default="letters",
                help_text="What it acts on: letters, jobs, or a model such as `quotas.account`.",
                max_length=64,
            ),
        ),
        migrations.AlterField(
            "bulkaction",
            "filter",
            models.JSONField(
                default=dict, help_text="Chooses letters or jobs; of other rows the primary keys (`rows`)."
            ),
        ),
        migrations.AddField(
            "bulkaction",
            "refused",
            models.JSONField(default=list, help_text="The first rows that were skipped, each with the reason."),
        ),
        migrations.AddField(
            "bulkaction",
            "stopped_why",
            models.CharField(blank=True, help_text="Why Sluice ended it before it was done.", max_length=200),
        ),
    ]
