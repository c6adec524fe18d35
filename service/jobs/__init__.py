"""A request's life beside its HTTP exchange: run, recorded, followed, cancelled, and recovered after a crash."""
