"""HTTP handlers: forms in, answers out."""
