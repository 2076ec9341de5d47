"""Calls to downstream services: HTTP, breakers, limits."""
