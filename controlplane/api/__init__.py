"""REST: the two apps' endpoints under one version, their schema and their documentation."""
