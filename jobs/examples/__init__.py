"""The handlers of the example type."""
