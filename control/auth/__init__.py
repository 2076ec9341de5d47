"""Tenants and API keys: who may send and read what. Keys are checked from memory alone."""
