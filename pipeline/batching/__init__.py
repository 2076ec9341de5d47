"""From frames to batches."""
