"""The models of queues and jobs."""

from queues.models.answered_key import AnsweredKey
from queues.models.attempt import Attempt
from queues.models.batch import Batch, BatchAnswer
from queues.models.bulk_action import BulkAction
from queues.models.callback import Callback
from queues.models.dead_letter import DeadLetter
from queues.models.ignored_failure import IgnoredFailure
from queues.models.intake import IntakePart
from queues.models.job import Job, JobDependency
from queues.models.leadership import Leadership
from queues.models.queue import Queue
from queues.models.recurring import Recurring
from queues.models.retry_policy import RetryPolicy
from queues.models.transition import Transition
from queues.models.wait_interval import WaitInterval
from queues.models.worker import WorkerProcess

__all__ = [
    "AnsweredKey",
    "Attempt",
    "Batch",
    "BatchAnswer",
    "BulkAction",
    "Callback",
    "DeadLetter",
    "IgnoredFailure",
    "IntakePart",
    "Job",
    "JobDependency",
    "Leadership",
    "Queue",
    "Recurring",
    "RetryPolicy",
    "Transition",
    "WaitInterval",
    "WorkerProcess",
]
