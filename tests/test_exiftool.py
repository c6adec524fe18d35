"""The marks of exports as exiftool reads them, and what else it finds in them: nothing of an upload."""

import json
import shutil
import subprocess
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.helpers import Running, upload
from tests.imaging import pictures

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.skipif(shutil.which("exiftool") is None, reason="exiftool is not installed"),
]

GENERATED, COMPOSITE = "trainedAlgorithmicMedia", "compositeWithTrainedAlgorithmicMedia"
VOCABULARY = "http://cv.iptc.org/newscodes/digitalsourcetype/"
FORMATS = ("png", "jpeg", "webp", "avif")
SMALL = (("formats", ",".join(FORMATS)), ("width", "64"), ("height", "36"))

# A packet as programs write it; of its properties exports may have the first one only.
PACKET = f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
 <rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:xmp="http://ns.adobe.com/xap/1.0/"
   xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" xmp:CreatorTool="A secret tool">
  <Iptc4xmpExt:DigitalSourceType>
   {VOCABULARY}{GENERATED}
  </Iptc4xmpExt:DigitalSourceType>
  <dc:creator><rdf:Seq><rdf:li>A secret person</rdf:li></rdf:Seq></dc:creator>
 </rdf:Description></rdf:RDF></x:xmpmeta>
<?xpacket end="w"?>""".encode()


def by_exiftool(*paths: Path) -> list[dict[str, Any]]:
    """The tags of each file, with their groups."""
    command = ["exiftool", "-json", "-groupNames1", "-duplicates", "-unknown", *map(str, paths)]
    tags: list[dict[str, Any]] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return tags


def assert_marked(service: Running, exports: dict[str, Any], mark: str | None) -> None:
    assert tuple(exports) == FORMATS
    paths = [Path(service.settings.storage_dir, export["file_path"]) for export in exports.values()]
    for tags in by_exiftool(*paths):
        xmp = {tag: value for tag, value in tags.items() if tag.startswith("XMP")}
        assert xmp == ({"XMP-iptcExt:DigitalSourceType": VOCABULARY + mark} if mark else {}), tags
        assert not any(word in str(tags) for word in ("secret", "Warning", "Error")), tags


@pytest.mark.parametrize(
    ("base", "blend", "mark"), [(False, "0.7", GENERATED), (True, "0.7", COMPOSITE), (True, "1", GENERATED)]
)
async def test_generated_pictures_are_marked(service: Running, base: bool, blend: str, mark: str) -> None:
    under = [upload(pictures.jpeg())] if base else []
    [variation] = (await service.thumbnails(*under, ("blend", blend), *SMALL)).json["variations"]
    assert variation["metadata"]["digital_source_type"] == mark
    assert_marked(service, variation["exports"], mark)


def uploaded(kind: str, *, with_xmp: bool) -> bytes:
    """A picture with an Exif block and a comment, and a packet if asked."""
    exif = Image.Exif()
    exif[0x010E], exif[0x013B] = "A secret scene", "A secret artist"
    file = BytesIO()
    options: dict[str, Any] = {"exif": exif, "comment": b"A secret comment"}
    if kind == "PNG" and with_xmp:
        options["pnginfo"] = PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", PACKET.decode())
    elif with_xmp:
        options["xmp"] = PACKET
    pictures.image().save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
async def test_the_mark_of_an_upload_is_kept_and_nothing_else_of_it(service: Running, kind: str) -> None:
    plain, marked = (upload(uploaded(kind, with_xmp=with_xmp)) for with_xmp in (False, True))
    base = upload(uploaded(kind, with_xmp=True), "base")
    for fields, mark in (
        ((marked,), GENERATED),
        ((plain,), None),
        ((marked, base), COMPOSITE),
        ((plain, base), COMPOSITE),
        ((marked, base, ("blend", "1")), GENERATED),
        ((plain, base, ("blend", "1")), None),
        ((plain, ("provenance", "generated")), GENERATED),
        ((plain, base, ("provenance", "generated")), COMPOSITE),
    ):
        body = (await service.exports(*fields, *SMALL)).json
        assert body["metadata"]["digital_source_type"] == mark
        assert_marked(service, body["exports"], mark)
