"""Conditional requests (RFC 9110, 13), evaluated in the order of its section 13.2.2."""

import re

from aiohttp import hdrs, web

from service.errors import PreconditionFailed

# The three formats of an HTTP-date (RFC 9110, 5.6.7); aiohttp parses them, but accepts others as well.
_HTTP_DATE = re.compile(
    r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT"
    r"|[A-Z][a-z]{5,8}, \d\d-[A-Z][a-z]{2}-\d\d \d\d:\d\d:\d\d GMT"
    r"|[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4}",
    re.ASCII,
)


def check_preconditions(request: web.Request, etag: str, modified: int) -> None:
    """Raise PreconditionFailed unless If-Match, or without it If-Unmodified-Since (in whole seconds), holds."""
    if hdrs.IF_MATCH in request.headers:
        # Strong comparison: a weak tag keeps its W/, and so never equals ours.
        holds = bool(_tags(request, hdrs.IF_MATCH) & {"*", etag})
    else:
        holds = hdrs.IF_UNMODIFIED_SINCE not in request.headers or not _modified_since(request, modified)
    if not holds:
        raise PreconditionFailed("the file is not the one that the request is about", headers={"ETag": etag})


def _modified_since(request: web.Request, modified: int) -> bool:
    """Whether If-Unmodified-Since is earlier; several or malformed ones are ignored (RFC 9110, 13.1.4)."""
    lines = request.headers.getall(hdrs.IF_UNMODIFIED_SINCE)
    if len(lines) != 1 or not _HTTP_DATE.fullmatch(lines[0].strip()):
        return False
    since = request.if_unmodified_since
    return since is not None and modified > since.timestamp()


def is_unchanged(request: web.Request, etag: str) -> bool:
    """Whether If-None-Match names the file, compared weakly (RFC 9110, 13.1.2): a 304."""
    if hdrs.IF_NONE_MATCH not in request.headers:
        return False
    tags = {tag.removeprefix("W/") for tag in _tags(request, hdrs.IF_NONE_MATCH)}
    return bool(tags & {"*", etag})


def _tags(request: web.Request, name: str) -> set[str]:
    return {tag.strip() for line in request.headers.getall(name) for tag in line.split(",")}
