"""The job types that come with Sluice."""
