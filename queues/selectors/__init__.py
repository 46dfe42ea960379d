"""Reads: jobs, batches, queues, dead letters. Nothing here writes."""
