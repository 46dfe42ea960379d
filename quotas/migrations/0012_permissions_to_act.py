from django.db import migrations

from quotas.permissions import DECLARED


class Migration(migrations.Migration):

    dependencies = [
        ('quotas', '0011_pool_sticky_by'),
    ]

    operations = [
        migrations.AlterModelOptions(
            name='project',
            options={'ordering': ['slug'], 'permissions': DECLARED},
        ),
    ]
