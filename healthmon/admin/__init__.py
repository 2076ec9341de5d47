"""The admin of health monitoring."""
