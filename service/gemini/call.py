"""One call as its owner sees it: what is asked for, and what becomes of it. Loads neither aiohttp nor the SDK."""

import base64
from dataclasses import dataclass, field
from pathlib import Path

from service.errors import StorageUnavailable
from service.gemini.body import ReplyBody


@dataclass(frozen=True, slots=True)
class Reference:
    """A picture sent along: a file of this machine and its true MIME type. Only calls that are out hold its bytes."""

    path: str
    mime: str

    def encode(self) -> bytes:
        """URL-safe base64 of the file as it is; raises StorageUnavailable. Not for the event loop."""
        try:
            return base64.urlsafe_b64encode(Path(self.path).read_bytes())
        except OSError as error:
            raise StorageUnavailable(f"the reference picture cannot be read: {error.strerror}") from error


@dataclass(frozen=True, slots=True)
class Call:
    """What one call asks for; `aspect_ratio` and `image_size` as Gemini spells them (`16:9`, `1K`).

    `body` takes the reply; its owner keeps it until the picture is stored, and closes it.
    """

    model: str
    prompt: str
    aspect_ratio: str
    image_size: str
    reference: Reference | None = None
    body: ReplyBody | None = field(default=None, repr=False, compare=False)


class Flight:
    """What the owner of a call hears of it, and whether it is still wanted; this one only waits.

    Until `sent` a call can be cancelled and costs nothing.
    """

    @property
    def wanted(self) -> bool:
        """Whether a call that Gemini refused may be sent again."""
        return True

    async def prepare(self) -> None:
        """The call has a slot and is about to go out; what this raises prevents it."""

    def sent(self) -> None:
        """The call goes out now: from here on it may cost money."""

    async def refused(self) -> None:
        """Gemini surely did nothing with the call."""
