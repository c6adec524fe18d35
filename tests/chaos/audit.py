"""What must hold after all kills: nothing acknowledged is lost, nothing is paid twice, every cent is accounted for."""

import asyncio
import contextlib
import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from service.ledger.ledger import LedgerAccess
from service.ledger.steps import Rules
from tests.chaos.bank import LIST_PRICE, Bank
from tests.chaos.clients import Export, exports_of, get, settled
from tests.chaos.process import Service
from tests.helpers import until

# Files that were made in the moment of the last kill are removed once no living process can have made them.
CLEAN_SECONDS = 60.0

Status = dict[str, Any]
Call = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Findings:
    """Each must be 0."""

    exports_lost_or_changed: int = 0
    raws_lost: int = 0
    raws_without_exports: int = 0
    calls_unlisted: int = 0
    calls_made_twice: int = 0
    calls_open: int = 0
    costs_not_on_the_bill: int = 0
    micro_dollars_off: int = 0
    nano_dollars_reserved: int = 0
    temp_files: int = 0
    orphan_uploads: int = 0
    orphan_raws: int = 0

    @property
    def faults(self) -> dict[str, int]:
        return {each.name: value for each in fields(self) if (value := getattr(self, each.name))}


@dataclass(frozen=True, slots=True)
class Report:
    """How a run ended: its `faults`, and `seen`, one line for people."""

    faults: dict[str, int]
    seen: str
    states: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Books:
    """The three accounts that must agree: the disk, what the API says, and Gemini's bill."""

    storage: Path
    bank: Bank
    requests: Sequence[Status]
    usage: dict[str, Any]
    acknowledged: Collection[Export] = ()
    named_uploads: Collection[str] = ()

    @property
    def calls(self) -> list[Call]:
        return [call for request in self.requests for call in request["calls"]]

    @property
    def states(self) -> Counter[str]:
        return Counter(call["state"] for call in self.calls)

    def audit(self) -> Findings:
        drawn, raws = self.bank.drawn, _files(self.storage / "generated")
        named = {_name(call["storage_path"]) for call in self.calls if call["storage_path"]}
        done = {_name(call["storage_path"]) for call in self.calls if call["state"] in ("exported", "failed")}
        exported = {_name(call["storage_path"]) for call in self.calls if call["state"] == "exported"}
        wanted = {request["script"]: request["count"] for request in self.requests}
        return Findings(
            exports_lost_or_changed=sum(not _is_there(self.storage, each) for each in self._exports()),
            raws_lost=len(exported - raws),
            raws_without_exports=len(raws & named - done),
            calls_unlisted=sum((drawn - self._listed()).values()),
            calls_made_twice=sum(max(0, count - wanted.get(script, 0)) for script, count in drawn.items()),
            calls_open=sum(call["state"] in ("planned", "sending", "received") for call in self.calls),
            costs_not_on_the_bill=sum((self._costs() - self._bill()).values()),
            micro_dollars_off=abs(_micro(self.usage["total"]["cost_usd"]) - self._expected_total()),
            nano_dollars_reserved=round(self.usage["budget"]["reserved_usd"] * 1e9),
            temp_files=len(_files(self.storage / "temp")),
            orphan_uploads=len(_files(self.storage / "uploads") - set(map(_name, self.named_uploads))),
            orphan_raws=len(raws - named),
        )

    def _exports(self) -> Iterable[Export]:
        yield from self.acknowledged
        for request in self.requests:
            yield from exports_of(request["variations"])

    def _listed(self) -> Counter[str]:
        """Calls that are or may be billed, by script."""
        return Counter(
            request["script"]
            for request in self.requests
            for call in request["calls"]
            if call["billed"] is not False and call["sent_at"]
        )

    def _costs(self) -> Counter[tuple[str, int]]:
        """The costs of calls whose usage was received: script and micro-dollars."""
        return Counter(
            (request["script"], _micro(call["cost_usd"]))
            for request in self.requests
            for call in request["calls"]
            if call["cost_usd"] and not call["estimated"]
        )

    def _bill(self) -> Counter[tuple[str, int]]:
        return Counter((script, _rounded(nano)) for script, charges in self.bank.bill.items() for nano in charges)

    def _expected_total(self) -> int:
        """Micro-dollars: by the bill where usage was received, at the list price where a cost was estimated."""
        received, nano = self._costs(), 0
        for script, charges in self.bank.bill.items():
            for charge in charges:
                if received[script, _rounded(charge)] > 0:
                    received[script, _rounded(charge)] -= 1
                    nano += charge
        return _rounded(nano + LIST_PRICE * sum(call["estimated"] for call in self.calls))


async def audited(service: Service, bank: Bank, acknowledged: Collection[Export] = ()) -> tuple[Books, Findings]:
    """Wait until all has settled, then audit; what is cleaned up in time is no fault."""
    requests = await settled(service)
    await until(lambda: bank.in_flight == 0, CLEAN_SECONDS)
    usage = await get(f"{service.url}/api/usage")
    uploads = await asyncio.to_thread(_named_uploads, service.storage)
    books = Books(service.storage, bank, requests, usage, acknowledged, uploads)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CLEAN_SECONDS):
            while (findings := books.audit()).temp_files or findings.orphan_uploads:
                await asyncio.sleep(0.5)
    return books, books.audit()


def _named_uploads(storage: Path) -> list[str]:
    database = LedgerAccess(storage / "ledger", Rules(0, None)).connect(read_only=True)
    with contextlib.closing(database):
        return [key for (key,) in database.run("SELECT upload FROM requests WHERE upload IS NOT NULL")]


def _files(area: Path) -> set[str]:
    return {path.name for path in area.iterdir() if not path.name.startswith(".")}


def _name(key: str) -> str:
    return key.rpartition("/")[2]


def _micro(usd: float) -> int:
    return round(usd * 1e6)


def _rounded(nano: int) -> int:
    """Micro-dollars, half up."""
    return (nano + 500) // 1000


def _is_there(storage: Path, export: Export) -> bool:
    path = storage / export.path
    return path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == export.sha256
