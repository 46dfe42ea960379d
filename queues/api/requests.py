"""Bodies of requests for the OpenAPI schema; `queues.specs` reads jobs."""

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


class BatchRequest(s.Serializer):
    name = s.CharField(required=False)
    callback_url = s.URLField(required=False)
    id = s.CharField(required=False, help_text="Add to this batch.")
    open = s.BooleanField(required=False, help_text="More will come, until it is sealed.")
    then = JobRequest(required=False, help_text="Runs when all of them have ended, however they did.")


class BulkRequest(s.Serializer):
    batch = BatchRequest(required=False)
    jobs = JobRequest(many=True)
