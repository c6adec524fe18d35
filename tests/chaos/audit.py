"""What must hold after all kills: nothing acknowledged is lost, nothing is paid twice, every call is accounted for."""

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.chaos.harness import Acknowledged, Bank, calls_of

_SCRIPT = re.compile(r"<script>\n(.*)\n</script>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Findings:
    """All but the first three must be 0."""

    requests: int
    calls: int
    unknown: int
    exports_lost: int
    raws_without_exports: int
    calls_unlisted: int
    calls_made_twice: int
    calls_open: int
    temp_files: int
    strays: int
    nano_reserved: int

    @property
    def faults(self) -> dict[str, int]:
        names = [name for name in self.__slots__ if name not in ("requests", "calls", "unknown")]
        return {name: getattr(self, name) for name in names if getattr(self, name)}


def audit(
    storage: Path, bank: Bank, found: Sequence[dict[str, Any]], told: Sequence[Acknowledged], usage: dict[str, Any]
) -> Findings:
    calls = calls_of(found)
    drawn = Counter({_script(prompt): count for prompt, count in bank.calls.items()})
    listed = Counter(each["script"] for each in found for call in each["calls"] if _may_be_billed(call))
    wanted = {each["script"]: each["count"] for each in found}
    raws = {path.name for path in (storage / "generated").iterdir() if path.name != ".gitkeep"}
    exported = {call["storage_path"].rpartition("/")[2] for call in calls if call["state"] == "exported"}
    named = {str(call["storage_path"]).rpartition("/")[2] for call in calls}
    return Findings(
        requests=len(found),
        calls=len(calls),
        unknown=sum(call["state"] == "unknown" for call in calls),
        exports_lost=sum(not _is_there(storage, each) for each in told),
        raws_without_exports=len(raws - exported),
        calls_unlisted=sum((drawn - listed).values()),
        calls_made_twice=sum(max(0, count - wanted.get(script, 0)) for script, count in drawn.items()),
        calls_open=sum(call["state"] in ("planned", "sending", "received") for call in calls),
        temp_files=sum(path.name != ".gitkeep" for path in (storage / "temp").iterdir()),
        strays=len(raws - named),
        nano_reserved=round(usage["budget"]["reserved_usd"] * 1e9),
    )


def _script(prompt: str) -> str:
    match = _SCRIPT.search(prompt)
    return match[1] if match else prompt


def _may_be_billed(call: dict[str, Any]) -> bool:
    return bool(call["billed"] is not False and call["sent_at"])


def _is_there(storage: Path, export: Acknowledged) -> bool:
    path = storage / export.path
    return path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == export.sha256
