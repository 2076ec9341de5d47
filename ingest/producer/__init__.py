"""The producer: logs made at a steady tick, whose pace follows how full the queue is."""
