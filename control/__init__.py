"""The control plane every app stands on."""
