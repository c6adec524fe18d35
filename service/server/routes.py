"""The type of a row in the table of routes in `app.py`."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from aiohttp import hdrs, web

from service.server.admission import Kind

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

# guarded: needs an API key if keys are set, else a known Host.
# page: needs a known Host but no key, since a browser sends none when it opens a page.
# open: needs neither.
Access = Literal["guarded", "page", "open"]


@dataclass(frozen=True, slots=True)
class Route:
    """A route: guarded and without admission control by default."""

    method: Literal["GET", "POST", "DELETE"]
    path: str
    handler: Handler
    name: str
    admission: Kind | None = None
    access: Access = "guarded"
    head: bool = True

    @property
    def label(self) -> str:
        """The route as the metrics show it: its pattern, never the path that a client asked for."""
        return self.path or self.name

    @property
    def operation_id(self) -> str:
        """Its name in the description: that of the handler."""
        return self.handler.__name__

    def definition(self) -> web.RouteDef:
        """The route for aiohttp; GET also answers HEAD, unless `head` is False."""
        if self.method == hdrs.METH_GET:
            return web.get(self.path, self.handler, name=self.name, allow_head=self.head)
        return web.route(self.method, self.path, self.handler, name=self.name, expect_handler=_expect_continue)


async def _not_found(_: web.Request) -> web.StreamResponse:
    raise web.HTTPNotFound


# The route of a request whose path or method is not in the table; metrics count it under this name.
UNKNOWN = Route("GET", "", _not_found, "other")


async def _expect_continue(request: web.Request) -> None:
    """Send no `100 Continue` yet: the form does when it starts to read, after admission."""
    if request.headers.get(hdrs.EXPECT, "").lower() != "100-continue":
        raise web.HTTPExpectationFailed
