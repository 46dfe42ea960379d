"""The permission to operate becomes one for each kind of thing, and seeing payloads a permission of its own.

Whoever had the old one gets all of the new; whoever could see jobs or dead letters could see payloads, and still can.
"""

from django.db import migrations

ACTS = ['act_on_jobs', 'act_on_queues', 'act_on_limits', 'act_on_accounts']
SEE_PAYLOADS = 'see_payloads'
NAMES = {
    'act_on_jobs': 'Can act on jobs: cancel, retry, replay, discard',
    'act_on_queues': 'Can act on queues: pause, resume, drain',
    'act_on_limits': 'Can act on limits: reset counters',
    'act_on_accounts': 'Can act on accounts and pools: clear cooldowns, trip, disable, pause',
    'see_payloads': 'Can see payloads and results of jobs',
}


def split(apps, schema_editor):
    Permission = apps.get_model('auth', 'Permission')
    ContentType = apps.get_model('contenttypes', 'ContentType')
    project = ContentType.objects.filter(app_label='quotas', model='project').first()
    if project is None:
        return  # a new installation: nobody has a permission yet

    def granted(codenames):
        found = []
        for codename in codenames:
            row, _ = Permission.objects.get_or_create(
                content_type=project, codename=codename, defaults={'name': NAMES[codename]}
            )
            found.append(row)
        return found

    def give(holders_of, codenames):
        groups = apps.get_model('auth', 'Group').objects.filter(permissions__in=holders_of).distinct()
        users = apps.get_model('auth', 'User').objects.filter(user_permissions__in=holders_of).distinct()
        new = granted(codenames)
        for group in groups:
            group.permissions.add(*new)
        for user in users:
            user.user_permissions.add(*new)

    operate = Permission.objects.filter(content_type=project, codename='operate')
    give(operate, ACTS)
    looked = Permission.objects.filter(
        content_type__app_label='queues', codename__in=['view_job', 'view_deadletter', 'view_recurring']
    )
    give(looked, [SEE_PAYLOADS])
    operate.delete()


class Migration(migrations.Migration):

    dependencies = [
        ('controlplane', '0005_texts'),
        ('quotas', '0012_permissions_to_act'),
        ('queues', '0017_bulk_action_target'),
        ('auth', '0012_alter_user_first_name_max_length'),
        ('contenttypes', '0002_remove_content_type_name'),
    ]

    operations = [migrations.RunPython(split, migrations.RunPython.noop)]
