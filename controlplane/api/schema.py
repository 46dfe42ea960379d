"""`/api/v1/schema` (OpenAPI 3.1) and `/api/v1/docs`, both without a key; nothing is loaded from other servers."""

from __future__ import annotations

from typing import Any

from drf_spectacular.renderers import OpenApiJsonRenderer
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerView

from quotas.rest import openapi  # noqa: F401  registers its extensions


class SchemaView(SpectacularAPIView):
    renderer_classes = [OpenApiJsonRenderer]
    schema: Any = None


class DocsView(SpectacularSwaggerView):
    schema: Any = None
