"""Messages to the outside: written with what caused them, delivered at least once."""
