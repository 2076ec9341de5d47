"""Faults under load, judged from outside: what was acknowledged is stored, and stored once.

    python -m tests.chaos --rounds 50 --seed 7 --database postgresql --only kill_server

A round starts a fresh installation, posts records from several threads, strikes with one fault at a
random moment, heals it, and compares what the server acknowledged with what is stored.  Knows the
product by HTTP, by its files and by its databases only.
"""
