"""Passive targets: pings that come in, and when one is missing."""
