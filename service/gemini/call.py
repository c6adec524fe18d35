"""A call to Gemini and its callbacks. Imports neither aiohttp nor the SDK, which are slow to load."""

import base64
from dataclasses import dataclass, field
from pathlib import Path

from service.errors import StorageUnavailable
from service.gemini.body import ReplyBody


@dataclass(frozen=True, slots=True)
class Reference:
    """A picture to send along: a local file and its actual MIME type. Its bytes are in memory only during a call."""

    path: str
    mime: str

    def encode(self) -> bytes:
        """The file in URL-safe base64; raises StorageUnavailable. Blocks."""
        try:
            return base64.urlsafe_b64encode(Path(self.path).read_bytes())
        except OSError as error:
            raise StorageUnavailable(f"the reference picture cannot be read: {error.strerror}") from error


@dataclass(frozen=True, slots=True)
class Call:
    """The request of one call; `aspect_ratio` and `image_size` as Gemini spells them (`16:9`, `1K`).

    `body` receives the reply; the owner closes it once the picture is stored.
    """

    model: str
    prompt: str
    aspect_ratio: str
    image_size: str
    reference: Reference | None = None
    body: ReplyBody | None = field(default=None, repr=False, compare=False)


class CallHooks:
    """Callbacks of one call for its owner; these do nothing.

    Until `sent`, a call can be cancelled at no cost.
    """

    async def prepare(self) -> None:
        """Before each attempt, once the call has a slot; an exception prevents the attempt."""

    def sent(self) -> None:
        """Just before the request is sent: from here on the call may be billed."""

    async def refused(self) -> None:
        """After an attempt that Gemini did not execute, and does not bill; an exception prevents the next one."""
