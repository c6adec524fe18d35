"""One row of the table of routes in `app.py`, and how aiohttp is told of it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from aiohttp import hdrs, web

from service.server.admission import Kind

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

# guarded: a key where keys are set, else only by a host name of ours.
# page: without a key, since a browser that opens a page sends none, but only by a host name of ours.
# open: everyone.
Access = Literal["guarded", "page", "open"]


@dataclass(frozen=True, slots=True)
class Route:
    """A route; guarded, and not counted by the admission, unless it says otherwise."""

    method: Literal["GET", "POST"]
    path: str
    handler: Handler
    name: str
    admission: Kind | None = None
    access: Access = "guarded"

    def definition(self) -> web.RouteDef:
        """The same for aiohttp; GET also answers HEAD."""
        if self.method == hdrs.METH_GET:
            return web.get(self.path, self.handler, name=self.name)
        return web.route(self.method, self.path, self.handler, name=self.name, expect_handler=_expect_continue)


async def _expect_continue(request: web.Request) -> None:
    """`100 Continue` waits until the request is admitted; the form says it when it starts to read."""
    if request.headers.get(hdrs.EXPECT, "").lower() != "100-continue":
        raise web.HTTPExpectationFailed
