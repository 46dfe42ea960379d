"""A local provider of APIs with real limits: what upstream accounts are tried against, in tests, demo and tour.

One process, one event loop, no database, no Redis, no Django: `python -m controlplane.simulator` or
`manage.py simulate_upstream`.
"""
