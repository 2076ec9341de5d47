"""One file a figure (or two that share a set-up): `measure(plan) -> list[Figure]`."""
