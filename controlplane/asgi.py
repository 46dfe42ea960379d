"""The ASGI application for a server: the fast path in front of Django."""

import gc
import os

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.urls import get_resolver

from controlplane import spared_packages

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
_is_postgresql = settings.DATABASES["default"]["ENGINE"].endswith("postgresql")
_spared = spared_packages.spared(
    is_postgresql=_is_postgresql, is_traced=bool(settings.TRACING), has_tasks=bool(settings.TASK_MODULES)
)
with spared_packages.absent(_spared):
    _django = get_wsgi_application()

    from controlplane.application import Application  # needs Django to be set up

    application = Application(_django)
    # What is loaded by now stays: a full collection that walks through it stops all requests for a tenth of a second,
    # and a large body triggers several.
    assert get_resolver().url_patterns
gc.collect()
gc.freeze()
