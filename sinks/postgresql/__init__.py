"""Writing to PostgreSQL: the packer of binary rows, connections, COPY with proofs, SQLSTATEs."""
