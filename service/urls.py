"""Static and signed links to exports."""

import hashlib
import hmac
import re
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Final
from urllib.parse import parse_qsl

from service.errors import BadSignature, LinkExpired
from service.settings import Settings

MAX_LIFE_SECONDS: Final = 7 * 24 * 3600
# How far the clock of the machine that signed may be ahead of ours.
CLOCK_GRACE_SECONDS: Final = 300
_EXPIRES = re.compile(r"[1-9][0-9]{0,10}", re.ASCII)
_SIGNATURE = re.compile(r"[0-9a-f]{64}", re.ASCII)


class Links:
    """Builds and verifies the links of exports; the only code that reads the clock for links."""

    def __init__(self, settings: Settings, now: Callable[[], float] = time.time) -> None:
        self.signed = settings.sign_urls
        self._prefix = settings.public_url or ""
        self._secrets = [secret.get_secret_value().encode() for secret in settings.signing_secret]
        self._life = settings.url_signature_expiry
        self._now = now
        # Only valid links are cached, since a wrong one raises.
        self._expiry_of = lru_cache(maxsize=1024)(self._verified_expiry)

    def build(self, name: str) -> str:
        """The link to the export file `name`."""
        return self._link(name, int(self._now()) + self._life)

    def rebuild(self, name: str, swept_at: float | None) -> str | None:
        """A new link to a file that may be swept from `swept_at` on (Unix time; None: never).

        It expires before that; None if less than a second is left.
        """
        now = self._now()
        if swept_at is None:
            return self.build(name)
        return self._link(name, min(int(now) + self._life, int(swept_at))) if swept_at - now >= 1 else None

    def _link(self, name: str, expires: int) -> str:
        if not self.signed:
            return f"{self._prefix}/static/output/{name}"
        signature = _sign(self._secrets[0], name, expires)
        return f"{self._prefix}/api/download/{name}?expires={expires}&signature={signature}"

    def verify(self, name: str, query: str) -> int:
        """Whole seconds until a link with this query expires; raises BadSignature or LinkExpired."""
        left = self._expiry_of(name, query) - self._now()
        if left > MAX_LIFE_SECONDS + CLOCK_GRACE_SECONDS:
            raise BadSignature("the link would live longer than 7 days")
        if left <= 0:
            raise LinkExpired("the link has expired; ask for the picture again")
        return int(left)

    def _verified_expiry(self, name: str, query: str) -> int:
        """The expiry of a correctly signed link, in Unix time; raises BadSignature."""
        pairs = parse_qsl(query, keep_blank_values=True)
        fields = dict(pairs)
        if len(pairs) != 2 or fields.keys() != {"expires", "signature"}:
            raise BadSignature("a signed link carries exactly expires and signature, each once")
        if not _EXPIRES.fullmatch(fields["expires"]) or not _SIGNATURE.fullmatch(fields["signature"]):
            raise BadSignature("expires must be whole seconds and signature 64 lower-case hex digits")
        expires = int(fields["expires"])
        given = fields["signature"]
        if not any(hmac.compare_digest(_sign(secret, name, expires), given) for secret in self._secrets):
            raise BadSignature("the signature does not belong to this name and expiry")
        return expires


def _sign(secret: bytes, name: str, expires: int) -> str:
    """HMAC-SHA256 in hex over version, name and expiry, on a line each, so that no two pairs collide."""
    return hmac.new(secret, f"v1\n{name}\n{expires}".encode(), hashlib.sha256).hexdigest()
