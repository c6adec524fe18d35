"""The pages in docs/ are compared with the code."""

import re
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest
from PIL import Image

from service.cli import export, generate
from service.schemas.requests import PICTURE_FIELDS, THUMBNAIL_FIELDS
from service.schemas.warnings import WARNINGS
from tests import api_page
from tests.helpers import bare_environment

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]


def _page(name: str) -> str:
    return (ROOT / name).read_text()


def _sources() -> str:
    return "\n".join(path.read_text() for path in ROOT.glob("service/**/*.py"))


@pytest.mark.parametrize("page", ["docs/api.md", "docs/troubleshooting.md"])
def test_every_warning_has_its_row(page: str) -> None:
    section = re.split(r"\n## (?:Warnings|A variation has `warnings`)\n", _page(page))[1].partition("\n## ")[0]
    listed = re.findall(r"^\| `([a-z_]+)` \|", section, re.MULTILINE)
    assert sorted(listed) == sorted(WARNINGS)


def test_every_warning_is_in_the_table_of_warnings() -> None:
    assert set(re.findall(r'ExportWarning\(\s*"([a-z_]+)"', _sources())) == WARNINGS.keys()


def test_every_field_has_its_row_and_its_option() -> None:
    table = _page("docs/api.md").partition("\n## Fields\n")[2].partition("\n### ")[0]
    cells = " ".join(re.findall(r"^\| (`[^|]+) \|", table, re.MULTILINE))
    fields = {*THUMBNAIL_FIELDS, *PICTURE_FIELDS}
    assert {*re.findall(r"`([a-z_]+)`", cells)} == fields | {"image", "base"}
    options = {option.name for command in (generate, export) for option in command.params}
    assert fields - options == {"width", "height"}


def test_the_tables_of_the_api_page_are_those_of_the_description() -> None:
    assert api_page.written(_page("docs/api.md")) == _page("docs/api.md"), "run python -m tests.api_page"


def test_every_link_between_pages_leads_to_a_file() -> None:
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / link).exists(), (page.name, link)


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", _page("Makefile"), re.MULTILINE))
    for page in PAGES:
        named = set(re.findall(r"(?:`|\$ )make ([a-z-]+)", page.read_text()))
        assert named <= targets, page.name


def test_the_words_of_the_glossary_are_those_of_the_code() -> None:
    glossary = _page("docs/architecture.md").partition("\n## Glossary\n")[2]
    words = [word for word in re.findall(r"^\| ([a-z]+) \|", glossary, re.MULTILINE) if word != "word"]
    code = _sources().lower()
    assert len(words) == len(set(words)) > 40
    assert [word for word in words if word not in code] == []


def test_the_python_example_runs_as_printed(tmp_path: Path) -> None:
    Image.new("RGB", (320, 180), "teal").save(tmp_path / "picture.png")
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    example = _page("docs/python.md").partition("```python\n")[2].partition("```")[0]
    (tmp_path / "example.py").write_text(example)
    environment = bare_environment(PYTHONPATH=str(ROOT), EXPORT_WORKERS="1")
    command = [sys.executable, "-W", "error", "example.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    path, warnings = done.stdout.split(maxsplit=1)
    assert Path(path).suffix == ".webp"
    assert warnings.strip() == "[]"


def test_the_annotations_are_shipped() -> None:
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert "py.typed" in setup["options.package_data"]["service"]
    assert (ROOT / "service/py.typed").exists()
