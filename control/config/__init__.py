"""Settings as typed objects, and configuration rows as code."""
