"""Calling downstream services."""
