"""Asynchronous jobs: submitted over REST, kept in the control database, run by a bounded pool."""
