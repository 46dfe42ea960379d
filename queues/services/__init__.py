"""Writes: one module for each kind of action on jobs, batches, queues and dead letters."""
