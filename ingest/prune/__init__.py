"""Retention: forgetting stored records whose time is over."""
