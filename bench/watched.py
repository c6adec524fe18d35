"""The service; on SIGUSR1 it prints its number of asyncio tasks."""

import asyncio
import signal

from service.app import create_app
from service.logs import set_up_logging
from service.server.run import serve
from service.settings import load_settings


async def _watched() -> None:
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, lambda: print(f"tasks {len(asyncio.all_tasks(loop))}", flush=True))
    settings = load_settings()
    set_up_logging(settings.log_level, settings.log_format)
    await serve(create_app(settings))


if __name__ == "__main__":
    asyncio.run(_watched())
