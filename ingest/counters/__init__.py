"""Counters: what increments add up to, how they are kept, and what the admin reads of them."""
