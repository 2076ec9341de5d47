"""The HTTP API of ingest: what is asked, what is answered; the formats are `ingest.wire`'s."""
