"""Commands of health monitoring."""
