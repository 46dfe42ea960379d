"""Queues that store their jobs in PostgreSQL, beside Sluice: `python -m bench.durable`."""
