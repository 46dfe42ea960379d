"""What the dashboard shows; one file per panel."""
