"""One job's run: its steps, their templates, what they add up to."""
