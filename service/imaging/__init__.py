"""Pictures: decode, normalise, composite, encode, and the worker processes that do it."""
