"""The sending side of the HTTP contract: what `loadtest` and `ship` share.

Plain Python, no Django: a benchmark's generator process imports this without starting the site.
"""
