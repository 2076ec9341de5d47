"""Taking in, claiming and writing on PostgreSQL: one statement each, which is one round trip."""
