"""`/api/v1/batches`: progress of jobs that were submitted together."""

from __future__ import annotations

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from queues.api.jobs import Reason
from queues.models import Batch
from queues.presenters import batches as shapes
from queues.presenters.batches import batch_detail, batch_shape
from queues.services import batches
from quotas.rest.openapi import described
from quotas.rest.problems import NotFound
from quotas.rest.views import ApiView


def batch_of(view: ApiView, uid: str) -> Batch:
    batch = view.caller.visible(Batch.objects.select_related("project", "then")).filter(uid=uid).first()
    if batch is None:
        raise NotFound("There is no such batch, or it is not yours.")
    return batch


class BatchDetail(ApiView):
    scopes = {"GET": "read"}
    session_needs = frozenset({"queues.view_batch"})

    @extend_schema(
        operation_id="get_batch",
        responses=described(shapes.BatchDetail),
        summary="A batch's totals, rate and end in sight",
    )
    def get(self, request: Request, uid: str) -> Response:
        self.query()
        return Response(batch_detail(batch_of(self, uid)))


class BatchSeal(ApiView):
    scopes = {"POST": "submit"}

    @extend_schema(
        operation_id="seal_batch", request=Reason, responses=described(shapes.BatchAnswer), summary="No more jobs come"
    )
    def post(self, request: Request, uid: str) -> Response:
        self.body(Reason)
        batches.seal(batch_of(self, uid))
        return Response(batch_shape(batch_of(self, uid)))
