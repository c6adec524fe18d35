"""Imports run one way, and the workers stay light."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(ROOT.joinpath("service").rglob("*.py"))

# Package or top-level module -> what of `service` it may import. Every module is on the list.
GROUND = {"callers", "error_codes", "errors", "settings", "logs", "metrics", "quoting", "spans", "tracing", "values"}
ALLOWED = {
    "__init__": set(),
    "__main__": {"cli", "signals"},
    "cli": GROUND
    | {"accounts", "app", "cleanup", "commands", "exports", "imaging", "keyring", "schemas", "server", "streams"},
    "cleanup": {"errors", "ledger", "retention", "settings", "store", "streams"},
    "accounts": {"callers", "gemini", "ledger", "schemas", "settings", "streams"},
    "commands": GROUND
    | {
        "bases",
        "backend",
        "exports",
        "imaging",
        "jobs",
        "ledger",
        "orders",
        "publishing",
        "schemas",
        "signals",
        "store",
        "stored",
        "streams",
        "thumbnails",
    },
    "app": GROUND | {"handlers", "server"},
    "handlers": GROUND
    | {
        "bases",
        "budgets",
        "exports",
        "gemini",
        "imaging",
        "jobs",
        "ledger",
        "orders",
        "publishing",
        "schemas",
        "server",
        "store",
        "stored",
    },
    "server": GROUND
    | {
        "backend",
        "exports",
        "gemini",
        "jobs",
        "keyring",
        "ledger",
        "secret_files",
        "scheduler",
        "schemas",
        "signals",
        "store",
        "thumbnails",
        "variations",
    },
    "schemas": {
        "error_codes",
        "bases",
        "budgets",
        "callers",
        "encodings",
        "errors",
        "gemini",
        "imaging",
        "ledger",
        "orders",
        "publishing",
        "settings",
        "stored",
        "values",
    },
    "jobs": {
        "bases",
        "callers",
        "errors",
        "exports",
        "gemini",
        "imaging",
        "ledger",
        "orders",
        "store",
        "stored",
        "thumbnails",
        "variations",
    },
    "ledger": {"callers", "errors", "settings", "store"},
    "stored": {"error_codes", "errors", "imaging", "orders"},
    "thumbnails": GROUND | {"bases", "exports", "gemini", "imaging", "orders", "store", "variations"},
    "variations": GROUND | {"bases", "exports", "gemini", "imaging", "orders", "publishing", "store"},
    "orders": {"bases", "errors", "gemini", "imaging", "publishing", "store"},
    "exports": GROUND
    | {
        "arguments",
        "bases",
        "encodings",
        "imaging",
        "outcomes",
        "publishing",
        "rendering",
        "retention",
        "store",
        "urls",
        "workers",
    },
    "outcomes": {"error_codes", "errors", "imaging"},
    "publishing": {"errors", "imaging", "store", "urls"},
    "rendering": {"bases", "errors", "imaging", "store", "workers"},
    "bases": {"errors", "imaging"},
    "encodings": {"imaging", "settings"},
    "arguments": {"budgets", "imaging"},
    "budgets": {"imaging"},
    "backend": GROUND | {"emulator", "gemini"},
    "scheduler": GROUND | {"retention", "store"},
    "retention": {"errors", "settings", "store"},
    "urls": {"errors", "settings"},
    "signals": set(),
    "streams": {"errors", "quoting"},
    "metrics": set(),
    "logs": {"callers", "quoting", "tracing"},
    "tracing": set(),
    "spans": set(),
    "keyring": {"api_keys", "callers", "errors", "secret_files", "settings"},
    "settings": {"api_keys", "cpus", "errors", "gemini", "imaging", "secret_files", "store", "values"},
    "api_keys": {"callers"},
    "callers": set(),
    "secret_files": set(),
    "values": set(),
    "cpus": set(),
    "error_codes": {"errors"},
    "errors": {"quoting"},
    "quoting": set(),
    "emulator": {"errors", "gemini", "imaging"},
    "gemini": {"errors", "imaging", "quoting", "spans", "tracing"},
    "store": {"errors", "imaging"},
    "workers": {"imaging"},
    "imaging": set(),
    "studio": set(),
}
# What each may import of these; whoever is not named may import none of them.
OUTSIDE = {
    "aiohttp": {"app", "emulator", "gemini", "handlers", "logs", "server"},
    "PIL": {"emulator", "imaging", "workers"},
    "google": {"gemini"},
    "opentelemetry": {"server", "spans"},
    "apsw": {"ledger"},
    "psycopg": {"ledger"},
    "pydantic": {"commands", "emulator", "schemas", "server", "settings", "stored", "values"},
}


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def package(path: Path) -> str:
    """The package or top-level module of a source."""
    return path.relative_to(ROOT / "service").parts[0].removesuffix(".py")


def test_every_package_imports_only_what_it_may() -> None:
    for path in SOURCES:
        own = package(path)
        used = {name.split(".")[1] for name in imported(path) if name.startswith("service.")}
        assert used <= ALLOWED[own] | {own}, path


def test_only_the_named_packages_import_the_large_libraries() -> None:
    for path in SOURCES:
        used = {name.split(".")[0] for name in imported(path)}
        assert {
            library for library, users in OUTSIDE.items() if library in used and package(path) not in users
        } == set(), path


def test_only_the_client_imports_google_genai() -> None:
    users = [path for path in SOURCES if any(name.startswith("google") for name in imported(path))]
    assert users == [ROOT / "service/gemini/client.py"]


@pytest.mark.parametrize(
    ("modules", "libraries"),
    [
        ("service.workers.worker", ("aiohttp", "google", "pydantic")),
        ("service.retention", ("aiohttp", "google", "PIL")),
        ("service.urls", ("aiohttp", "google", "PIL")),
        ("service.cli, service.commands", ("aiohttp", "google", "PIL")),
    ],
)
def test_light_modules_do_not_load_what_they_do_without(modules: str, libraries: tuple[str, ...]) -> None:
    code = f"import sys, {modules}; print([m for m in sys.modules if m.split('.')[0] in {libraries}])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert answer.stdout.strip() == "[]"


def test_the_architecture_page_names_every_package_and_every_file_beside_them() -> None:
    house = ROOT.joinpath("docs/architecture.md").read_text().partition("```\nservice/\n")[2].partition("```")[0]
    for path in ROOT.joinpath("service").iterdir():
        if path.name not in ("__init__.py", "__pycache__"):
            assert f" {path.name}{'/' * path.is_dir()} " in house


def test_the_longest_way_leads_through_files_that_are_there() -> None:
    section = (
        ROOT.joinpath("docs/architecture.md").read_text().partition("### The longest way\n")[2].partition("\n## ")[0]
    )
    named = re.findall(r"`([a-z_/]+(?:\.py|/))`", section.partition("|---|")[2])
    assert [name for name in named if not (ROOT / "service" / name).exists()] == []
    assert "server/connections.py" in named
