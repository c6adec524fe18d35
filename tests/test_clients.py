"""The examples of docs/clients.md, run as they are printed, each by its own program."""

import asyncio
import re
import shutil
import sys
from pathlib import Path

import pytest

from tests.conftest import Serve
from tests.helpers import QuickEmulator, bare_environment, picture_bytes

on_one_loop = pytest.mark.asyncio(loop_scope="session")

PAGE = Path(__file__).parents[1].joinpath("docs/clients.md").read_text()
# A section's language, its place on the page, and the code.
EXAMPLES = [
    pytest.param(kind, code, id=f"{kind}-{number}")
    for number, (kind, code) in enumerate(re.findall(r"```([a-z]+)\n(.*?)```", PAGE, re.DOTALL))
]
PRINTED = "http://127.0.0.1:8000"
PROGRAMS = {
    "sh": ("curl", "example.sh", ("bash", "-e")),
    "python": (sys.executable, "example.py", (sys.executable, "-W", "error")),
    "javascript": ("node", "example.mjs", ("node",)),
}
WAIT_SECONDS = 120


def test_the_page_has_examples_of_every_program() -> None:
    assert {example.values[0] for example in EXAMPLES} == PROGRAMS.keys()
    assert PAGE.count(PRINTED) >= len(EXAMPLES)


@on_one_loop
@pytest.mark.parametrize(("kind", "code"), EXAMPLES)
async def test_an_example_runs_as_printed(serve: Serve, tmp_path: Path, kind: str, code: str) -> None:
    needed, name, command = PROGRAMS[kind]
    if shutil.which(needed) is None:
        pytest.skip(f"{needed} is not installed")
    service = await serve(QuickEmulator())
    (tmp_path / "picture.png").write_bytes(picture_bytes())
    (tmp_path / name).write_text(code.replace(PRINTED, service.url))
    process = await asyncio.create_subprocess_exec(
        *command, name, cwd=tmp_path, env=bare_environment(),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(WAIT_SECONDS):
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode() or out.decode()
    lines = out.decode().split("\n")
    names = re.findall(r"/static/output/(export_[0-9a-f]{32}\.[a-z]+)", out.decode())
    assert len(names) >= sum(map(bool, lines)) >= 1
    assert {*names} <= {*service.area("output")}
