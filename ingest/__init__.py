"""The front door: HTTP API, wire formats, and the stored records as models."""
