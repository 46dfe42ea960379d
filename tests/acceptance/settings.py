"""The product's settings with Django's Tasks framework in front, as a project that uses it would have them."""

from controlplane.settings import *  # noqa: F403

TASKS = {"default": {"BACKEND": "queues.backends.SluiceBackend", "QUEUES": ["default"], "OPTIONS": {"PROJECT": "acme"}}}
