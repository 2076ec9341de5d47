"""Real servers on port 0 for probes to try: plain and TLS, good and bad ones, and nameservers.

Each runs on threads of its own, so that a probe that blocks its event loop cannot help itself.
"""
