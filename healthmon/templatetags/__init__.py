"""Template tags of health monitoring."""
