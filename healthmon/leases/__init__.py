"""Who probes what: leases of slots, with an epoch that fences off those who lost them."""
