"""Jobs as they are kept: the Store protocol, its Django and its in-memory implementation."""
