"""Kills the service at random and at every crash point, and holds what is left against the ledger and the bill."""
