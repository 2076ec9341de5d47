"""What is true of a target: its status, flips, incidents, uptime, objectives."""
