"""The probe kinds, one file a protocol, and what they share: names, addresses, connections."""
