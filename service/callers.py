"""Who asks: the caller that an API key stands for, and its limits."""

from contextvars import ContextVar
from dataclasses import dataclass

# What is shown in place of a name: for keys without one, and where no keys are set.
NAMELESS = "-"
# What the principal of a name begins with.
NAMED = "name:"
# The name of the caller's API key, for the log lines and metrics of its requests and of their background work.
KEY_NAME: ContextVar[str] = ContextVar("key_name", default=NAMELESS)


@dataclass(frozen=True, slots=True)
class Rate:
    """A token bucket: it holds `count` requests, and is filled again within `seconds`."""

    count: int
    seconds: int


@dataclass(frozen=True, slots=True)
class Limits:
    """None: no limit. `budget` is in nano-dollars for a UTC day, `max_variations` for one request."""

    rate: Rate | None = None
    budget: int | None = None
    max_variations: int | None = None

    def most_variations(self, of_service: int) -> int:
        """How many variations one request may have, where the service allows `of_service`."""
        return min(of_service, self.max_variations or of_service)


NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Caller:
    """The client that sent a request, identified by its API key.

    `principal` owns its requests, rate and budget: `name:<name>`, or a digest of a key without a name.

    `formerly` are the principals of its keys before they had a name, whose requests it also sees; with `sees_all` it
    sees those of all clients.
    """

    principal: str
    formerly: tuple[str, ...] = ()
    limits: Limits = NO_LIMITS
    sees_all: bool = False

    @property
    def name(self) -> str:
        """The name of its keys, for logs, metrics and answers."""
        return name_of(self.principal)

    @property
    def principals(self) -> tuple[str, ...]:
        return (self.principal, *self.formerly)

    @property
    def filter(self) -> tuple[str, ...] | None:
        """The principals whose requests it sees; None: all."""
        return None if self.sees_all else self.principals


def principal_of(name: str) -> str:
    return NAMED + name


def name_of(principal: str) -> str:
    """The name in a principal; NAMELESS if it has none."""
    return principal.removeprefix(NAMED) if principal.startswith(NAMED) else NAMELESS
