"""Writing to SQLite: one writer at a time, short transactions."""
