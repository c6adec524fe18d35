"""FORMATS: the formats of whoever names none."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from service.cli import main
from service.exports import ImageExportService
from service.settings import load_settings
from tests.conftest import Serve
from tests.helpers import QuickEmulator, picture_bytes, upload

on_one_loop = pytest.mark.asyncio(loop_scope="session")

SMALL = ("width", "16")


@on_one_loop
async def test_requests_have_them(serve: Serve) -> None:
    service = await serve(QuickEmulator(), formats="avif,png")
    made = await service.thumbnails(SMALL)
    again = f"/api/thumbnails/{made.json['request_id']}/variations/var-1/exports"
    assert [*made.json["variations"][0]["exports"]] == ["png", "avif"]
    assert [*(await service.exports(upload(picture_bytes()))).json["exports"]] == ["png", "avif"]
    assert [*(await service.exports(upload(picture_bytes()), ("formats", "webp"))).json["exports"]] == ["webp"]
    assert [*(await service.post(again)).json["exports"]] == ["png", "avif"]


@on_one_loop
async def test_the_original_formats_are_those_of_exporting_again(serve: Serve) -> None:
    service = await serve(QuickEmulator(), formats="avif")
    made = await service.thumbnails(SMALL, ("formats", "webp"))
    again = await service.post(f"/api/thumbnails/{made.json['request_id']}/variations/var-1/exports")
    assert [*again.json["exports"]] == ["webp"]


@on_one_loop
async def test_the_studio_has_them_chosen(serve: Serve) -> None:
    page = (await (await serve(formats="gif,webp")).get("/")).body.decode()
    config = json.loads(page.partition('id="config">')[2].partition("</script>")[0])
    assert config["default_formats"] == ["webp", "gif"]


@on_one_loop
async def test_python_has_them(tmp_path: Path) -> None:
    async with ImageExportService(load_settings(storage_dir=tmp_path, export_workers=1, formats="webp")) as service:
        assert [*await service.process_and_export_image(picture_bytes())] == ["webp"]
        assert [*await service.process_and_export_image(picture_bytes(), formats=["png"])] == ["png"]


def test_commands_have_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.png").write_bytes(picture_bytes())
    environment = {"FORMATS": "webp", "EXPORT_WORKERS": "1"}
    result = CliRunner().invoke(main, ["export", "a.png", "--out", "made"], env=environment)
    assert result.exit_code == 0, result.output
    assert [path.suffix for path in Path("made").iterdir()] == [".webp"]
