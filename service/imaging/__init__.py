"""Pictures: decode, normalise, composite, encode. Pure steps; worker processes are in `service.workers`."""
