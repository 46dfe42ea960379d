"""REST for jobs, batches, queues, dead letters and workers: thin faces over services and selectors."""
