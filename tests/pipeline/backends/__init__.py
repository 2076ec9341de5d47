"""Back ends that are only simulated, and the loop that drives what adapts to them."""
