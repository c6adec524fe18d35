"""Decode, normalize, composite and encode pictures, in pure steps. `service.workers` runs them in worker processes."""
