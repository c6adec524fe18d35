"""Imports run one way, and the workers stay light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(ROOT.joinpath("service").rglob("*.py"))

# Folder or file -> what it must never import, by prefix.
FORBIDDEN = {
    "service/imaging": ("aiohttp", "pydantic", "google", "service.settings", "service.store", "service.errors"),
    "service/handlers": ("PIL", "google"),
    "service/urls.py": ("aiohttp",),
    "service/retention.py": ("aiohttp",),
    "service/store": ("aiohttp", "service.exports", "service.handlers", "service.gemini"),
    "service/gemini": ("service.handlers", "service.exports", "service.thumbnails", "service.store"),
    "service/exports.py": ("aiohttp", "service.gemini", "service.thumbnails", "service.handlers"),
    "service/orders.py": ("aiohttp", "service.handlers", "service.thumbnails"),
    "service/thumbnails.py": ("aiohttp", "service.handlers", "service.app"),
}


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("room", FORBIDDEN)
def test_rooms_import_only_downwards(room: str) -> None:
    sources = [path for path in SOURCES if str(path.relative_to(ROOT)).startswith(room)]
    assert sources
    for path in sources:
        for name in imported(path):
            for forbidden in FORBIDDEN[room]:
                assert name != forbidden, f"{path} imports {name}"
                assert not name.startswith(f"{forbidden}."), f"{path} imports {name}"


def test_only_the_client_imports_google_genai() -> None:
    users = [path for path in SOURCES if any(name.startswith("google") for name in imported(path))]
    assert users == [ROOT / "service/gemini/client.py"]


@pytest.mark.parametrize("module", ["service.imaging.worker", "service.retention", "service.urls"])
def test_light_modules_load_neither_aiohttp_nor_google(module: str) -> None:
    code = f"import sys, {module}; print([m for m in sys.modules if m.split('.')[0] in ('aiohttp', 'google')])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert answer.stdout.strip() == "[]"


def test_readme_names_every_room_and_every_file_beside_them() -> None:
    house = ROOT.joinpath("README.md").read_text().partition("```\nservice/\n")[2].partition("```")[0]
    for path in ROOT.joinpath("service").iterdir():
        if path.name not in ("__init__.py", "__pycache__"):
            assert f" {path.name}{'/' * path.is_dir()} " in house
