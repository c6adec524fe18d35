"""All that knows aiohttp and is no route: running, connections, middlewares, admission, sending."""
