"""Makes an API key at the first start, and prints it once: `make_key.py KEYS_FILE TOKEN_FILE`.

KEYS_FILE is for API_KEYS_FILE; TOKEN_FILE has the bare key, for the Prometheus beside the service.
"""

import os
import secrets
import sys
from pathlib import Path

NAME = "first"


def main(keys_file: Path, token_file: Path) -> None:
    if keys_file.exists():
        print(f"{keys_file} is there already; its key is not shown again")
        return
    key = secrets.token_urlsafe(32)
    # The token first: if this is cut short, the next start makes both anew.
    _write(token_file, key, 0o644)
    _write(keys_file, f"{NAME}:{key}\n", 0o600)
    print(f"The API key, which is shown only this once: {key}", flush=True)


def _write(path: Path, text: str, mode: int) -> None:
    """Write a file so that it is there in whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.chmod(mode)
    part.rename(path)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
