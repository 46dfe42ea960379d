"""Tasks of Django's framework, for instances that run with `tests.acceptance.settings`."""

from django_tasks import task


@task()
def add(left: int, right: int) -> int:
    return left + right


@task()
def divide(left: int, right: int) -> float:
    return left / right
