import re
from pathlib import Path

from service.errors import ServiceError, StorageFull, classes

README = Path(__file__).parents[1] / "README.md"


def test_readme_has_every_code_under_its_status_and_no_other() -> None:
    section = README.read_text().partition("### Errors")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (\d{3}[\d, ]*) \| (.*) \|$", section, re.MULTILINE)
    listed = {code: statuses for statuses, codes in rows for code in re.findall(r"`([a-z_0-9]+)`", codes)}
    tree = {kind.code: kind.status for kind in classes(ServiceError)}
    assert listed.keys() == tree.keys()
    assert [code for code, status in tree.items() if str(status) not in listed[code]] == []


def test_what_was_billed_is_never_called_retryable() -> None:
    assert StorageFull("no space is left").worth_retrying
    assert not StorageFull("no space is left", billed=True).worth_retrying
