"""Writes uploaded files to uploads/, one at a time."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from aiofiles.threadpool import wrap
from aiofiles.threadpool.binary import AsyncBufferedIOBase

from service.errors import ServiceError
from service.store.disk import storage_errors
from service.store.holds import Hold
from service.store.local import LocalStore


class UploadWriter:
    """Writes the uploads of one request; a write that has begun is completed even if the request is cancelled."""

    def __init__(self, store: LocalStore, hold: Hold, claim: Callable[[int], Awaitable[None]]) -> None:
        """`claim(count)` is awaited before each write of `count` bytes; it raises StorageFull."""
        self._store = store
        self._hold = hold
        self._claim = claim
        self._file: AsyncBufferedIOBase | None = None
        self._step: asyncio.Future[None] | None = None
        self._keys: list[str] = []

    async def write(self, key: str, data: bytes) -> None:
        """Append to the current upload, which is created at its first write."""
        await self._claim(len(data))
        await self._run(self._write(key, data))

    async def close(self) -> None:
        """Finish the current upload; a buffered write may raise StorageFull only here."""
        await self._run(self._close())

    async def discard(self) -> None:
        """Remove all uploads, even if the caller is cancelled."""
        if self._step:
            await asyncio.shield(asyncio.ensure_future(self._discard(self._step)))

    async def _run(self, step: Coroutine[Any, Any, None]) -> None:
        self._step = asyncio.ensure_future(step)
        await asyncio.shield(self._step)

    async def _write(self, key: str, data: bytes) -> None:
        if self._file is None:
            self._keys.append(key)
            self._file = wrap(await self._store.create(key, self._hold))
        with storage_errors("uploads"):
            await self._file.write(data)

    async def _close(self) -> None:
        if self._file:
            file, self._file = self._file, None
            with storage_errors("uploads"):
                await file.close()

    async def _discard(self, step: asyncio.Future[None]) -> None:
        await asyncio.wait([step])
        try:
            await self._close()
        except ServiceError:
            # The file is removed below.
            pass
        finally:
            await self._store.remove(self._keys)
