"""The ASGI application: Django behind the front door."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
_django = get_wsgi_application()

from controlplane.application import Application  # noqa: E402  needs Django to be set up

application = Application(_django)
