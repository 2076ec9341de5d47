"""The installation's processes: services and their start and stop, the heart, leases, lives."""
