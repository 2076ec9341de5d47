"""A downstream service to try things with: it fails as it is told to, and keeps a journal."""
