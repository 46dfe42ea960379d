"""The only place that writes a job's stage and status; each transition is one function, listed in docs/state-machine.md."""
