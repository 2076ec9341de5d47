"""From batches to sinks: workers, attempts, retries."""
