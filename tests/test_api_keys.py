"""The syntax of API keys and their options, and who the caller of each key is."""

import re

import pytest

from service.api_keys import MAX_KEYS, callers_of, digest_of, parse_file, parse_list
from service.callers import Caller, Limits, Rate

ONE, TWO, THREE = "one-0123456789abcdef", "two-0123456789abcdef", "three-0123456789abcdef"


def principal(key: str) -> str:
    return digest_of(key.encode()).hex()[:32]


def caller(text: str, key: str = ONE) -> Caller:
    return callers_of(parse_file(text))[digest_of(key.encode())]


def test_a_key_without_a_name_is_a_principal_of_its_own_and_shown_as_a_dash() -> None:
    [found] = callers_of(parse_list([ONE])).values()
    assert found == Caller(principal(ONE))
    assert found.name == "-"


@pytest.mark.parametrize("name", ["a", "app-2", "-", "0", "a" * 32])
def test_the_text_before_the_colon_is_the_name(name: str) -> None:
    [found] = callers_of(parse_list([f"{name}:{ONE}"])).values()
    assert (found.principal, found.name, found.formerly) == (f"name:{name}", name, (principal(ONE),))


def test_keys_of_one_name_are_one_caller_who_was_each_of_them_before() -> None:
    callers = callers_of([*parse_list([f"app:{ONE}", TWO]), *parse_file(f"app:{THREE} rate=2/s")])
    first, second, third = callers.values()
    assert len(callers) == 3
    assert {first.principal, second.principal, third.principal} == {"name:app", principal(TWO)}
    assert callers[digest_of(ONE.encode())] == callers[digest_of(THREE.encode())]
    named = callers[digest_of(ONE.encode())]
    assert named == Caller("name:app", (principal(ONE), principal(THREE)), Limits(rate=Rate(2, 1)))


def test_a_line_has_options_after_white_space() -> None:
    every = Limits(Rate(60, 60), 5_000_000_000, 4)
    assert caller(f"app:{ONE}\t rate=60/min  budget=5.00 max_variations=4\r\n").limits == every
    assert caller(f"{ONE} max_variations=64").limits == Limits(max_variations=64)


@pytest.mark.parametrize(("text", "rate"), [("1/s", Rate(1, 1)), ("1000000/h", Rate(1_000_000, 3600))])
def test_a_rate_is_a_number_for_each_second_minute_or_hour(text: str, rate: Rate) -> None:
    assert caller(f"{ONE} rate={text}").limits.rate == rate


@pytest.mark.parametrize(("text", "nano"), [("0.000001", 1_000), ("5", 5_000_000_000), ("1000000", 10**15)])
def test_a_budget_is_in_us_dollars(text: str, nano: int) -> None:
    assert caller(f"{ONE} budget={text}").limits.budget == nano


def test_comments_empty_lines_and_a_byte_order_of_lines_do_not_matter() -> None:
    text = f"# the app\n\n  {ONE} rate=1/s # burst:none\n#{TWO}\n \t\nother:#{THREE}\r\n"
    keys = parse_file(text)
    assert [key.digest for key in keys] == [digest_of(ONE.encode()), digest_of(f"#{THREE}".encode())]


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("short", "at least 16 characters"),
        ("app:short", "at least 16 characters"),
        (f"App:{ONE}", "no colon"),
        (f"a_b:{ONE}", "no colon"),
        (f":{ONE}", "no colon"),
        (f"{'a' * 33}:{ONE}", "no colon"),
        (f"app:{ONE}:{TWO}", "no colon"),
        (f"app:{ONE} {TWO}", "white space"),
        (f"{ONE}\u00a0{TWO}", "white space"),
        (f"{ONE}\0", "control"),
        (f"{ONE},{TWO}", "comma"),
    ],
)
def test_what_is_no_key_is_refused_and_never_shown(entry: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        parse_list([THREE, entry])
    assert str(caught.value).startswith("key 2 of API_KEYS: ")
    assert not [word for word in (ONE, TWO, "short") if word in str(caught.value)]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("rate=0/s", "1 to 1000000"),
        ("rate=1000001/s", "1 to 1000000"),
        ("rate=01/s", "60/min"),
        ("rate=60", "60/min"),
        ("rate=60/m", "60/min"),
        ("rate=60/day", "60/min"),
        ("rate=1.5/s", "60/min"),
        ("rate=-1/s", "60/min"),
        ("rate=\u0661/s", "60/min"),
        ("rate=", "60/min"),
        ("rate", "60/min"),
        ("budget=0", "more than 0"),
        ("budget=0.0000001", "6 decimals"),
        ("budget=1e3", "5.00"),
        ("budget=nan", "5.00"),
        ("budget=1000000.01", "1000000"),
        ("budget=$5", "5.00"),
        ("max_variations=0", "1 to 64"),
        ("max_variations=65", "1 to 64"),
        ("max_variations=four", "1 to 64"),
        ("rate=1/s rate=1/s", "each once"),
        ("Rate=1/s", "each once"),
        ("limit=3", "each once"),
        (TWO, "each once"),
    ],
)
def test_an_option_that_is_not_allowed_names_its_line_and_what_is(options: str, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)) as caught:
        parse_file(f"# keys\n{ONE} {options}\n")
    assert str(caught.value).startswith("line 2: ")
    assert not [word for word in (ONE, TWO) if word in str(caught.value)]


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "\ufeff"])
def test_a_file_without_a_key_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no key|no colon|at least"):
        parse_file(text)


@pytest.mark.parametrize("second", [ONE, f"other:{ONE}", f"app:{ONE}"])
def test_one_key_twice_or_under_two_names_is_refused(second: str) -> None:
    for first in (ONE, f"app:{ONE}"):
        with pytest.raises(ValueError, match=r"^key 1 of API_KEYS and line 2 are the same key$"):
            callers_of([*parse_list([first]), *parse_file(f"{TWO}\n{second}")])


def test_options_of_one_name_may_stand_on_any_of_its_lines_but_not_differ() -> None:
    lines = f"app:{ONE} rate=1/s budget=5\napp:{TWO} budget=5.00\n"
    assert caller(f"{lines}app:{THREE} max_variations=2", TWO).limits == Limits(Rate(1, 1), 5_000_000_000, 2)
    with pytest.raises(ValueError, match=r"^line 3: another line of the same name has another budget$"):
        caller(f"{lines}app:{THREE} budget=6")


def test_there_is_a_limit_for_the_number_of_keys() -> None:
    with pytest.raises(ValueError, match="more than 10000 keys"):
        callers_of(parse_list([f"key-number-{number:016}" for number in range(MAX_KEYS + 1)]))
