"""Tests of the probes: the contract of every kind, and real listeners for them."""
