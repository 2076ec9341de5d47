"""What apps offer each other without importing each other: typed registries."""
