"""Telling others that a job has ended, through the outbox."""
