"""Health monitoring: targets, probes, their history, incidents, notifications, status pages."""
