"""Real servers for tests: PostgreSQL and Collector itself."""
