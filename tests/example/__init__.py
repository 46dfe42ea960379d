"""A small Django project of its own whose views are checked against Sluice's policies.

DJANGO_SETTINGS_MODULE=tests.example.settings python manage.py runserver 8001
"""
