"""Calling other machines."""
