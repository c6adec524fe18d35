"""The mark of a generated picture: IPTC's digital source type, in an XMP packet."""

import re
from functools import cache
from typing import Literal

# The terms of https://cv.iptc.org/newscodes/digitalsourcetype/ that mark a generated picture.
Mark = Literal["trainedAlgorithmicMedia", "compositeWithTrainedAlgorithmicMedia"]
GENERATED: Mark = "trainedAlgorithmicMedia"
COMPOSITE: Mark = "compositeWithTrainedAlgorithmicMedia"

# A larger XMP packet is not read.
MAX_XMP_BYTES = 256 * 1024

_VOCABULARY = "http://cv.iptc.org/newscodes/digitalsourcetype/"

# Comments, processing instructions and CDATA sections. An unclosed one reaches to the end of the text: otherwise each
# unclosed start would be searched to the end, in quadratic time.
_SECTION = re.compile(rb"<!--.*?(?:-->|\Z)|<\?.*?(?:\?>|\Z)|<!\[CDATA\[(.*?)(?:\]\]>|\Z)", re.DOTALL)
_MARKUP = re.compile(rb"[<>=]")


@cache
def packet(mark: Mark) -> bytes:
    """An XMP packet with the property `Iptc4xmpExt:DigitalSourceType` and nothing else."""
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
        f'Iptc4xmpExt:DigitalSourceType="{_VOCABULARY}{mark}"/>'
        "</rdf:RDF></x:xmpmeta>"
        '<?xpacket end="r"?>'
    ).encode()


def mark_of(xmp: bytes | memoryview) -> Mark | None:
    """The mark in an XMP packet, of several the composite one; None for a packet over MAX_XMP_BYTES.

    It is searched as text: the whole IRI of a term as the value of an attribute, or the text of an element, of any
    name. No XML parser sees the packet, so no entity in it can expand.
    """
    if len(xmp) > MAX_XMP_BYTES:
        return None
    text = _SECTION.sub(_content, xmp)
    return next((mark for mark in (COMPOSITE, GENERATED) if _value(mark).search(text)), None)


def _content(section: re.Match[bytes]) -> bytes:
    """The text of a CDATA section, in which nothing is markup; nothing of other sections."""
    return _MARKUP.sub(b"?", section[1] or b"")


@cache
def _value(mark: Mark) -> re.Pattern[bytes]:
    iri = re.escape(f"{_VOCABULARY}{mark}").encode()
    return re.compile(rb"""=\s*(["'])\s*%b\s*\1|>\s*%b\s*<""" % (iri, iri))


def mark_of_export(picture: Mark | None, base: Mark | None, *, blended: bool) -> Mark | None:
    """The mark of an export; `blended`: a part of it is the base, else it is the picture alone."""
    if not blended:
        return picture
    return COMPOSITE if picture or base else None
