"""The aiohttp side of the service except its handlers: running, connections, middlewares, admission, sending."""
