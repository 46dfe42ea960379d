from django.db import migrations, models

import queues.models.stage


class Migration(migrations.Migration):

    dependencies = [
        ('queues', '0014_ready_again_index'),
    ]

    operations = [
        migrations.RenameField(model_name='job', old_name='lane', new_name='ordering_key'),
        migrations.AlterField(
            model_name='job',
            name='ordering_key',
            field=models.CharField(blank=True, help_text='Hash of user and keys: jobs with equal ones start in order.', max_length=24),
        ),
        migrations.AlterField(
            model_name='job',
            name='stage',
            field=queues.models.stage.StageField(choices=[(0, 'Held: waits for other jobs'), (1, 'Scheduled: waits for a time'), (2, 'Ready: waits in its group'), (3, 'On the belt: admitted, not yet started'), (4, 'Running'), (5, 'Done')], default=2),
        ),
    ]
