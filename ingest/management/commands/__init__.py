"""Commands that send, ship, prune and measure."""
