"""What every probe that reaches out needs: names, the address policy, connections, TLS."""
