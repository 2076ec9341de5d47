"""The REST views of targets, results and incidents."""
