"""A local provider of APIs that enforces real limits, for tests and the demo.

One process, one event loop, no database, no Redis, no Django: `python -m controlplane.simulator` or
`manage.py simulate_upstream`.
"""
