from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest

from service.errors import BadSignature, LinkExpired
from service.settings import load_settings
from service.urls import CLOCK_GRACE_SECONDS, MAX_LIFE_SECONDS, Links, _sign

NAME = "export_" + "0" * 32 + ".png"
OTHER = "export_" + "1" * 32 + ".png"
SECRET, OLD_SECRET = "s" * 32, "o" * 32
NOW = 1_700_000_000.0

Query = list[tuple[str, str]]


class Clock:
    now = NOW

    def __call__(self) -> float:
        return self.now


def links(clock: Clock, secret: str = SECRET, expiry: int = 60) -> Links:
    return Links(load_settings(sign_urls=True, signing_secret=secret, url_signature_expiry=expiry), clock)


def query_of(url: str) -> Query:
    return parse_qsl(urlsplit(url).query)


def verify(signed: Links, name: str, query: Query) -> int:
    return signed.verify(name, urlencode(query))


def test_static_links_carry_the_public_url() -> None:
    assert Links(load_settings()).build(NAME) == f"/static/output/{NAME}"
    public = Links(load_settings(public_url="https://cdn.example/x/"))
    assert public.build(NAME) == f"https://cdn.example/x/static/output/{NAME}"


def test_a_signed_link_verifies_until_its_second() -> None:
    clock = Clock()
    signed = links(clock)
    query = query_of(signed.build(NAME))
    assert verify(signed, NAME, query) == 60
    clock.now = NOW + 59.5
    assert verify(signed, NAME, query) == 0
    clock.now = NOW + 60
    with pytest.raises(LinkExpired):
        verify(signed, NAME, query)


def test_a_link_found_again_is_what_it_was() -> None:
    clock = Clock()
    signed = links(clock, expiry=MAX_LIFE_SECONDS)
    query = query_of(signed.build(NAME))
    assert [verify(signed, NAME, query) for _ in range(2)] == [MAX_LIFE_SECONDS] * 2
    clock.now = NOW - CLOCK_GRACE_SECONDS - 1
    with pytest.raises(BadSignature, match="7 days"):
        verify(signed, NAME, query)
    clock.now = NOW + MAX_LIFE_SECONDS
    for _ in range(2):
        with pytest.raises(LinkExpired):
            verify(signed, NAME, query)
        with pytest.raises(BadSignature):
            verify(signed, OTHER, query)
    clock.now = NOW + 1
    assert verify(signed, NAME, query) == MAX_LIFE_SECONDS - 1


def test_a_signature_belongs_to_one_name_and_one_expiry() -> None:
    signed = links(Clock())
    (_, expires), (_, signature) = query_of(signed.build(NAME))
    for name, changed in (
        (OTHER, [("expires", expires), ("signature", signature)]),
        (NAME, [("expires", str(int(expires) + 1)), ("signature", signature)]),
        (NAME, [("expires", expires), ("signature", "0" * 64)]),
    ):
        with pytest.raises(BadSignature):
            verify(signed, name, changed)


def test_every_changed_character_of_a_signature_is_refused() -> None:
    signed = links(Clock())
    (expires, (_, signature)) = query_of(signed.build(NAME))
    for place, character in enumerate(signature):
        changed = signature[:place] + ("0" if character != "0" else "1") + signature[place + 1 :]
        with pytest.raises(BadSignature):
            verify(signed, NAME, [expires, ("signature", changed)])


@pytest.mark.parametrize(
    "expires", ["", "0", "01", "+1", "1_0", " 1", "1.0", "nan", "inf", "1e9", "١٢٣", "9" * 5000, "-1", "1\n"]
)
def test_an_expiry_that_is_not_plain_digits_is_refused(expires: str) -> None:
    with pytest.raises(BadSignature):
        verify(links(Clock()), NAME, [("expires", expires), ("signature", "a" * 64)])


@pytest.mark.parametrize("signature", ["", "A" * 64, "a" * 63, "a" * 65, "é" * 64, "g" * 64])
def test_a_signature_that_is_not_64_hex_is_refused(signature: str) -> None:
    with pytest.raises(BadSignature):
        verify(links(Clock()), NAME, [("expires", "1700000001"), ("signature", signature)])


def test_exactly_two_parameters_each_once() -> None:
    signed = links(Clock())
    expires, signature = query_of(signed.build(NAME))
    for query in (
        [],
        [expires],
        [signature],
        [expires, signature, expires],
        [expires, signature, ("x", "1")],
        [expires, expires],
    ):
        with pytest.raises(BadSignature):
            verify(signed, NAME, query)


def test_a_life_beyond_seven_days_is_refused_though_well_signed() -> None:
    expires = int(NOW) + MAX_LIFE_SECONDS + CLOCK_GRACE_SECONDS + 1
    query = [("expires", str(expires)), ("signature", _sign(SECRET.encode(), NAME, expires))]
    with pytest.raises(BadSignature, match="7 days"):
        verify(links(Clock()), NAME, query)


def test_a_seven_day_link_of_a_machine_whose_clock_is_five_minutes_ahead_is_accepted() -> None:
    clock = Clock()
    signed = links(clock, expiry=MAX_LIFE_SECONDS)
    query = query_of(signed.build(NAME))
    clock.now = NOW - 300
    assert verify(signed, NAME, query) == MAX_LIFE_SECONDS + 300


def test_keys_rotate_the_first_signs_and_all_verify() -> None:
    clock = Clock()
    old = query_of(links(clock, OLD_SECRET).build(NAME))
    both = links(clock, f"{SECRET},{OLD_SECRET}")
    assert verify(both, NAME, old) == 60
    assert query_of(both.build(NAME)) == query_of(links(clock, SECRET).build(NAME))
    with pytest.raises(BadSignature):
        verify(links(clock, SECRET), NAME, old)
