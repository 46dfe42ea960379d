"""Shapes of requests and answers for the OpenAPI schema."""

from __future__ import annotations

from drf_spectacular.utils import OpenApiParameter
from rest_framework import serializers as s

IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key",
    str,
    OpenApiParameter.HEADER,
    description="The same key and body: the same answer. Another body: 409.",
)


class JobRequest(s.Serializer):
    type = s.CharField(help_text="`http.request` or the name of a registered task.")
    queue = s.CharField(required=False, help_text="Default: the type's own, else `batch`.")
    priority = s.JSONField(required=False, help_text="`high`, `normal`, `low` or 0 (first) to 9.")
    payload = s.DictField(required=False)
    project = s.CharField(required=False, help_text="Default: the key's own.")
    user = s.CharField(required=False)
    run_at = s.DateTimeField(required=False, allow_null=True)
    delay = s.FloatField(required=False, help_text="Seconds.")
    cost = s.DictField(
        child=s.IntegerField(), required=False, help_text="Units; estimated, settled with the actual use."
    )
    max_attempts = s.IntegerField(required=False)
    timeout = s.FloatField(required=False, help_text="Seconds.")
    batch = s.CharField(required=False, allow_null=True, help_text="Id of a batch that takes more.")
    callback_url = s.URLField(required=False, allow_null=True)
    keys = s.DictField(child=s.CharField(), required=False, help_text="Custom keys, such as a chat.")
    delivery = s.ChoiceField(choices=["at_least_once", "at_most_once"], required=False)
    after = s.ListField(child=s.CharField(), required=False, help_text="Jobs that must complete before.")
    unique_for = s.FloatField(
        required=False, allow_null=True, help_text="Seconds in which a waiting or running twin is answered."
    )
    unique_key = s.CharField(required=False, allow_null=True)
    idempotency_key = s.CharField(required=False, allow_null=True)


class JobRow(s.Serializer):
    id = s.CharField()
    type = s.CharField()
    status = s.CharField()
    project = s.CharField()
    queue = s.CharField()
    priority = s.IntegerField()
    user = s.CharField()
    keys = s.DictField(child=s.CharField())
    batch = s.CharField(allow_null=True)
    cost = s.DictField(child=s.IntegerField())
    max_attempts = s.IntegerField()
    attempts_made = s.IntegerField()
    reason = s.CharField()
    run_at = s.DateTimeField(allow_null=True)
    created_at = s.DateTimeField()
    started_at = s.DateTimeField(allow_null=True)
    finished_at = s.DateTimeField(allow_null=True)


class AttemptShape(s.Serializer):
    number = s.IntegerField()
    outcome = s.CharField()
    category = s.CharField(allow_null=True)
    account = s.CharField(allow_null=True)
    status = s.IntegerField(allow_null=True)
    error = s.CharField(allow_null=True)
    counted = s.BooleanField()
    started_at = s.DateTimeField(allow_null=True)
    ended_at = s.DateTimeField()


class JobAnswer(JobRow):
    payload = s.DictField()
    timeout = s.FloatField(allow_null=True)
    delivery = s.CharField()
    callback_url = s.CharField(allow_null=True)
    idempotency_key = s.CharField(allow_null=True)
    replays = s.IntegerField()
    after = s.ListField(child=s.CharField())
    attempts = AttemptShape(many=True)
    result = s.JSONField(allow_null=True)
    category = s.CharField(allow_null=True)
    error = s.CharField(allow_null=True)
    dead_letter = s.CharField(allow_null=True)


class Page(s.Serializer):
    next = s.CharField(allow_null=True, help_text="Cursor of the next page.")


class JobPage(Page):
    results = JobRow(many=True)


class BatchRequest(s.Serializer):
    name = s.CharField(required=False)
    callback_url = s.URLField(required=False)
    id = s.CharField(required=False, help_text="Add to this batch.")
    open = s.BooleanField(required=False, help_text="More will come, until it is sealed.")
    then = JobRequest(required=False, help_text="Runs when all of them have ended, however they did.")


class BulkRequest(s.Serializer):
    batch = BatchRequest(required=False)
    jobs = JobRequest(many=True)


class BatchAnswer(s.Serializer):
    id = s.CharField()
    name = s.CharField()
    project = s.CharField()
    open = s.BooleanField()
    then = s.CharField(allow_null=True, help_text="The job that runs when the batch is complete.")
    total = s.IntegerField()
    totals = s.DictField(child=s.IntegerField())
    rate = s.FloatField(help_text="Jobs a second.")
    eta = s.DateTimeField(allow_null=True)
    binding = s.CharField(allow_null=True)
    created_at = s.DateTimeField()
    finished_at = s.DateTimeField(allow_null=True)


class BatchDetail(BatchAnswer):
    waits = s.DictField(
        child=s.FloatField(), help_text="Seconds in which jobs of the batch waited, by reason code, longest first."
    )


class BulkAnswer(s.Serializer):
    batch = BatchAnswer()
    ids = s.ListField(child=s.CharField())


class Step(s.Serializer):
    at = s.DateTimeField()
    state = s.CharField()
    reason = s.CharField()


class Wait(s.Serializer):
    reason = s.CharField(help_text="A reason code, such as `policy_limit`.")
    name = s.CharField(allow_null=True, help_text="The policy, pool, queue or lane.")
    began_at = s.DateTimeField()
    ended_at = s.DateTimeField(help_text="Now, for a wait that lasts.")
    seconds = s.FloatField()


class Timeline(s.Serializer):
    results = Step(many=True)
    waits = Wait(many=True)


class Explanation(s.Serializer):
    status = s.CharField()
    waits_for = s.CharField(allow_null=True)
    until = s.DateTimeField(allow_null=True)
    ahead = s.IntegerField()
    estimated_start = s.DateTimeField(allow_null=True)
    reason = s.CharField(allow_null=True, help_text="The reason code of the present wait.")
    waits = Wait(many=True)
    waited = s.DictField(child=s.FloatField(), help_text="Seconds by reason code, longest first.")
    timeline = Step(many=True)


class Spread(s.Serializer):
    p50 = s.FloatField(help_text="Seconds.")
    p95 = s.FloatField()


class QueueAnswer(s.Serializer):
    name = s.CharField()
    state = s.ChoiceField(choices=["running", "paused", "draining"])
    reason = s.CharField(allow_null=True)
    max_size = s.IntegerField(allow_null=True)
    timeout = s.FloatField()
    concurrency = s.IntegerField(allow_null=True)
    lane = s.CharField()
    pool = s.CharField(allow_null=True)
    retry_policy = s.CharField(allow_null=True)
    waiting = s.IntegerField()
    by_priority = s.DictField(child=s.IntegerField())
    in_flight = s.IntegerField()
    oldest_age = s.FloatField(allow_null=True)
    rate_in = s.FloatField()
    rate_out = s.FloatField()
    wait = Spread(allow_null=True, help_text="From acceptance to the first start, over the last five minutes.")
    run = Spread(allow_null=True, help_text="From the last start to the end, over the last five minutes.")
    success_rate = s.FloatField(allow_null=True, help_text="Of the jobs that ended in the last five minutes.")
    failure_rate = s.FloatField(allow_null=True)
    dead_letters = s.IntegerField()


class QueuePage(Page):
    results = QueueAnswer(many=True)


class QueueStatus(s.Serializer):
    queue_size = s.IntegerField()
    active_requests = s.IntegerField()
    max_concurrent = s.IntegerField()
    total_requests = s.IntegerField()
    completed = s.IntegerField()
    failed = s.IntegerField()
    queues = s.DictField()


class QueueStats(s.Serializer):
    stats = s.DictField(child=s.IntegerField())
    total_queued = s.IntegerField()
    total_failed = s.IntegerField()
    queues = s.DictField()


class Recent(s.Serializer):
    id = s.CharField()
    type = s.CharField()
    project = s.CharField()
    queue = s.CharField()
    priority = s.IntegerField()
    status = s.CharField()
    duration = s.FloatField(allow_null=True)
    created_at = s.DateTimeField()
    finished_at = s.DateTimeField(allow_null=True)


class RecentPage(Page):
    results = Recent(many=True)


class WorkerShape(s.Serializer):
    name = s.CharField()
    host = s.CharField()
    pid = s.IntegerField()
    queues = s.ListField(child=s.CharField())
    state = s.CharField()
    places = s.IntegerField()
    lost_places = s.IntegerField(help_text="Threads whose jobs still run after time-out or cancel.")
    busy = s.IntegerField()
    jobs_done = s.IntegerField()
    jobs_failed = s.IntegerField()
    success_rate = s.FloatField(allow_null=True)
    rate = s.FloatField(help_text="Jobs a second since it started.")
    started_at = s.DateTimeField()
    last_seen = s.DateTimeField()


class WorkerPage(Page):
    results = WorkerShape(many=True)


class DeadLetterAnswer(s.Serializer):
    id = s.CharField()
    job = s.CharField()
    project = s.CharField()
    queue = s.CharField()
    type = s.CharField()
    category = s.CharField()
    severity = s.CharField()
    fingerprint = s.CharField()
    error = s.CharField()
    attempts = s.IntegerField()
    created_at = s.DateTimeField()
    handled_at = s.DateTimeField(allow_null=True)
    handled_by = s.CharField(allow_null=True)
    handled_as = s.CharField(allow_null=True)


class DeadLetterWhole(DeadLetterAnswer):
    traceback = s.CharField(allow_null=True, help_text="Of the last attempt that left one.")


class DeadLetterPage(Page):
    results = DeadLetterAnswer(many=True)


class DeadLetterGroup(s.Serializer):
    fingerprint = s.CharField()
    category = s.CharField()
    severity = s.CharField()
    type = s.CharField()
    count = s.IntegerField()
    first_at = s.DateTimeField()
    last_at = s.DateTimeField()
    example = s.CharField()
    error = s.CharField()


class DeadLetterGroupPage(Page):
    results = DeadLetterGroup(many=True)


class BulkAction(s.Serializer):
    id = s.CharField()
    verb = s.CharField()
    filter = s.DictField()
    total = s.IntegerField()
    done = s.IntegerField()
    skipped = s.IntegerField()
    finished_at = s.DateTimeField(allow_null=True)
