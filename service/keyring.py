"""The API keys in force: those of API_KEYS, and those of API_KEYS_FILE, which is read again when it changes."""

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from service.api_keys import callers_of, digest_of, parse_file, parse_list
from service.callers import Caller
from service.errors import SettingsError
from service.secret_files import read_secret_file, warn_if_exposed
from service.settings import Settings

log = logging.getLogger(__name__)

# A change is in force once two readings in a row have found it.
READ_SECONDS = 2.0


class _Reading(NamedTuple):
    """The text of the file, or the reason why there is none."""

    text: str
    reason: str = ""


class Keyring:
    """The caller of each key. `state` is `ok`, or why the previous keys are used instead of those in the file."""

    def __init__(self, settings: Settings) -> None:
        self.needs_key = settings.needs_key
        self.state = "ok"
        self._listed = parse_list([key.get_secret_value() for key in settings.api_keys])
        self._callers: Mapping[bytes, Caller] = callers_of(self._listed)
        self._path = settings.api_keys_file
        self._seen = _Reading("")

    def caller(self, key: bytes) -> Caller | None:
        """The caller with this key; None for one that is not valid."""
        return self._callers.get(digest_of(key))

    def load(self) -> None:
        """Read the file, if there is one; raises SettingsError. Blocks."""
        if self._path:
            self._seen = _reading(self._path)
            try:
                self._use(self._path, self._seen)
            except ValueError as error:
                raise SettingsError(f"API_KEYS_FILE is not allowed: {error}") from None

    async def watch(self) -> None:
        """Read the file, if there is one, again and again. One that cannot be used leaves the keys as they are."""
        before = self._seen
        while self._path:
            await asyncio.sleep(READ_SECONDS)
            try:
                before = await asyncio.to_thread(self._look, self._path, before)
            except Exception:
                # Such as a lack of memory or threads, which must not end the watch.
                log.exception("API_KEYS_FILE could not be read now")

    def _look(self, path: Path, before: _Reading) -> _Reading:
        """Read the file, and use it if it changed; not while it is changing, since it may be half written."""
        now = _reading(path)
        if now == before != self._seen:
            self._seen = now
            self._replace(path, now)
        return now

    def _replace(self, path: Path, reading: _Reading) -> None:
        try:
            self._use(path, reading)
        except ValueError as error:
            self.state = f"API_KEYS_FILE cannot be used, so the previous keys stay valid: {error}"
            log.warning("%s", self.state)
        else:
            self.state = "ok"
            log.info("API_KEYS_FILE was read again: there are %d keys", len(self._callers))

    def _use(self, path: Path, reading: _Reading) -> None:
        """Use the keys of the file and of API_KEYS; raises ValueError."""
        if reading.reason:
            raise ValueError(reading.reason)
        self._callers = callers_of([*self._listed, *parse_file(reading.text)])
        warn_if_exposed("API_KEYS_FILE", path)


def _reading(path: Path) -> _Reading:
    try:
        return _Reading(read_secret_file(path))
    except ValueError as error:
        return _Reading("", str(error))
