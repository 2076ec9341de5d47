"""Calling other machines: which addresses may be, how they are connected to, posting."""
