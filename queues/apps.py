"""Jobs: accepted, admitted, run, settled."""

from django.apps import AppConfig


class QueuesConfig(AppConfig):
    name = "queues"
    verbose_name = "Queues and jobs"

    def ready(self) -> None:
        from queues import registry, subscriber
        from queues.services import uses

        uses.connect()
        subscriber.connect()
        registry.load_builtin()
