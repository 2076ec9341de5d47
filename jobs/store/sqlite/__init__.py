"""Taking in, claiming and writing on SQLite: one short transaction each, one writer at a time."""
