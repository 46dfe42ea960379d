"""Tasks for the acceptance tests: `SLUICE_TASK_MODULES=tests.acceptance.tasks`."""

from queues import task
from queues.registry import JobContext


@task(name="acceptance.nothing", queue="batch")
def nothing(job: JobContext) -> None:
    """Ends at once."""
