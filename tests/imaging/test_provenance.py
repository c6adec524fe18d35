"""The mark of a generated picture: written into a packet, found as text in any, and that of an export."""

import itertools

import pytest

from service.imaging.provenance import MAX_XMP_BYTES, Mark, mark_of, mark_of_export, packet

GENERATED: Mark = "trainedAlgorithmicMedia"
COMPOSITE: Mark = "compositeWithTrainedAlgorithmicMedia"
VOCABULARY = "http://cv.iptc.org/newscodes/digitalsourcetype/"
TERM = VOCABULARY + GENERATED
OTHER = VOCABULARY + "digitalCapture"


@pytest.mark.parametrize("mark", [GENERATED, COMPOSITE])
def test_a_packet_says_its_mark_and_nothing_else(mark: Mark) -> None:
    assert mark_of(packet(mark)) == mark
    assert mark_of(memoryview(packet(mark))) == mark
    assert packet(mark).count(b"Iptc4xmpExt:") == 1
    assert len(packet(mark)) < 420


@pytest.mark.parametrize(
    "text",
    [
        f'<a b:c="{TERM}"/>',
        f"<a b='{TERM}' c='x'/>",
        f"<a b = \n'\t{TERM} \r\n'/>",
        f"<a>{TERM}</a>",
        f"<a>\n  {TERM}\n</a>",
        f'<a rdf:resource="{TERM}"/>',
        f"<rdf:Bag><rdf:li>{OTHER}</rdf:li><rdf:li>{TERM}</rdf:li></rdf:Bag>",
        f"<a><![CDATA[{TERM}]]></a>",
        f"<a>{TERM}<!-- of ours --></a>",
        f"<!-- it's --><a b='{TERM}'/>",
        f"<!DOCTYPE a [<!ENTITY b 'c'>]><a>{TERM}</a>",
        f"cut <a>{TERM}<",
    ],
)
def test_the_iri_is_found_as_the_value_of_any_attribute_or_element(text: str) -> None:
    assert mark_of(text.encode()) == GENERATED


@pytest.mark.parametrize(
    "text",
    [
        "",
        TERM,
        f"<a b='{OTHER}'/>",
        f"<a b='{TERM}s'/>",
        f"<a b='{TERM}/'/>",
        f"<a b='x{TERM}'/>",
        f"<a b='{TERM.upper()}'/>",
        f"<a b='{TERM.replace('http:', 'https:')}'/>",
        f"<a b='{GENERATED}'/>",
        f"<a b='see {TERM}'/>",
        f"<a>{OTHER} {TERM}</a>",
        f'<a>"{TERM}"</a>',
        f"<a b='{TERM}\"/>",
        f"<a>{TERM}",
        f"<a b='{TERM}",
        f"<a>{TERM[:30]}</a><a>{TERM[30:]}</a>",
        f"<a>{TERM[:30]}<!-- -->\n{TERM[30:]}</a>",
        f"<!-- {TERM} -->",
        f"<!-- <a>{TERM}</a> -->",
        f"<!-- <a b='{TERM}'/>",
        f"<?a b='{TERM}'?>",
        f"<a><![CDATA[<b>{TERM}</b>]]></a>",
        f"<a><![CDATA[b='{TERM}']]></a>",
        f"<!DOCTYPE a [<!ENTITY b '{TERM}'>]><a/>",
        f"<a b='{TERM.replace('/', '&#47;')}'/>",
        f"<a b='{TERM}'/>".encode("utf-16").decode("latin-1"),
    ],
)
def test_anything_else_is_no_mark(text: str) -> None:
    assert mark_of(text.encode()) is None


@pytest.mark.parametrize("terms", [*itertools.permutations((GENERATED, COMPOSITE, "digitalCapture"))])
def test_of_several_terms_the_composite_one_counts(terms: tuple[str, ...]) -> None:
    text = "".join(f"<rdf:li>{VOCABULARY}{term}</rdf:li>" for term in terms)
    assert mark_of(text.encode()) == COMPOSITE


def test_a_packet_of_more_than_256_kib_is_not_read() -> None:
    text = packet(GENERATED)
    assert mark_of(text.ljust(256 * 1024)) == GENERATED
    assert mark_of(text.ljust(256 * 1024 + 1)) is None


@pytest.mark.parametrize(
    "part",
    [
        *("<!--", "<!-", "<![CDATA[", "<?", "=", "='", "= ", "=' ", "> ", ">", " ", "\n", "<>=", "]]>", "-->", "?>"),
        *(f"={TERM}", f"='{TERM}", f">{TERM}", f"> {TERM} ", "<![CDATA[<]]>", "<!---->", "&a;", "<!ENTITY a '&b;&b;'>"),
    ],
)
def test_hostile_text_takes_linear_time(part: str) -> None:
    """Quadratic time would be minutes."""
    text = (part * (MAX_XMP_BYTES // len(part)))[: MAX_XMP_BYTES - 200].encode()
    assert mark_of(text) is None
    assert mark_of(f"<a>{TERM}</a>".encode() + text) == GENERATED


@pytest.mark.parametrize(
    ("picture", "base", "alone", "blended"),
    [
        (None, None, None, None),
        (GENERATED, None, GENERATED, COMPOSITE),
        (COMPOSITE, None, COMPOSITE, COMPOSITE),
        (None, GENERATED, None, COMPOSITE),
        (None, COMPOSITE, None, COMPOSITE),
        (GENERATED, GENERATED, GENERATED, COMPOSITE),
        (COMPOSITE, GENERATED, COMPOSITE, COMPOSITE),
    ],
)
def test_the_mark_of_an_export(
    picture: Mark | None, base: Mark | None, alone: Mark | None, blended: Mark | None
) -> None:
    assert mark_of_export(picture, base, blended=False) == alone
    assert mark_of_export(picture, base, blended=True) == blended
