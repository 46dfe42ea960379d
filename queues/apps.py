"""The Django app: registers job types, subscribers and what removals must check."""

from importlib import import_module

from django.apps import AppConfig
from django.conf import settings


class QueuesConfig(AppConfig):
    name = "queues"
    verbose_name = "Queues and jobs"

    def ready(self) -> None:
        # Not at the top: models can be imported only from here on.
        from queues import registry, subscriber
        from queues.job_types.http_request import HttpRequest
        from queues.services import callbacks, list_actions, uses

        uses.connect()
        list_actions.connect()
        callbacks.connect()
        subscriber.connect()
        registry.register(HttpRequest())
        for module in settings.TASK_MODULES:
            import_module(module)
