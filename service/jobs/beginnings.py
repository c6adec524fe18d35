"""Submissions whose body is known but whose request is not written yet: an automatic retry waits for earlier ones."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from service.jobs.job import BodyId, Submission


class Beginnings:
    """Orders the submissions of one body, so that a retry finds the request that it repeats in the ledger."""

    def __init__(self) -> None:
        self._pending: dict[BodyId, set[asyncio.Future[None]]] = {}

    @asynccontextmanager
    async def beginning(self, submission: Submission) -> AsyncIterator[None]:
        """To be entered once the body is known, and left once the request is written, or will not be."""
        pending = self._pending.setdefault(submission.body_id, set())
        earlier, written = list(pending), asyncio.get_running_loop().create_future()
        pending.add(written)
        try:
            if submission.retries and earlier:
                await asyncio.wait(earlier)
            yield
        finally:
            written.set_result(None)
            pending.discard(written)
            if not pending:
                self._pending.pop(submission.body_id, None)
