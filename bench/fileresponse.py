"""A peer to compare with: a directory served by aiohttp's FileResponse."""

import argparse
from pathlib import Path

from aiohttp import web

FOLDER = web.AppKey("folder", Path)


async def download(request: web.Request) -> web.StreamResponse:
    return web.FileResponse(request.app[FOLDER] / request.match_info["name"])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    app = web.Application()
    app[FOLDER] = options.folder
    app.add_routes([web.get("/{name}", download)])
    web.run_app(app, host="127.0.0.1", port=options.port, access_log=None, print=lambda *_: None)


if __name__ == "__main__":
    main()
