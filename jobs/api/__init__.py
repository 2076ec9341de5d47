"""`/jobs`: the REST API."""
