"""Handlers of the example types, to try the product with and to copy from."""
