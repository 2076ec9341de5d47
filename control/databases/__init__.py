"""The databases as something that comes and goes: who may try to connect, and why it failed."""
