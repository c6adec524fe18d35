"""The service, armed: it kills itself at one point of a call. Only the tests start it.

`python -m tests.chaos.armed POINT serve` dies at the first call that reaches the point.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from service.__main__ import main
from service.exports import ImageExportService
from service.handlers.uploads import UploadWriter
from service.ledger.ledger import Ledger
from service.store.directories import Directory
from service.store.local import LocalStore


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def after(owner: type, name: str) -> None:
    """Die when the method has done its work, before its caller goes on."""
    method: Callable[..., Awaitable[Any]] = getattr(owner, name)

    async def dying(*args: Any, **options: Any) -> Any:
        result = await method(*args, **options)
        die()
        return result

    setattr(owner, name, dying)


def before(owner: type, name: str) -> None:
    async def dying(*args: Any, **options: Any) -> Any:
        die()

    setattr(owner, name, dying)


def soon_after(owner: type, name: str, seconds: float) -> None:
    """Die while what follows the method is under way."""
    method: Callable[..., Awaitable[Any]] = getattr(owner, name)

    async def dying(*args: Any, **options: Any) -> Any:
        result = await method(*args, **options)
        asyncio.get_running_loop().call_later(seconds, die)
        return result

    setattr(owner, name, dying)


def soon_into(owner: type, name: str, seconds: float) -> None:
    """Die while the method is at work."""
    method: Callable[..., Awaitable[Any]] = getattr(owner, name)

    async def dying(*args: Any, **options: Any) -> Any:
        asyncio.get_running_loop().call_later(seconds, die)
        return await method(*args, **options)

    setattr(owner, name, dying)


def while_reading_a_body() -> None:
    """Die when the first bytes of an upload are in uploads/."""
    write = UploadWriter.write

    async def dying(self: UploadWriter, key: str, data: bytes) -> None:
        await write(self, key, data)
        die()

    UploadWriter.write = dying  # type: ignore[method-assign]  # this is what arms it


def before_naming_a_raw() -> None:
    """Die when the raw is synced in temp/ and has no name yet."""
    rename = Directory.rename

    def dying(self: Directory, name: str, target: Directory, new: str) -> None:
        if new.startswith("req_"):
            die()
        rename(self, name, target, new)

    Directory.rename = dying  # type: ignore[method-assign]  # this is what arms it


def before_syncing_the_name_of_a_raw() -> None:
    rename = Directory.rename

    def dying(self: Directory, name: str, target: Directory, new: str) -> None:
        rename(self, name, target, new)
        if new.startswith("req_"):
            die()

    Directory.rename = dying  # type: ignore[method-assign]  # this is what arms it


def between_two_names_of_exports() -> None:
    rename, count = Directory.rename, [0]

    def dying(self: Directory, name: str, target: Directory, new: str) -> None:
        rename(self, name, target, new)
        count[0] += new.startswith("export_")
        if count[0] == 2:
            die()

    Directory.rename = dying  # type: ignore[method-assign]  # this is what arms it


def after_writing_a_raw() -> None:
    write = LocalStore.write

    async def dying(self: LocalStore, key: str, *args: Any) -> str:
        sha256 = await write(self, key, *args)
        die()
        return sha256

    LocalStore.write = dying  # type: ignore[method-assign, assignment]  # this is what arms it


POINTS: dict[str, Callable[[], None]] = {
    "0 body being read": while_reading_a_body,
    "1 opened": lambda: after(Ledger, "open"),
    "2 noted as sent": lambda: after(Ledger, "send"),
    "3 being drawn": lambda: soon_after(Ledger, "send", 0.4),
    "4 received in memory": lambda: before(LocalStore, "write"),
    "5 synced without a name": before_naming_a_raw,
    "6 named, name not synced": before_syncing_the_name_of_a_raw,
    "7 kept, not noted": after_writing_a_raw,
    "8 noted as received": lambda: after(Ledger, "receive"),
    "9 being exported": lambda: soon_into(ImageExportService, "export", 0.05),
    "10 some exports published": between_two_names_of_exports,
    "11 published, not noted": lambda: before(Ledger, "export"),
    "12 noted as exported": lambda: after(Ledger, "export"),
    "13 refused, not noted": lambda: before(Ledger, "refuse"),
}


if __name__ == "__main__":
    POINTS[sys.argv.pop(1)]()
    main()
