"""Load on purpose: numbered records, many clients on one thread, and proof that each arrived once.

Only `verify` knows Django; the rest is plain Python, so that a benchmark can start it elsewhere.
"""
