"""The emulator as a process: `python -m service.emulator --port 0`.

It prints its port as one line of JSON, listens on 127.0.0.1 only, and exits at the end of its standard input, so it
never outlives the parent that holds the pipe. It ignores signals, because the parent may still wait for replies when a
Ctrl-C reaches the whole process group. In a terminal, end it with Ctrl-D.
"""

import argparse
import asyncio
import json
import os
import signal
import socket
import sys
import threading

from aiohttp import web

from service.emulator.app import Emulator


async def _serve(emulator: Emulator, port: int) -> None:
    runner = web.AppRunner(emulator.create_app(), access_log=None, handle_signals=False)
    await runner.setup()
    listener = socket.create_server(("127.0.0.1", port), backlog=4096)
    await web.SockSite(runner, listener, backlog=4096).start()
    sys.stdout.write(json.dumps({"port": listener.getsockname()[1]}) + "\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


def _end_with_parent() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    # No client is left, and there is nothing to save.
    os._exit(0)


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    parser = argparse.ArgumentParser(prog="python -m service.emulator", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 (the default) takes a free one")
    port = parser.parse_args().port
    try:
        emulator = Emulator.from_environment(os.environ)
    except ValueError as exc:
        parser.exit(2, f"error: {exc}\n")
    threading.Thread(target=_end_with_parent, daemon=True).start()
    asyncio.run(_serve(emulator, port))


if __name__ == "__main__":
    main()
