"""Recovery and retention, run by the leading dispatcher."""
