"""Django's PostgreSQL backend, with connections made through `control.databases.reach`."""
