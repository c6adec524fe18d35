"""The cost of a call by its usage metadata and the published rates, in whole nano-dollars (1e-9 USD)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from service.gemini import models

NANO = 1_000_000_000
_MICRO = 1000


@dataclass(frozen=True, slots=True)
class Rates:
    """Nano-dollars a token: of the prompt, of text and thought that came, of pictures that came."""

    prompt: int
    text: int
    image: int


# ai.google.dev/gemini-api/docs/pricing, November 2026: USD per million tokens are thousands of nano-dollars a token.
RATES: Mapping[str, Rates] = {
    "gemini-nano-banana-2.1": Rates(1_500, 7_500, 30_000),
    "gemini-3.1-flash-lite-image": Rates(250, 1_500, 30_000),
    "gemini-3-pro-image": Rates(2_000, 12_000, 120_000),
}


def list_price(model: str, image_size: str) -> int | None:
    """The list price of one picture; None where the table of models does not know."""
    price = models.price(model, image_size)
    return None if price is None else round(price * NANO)


def cost(model: str, usage: Mapping[str, Any] | None) -> int | None:
    """The cost of a call with this `usageMetadata`; None if the rates or the counts are unknown."""
    rates = RATES.get(model)
    if rates is None or not usage:
        return None
    prompt, candidates = _count(usage, "promptTokenCount"), _count(usage, "candidatesTokenCount")
    thoughts, image = _count(usage, "thoughtsTokenCount"), _image_tokens(usage)
    pictures = candidates if image is None else image
    text = max(candidates - pictures, 0) + thoughts
    return prompt * rates.prompt + text * rates.text + pictures * rates.image


def usd(nano: int) -> float:
    """As answers show it: rounded half up to whole micro-dollars."""
    return (nano + _MICRO // 2) // _MICRO / 1_000_000


@dataclass(frozen=True, slots=True)
class Pricing:
    """The prices of one model and size, in nano-dollars; the emulator's pictures cost nothing."""

    model: str
    image_size: str
    emulated: bool = False

    @property
    def list_price(self) -> int | None:
        """Of one picture; None for a model outside the table."""
        return 0 if self.emulated else list_price(self.model, self.image_size)

    def cost(self, usage: Mapping[str, Any] | None) -> tuple[int | None, bool]:
        """The cost of a call, and whether that is an estimate: without usage it is the list price."""
        counted = 0 if self.emulated else cost(self.model, usage)
        return (counted, False) if counted is not None else (self.list_price, self.list_price is not None)


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of one or more calls, by what they stand for; thoughts are text that came."""

    prompt_text: int = 0
    prompt_image: int = 0
    text: int = 0
    image: int = 0

    def __add__(self, other: "Tokens") -> "Tokens":
        return Tokens(
            self.prompt_text + other.prompt_text,
            self.prompt_image + other.prompt_image,
            self.text + other.text,
            self.image + other.image,
        )


def tokens(usage: Mapping[str, Any] | None) -> Tokens | None:
    """The tokens of a call with this `usageMetadata`; None if it tells none."""
    if not usage:
        return None
    prompt, candidates = _count(usage, "promptTokenCount"), _count(usage, "candidatesTokenCount")
    thoughts = _count(usage, "thoughtsTokenCount")
    if not (prompt or candidates or thoughts):
        return None
    references = min(_modality(usage, "promptTokensDetails", "IMAGE") or 0, prompt)
    image = _image_tokens(usage)
    pictures = candidates if image is None else image
    return Tokens(prompt - references, references, max(candidates - pictures, 0) + thoughts, pictures)


def _image_tokens(usage: Mapping[str, Any]) -> int | None:
    """The tokens of pictures; None if the usage does not tell them from others."""
    return _modality(usage, "candidatesTokensDetails", "IMAGE")


def _modality(usage: Mapping[str, Any], name: str, modality: str) -> int | None:
    """The tokens of one modality in a list of details; None without such a list."""
    details = _member(usage, name)
    if not isinstance(details, list) or not details:
        return None
    return sum(
        _count(each, "tokenCount") for each in details if isinstance(each, dict) and each.get("modality") == modality
    )


def _count(usage: Mapping[str, Any], name: str) -> int:
    """A count of tokens, which may also come as its digits; 0 for anything else."""
    value = _member(usage, name)
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 18:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0


def _member(usage: Mapping[str, Any], name: str) -> Any:
    """A member in camel case, as Gemini spells it, or in snake case, as some proxies do."""
    snake = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
    return usage.get(name, usage.get(snake))
