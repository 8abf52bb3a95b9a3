"""What is permitted: who, what, how, when, how much, and when it must end."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from .._errors import ConfigError, OperationError, did_you_mean, listed, one_line
from ..config import read_yaml

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_CLOCK = re.compile(r"([01]\d|2[0-3]):[0-5]\d|24:00")
_WORD = {"extra_forbidden": "is not known", "missing": "is missing"}


def _clock(value: object) -> str:
    if not isinstance(value, str) or not _CLOCK.fullmatch(value):
        raise ValueError("give hours and minutes in quotes, such as '22:30'")
    return value


Clock = Annotated[str, BeforeValidator(_clock)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Window(_Part):
    """Hours of some days, in UTC; those that end before they begin go on over midnight."""

    days: tuple[Day, ...] = DAYS
    begin: Clock = "00:00"
    end: Clock = "24:00"

    def holds(self, now: datetime) -> bool:
        """Whether a time lies within."""
        clock, today = now.strftime("%H:%M"), DAYS[now.weekday()]
        if self.begin < self.end:
            return today in self.days and self.begin <= clock < self.end
        yesterday = DAYS[now.weekday() - 1]
        late, early = clock >= self.begin, clock < self.end
        return (late and today in self.days) or (early and yesterday in self.days)


class Permitted(_Part):
    """An address, scheme, host and port, and which of its models."""

    url: str = Field(pattern=r"^https?://[^/?#@]+$")
    models: tuple[str, ...] = Field(min_length=1)


class Region(_Part):
    """How far an input may be changed."""

    norm: Literal["linf", "l2", "l1", "l0"]
    eps: float = Field(gt=0, allow_inf_nan=False)


class Caps(_Part):
    """The most queries in all, on one input, and in a second; restarts begin no new count."""

    queries: int = Field(gt=0)
    per_input: int = Field(gt=0)
    per_second: float = Field(gt=0, allow_inf_nan=False)


class Safety(_Part):
    """What ends a campaign because users feel it.

    errors: share of the guard's requests with a status of 5xx since the last look. added: seconds
    that the guard adds on average. lag: seconds that its loop is late. answer: seconds of our own
    last answers on average. failures: of our own queries one after the other. guard: whether there
    is to be a guard that tells its figures; without one only our own queries tell.
    """

    errors: float = Field(default=0.02, ge=0, le=1)
    added: float = Field(default=0.25, gt=0)
    lag: float = Field(default=0.5, gt=0)
    answer: float = Field(default=2.0, gt=0)
    failures: int = Field(default=3, gt=0)
    guard: bool = True


class Scope(_Part):
    """A permission. Times are in UTC; key is the id of the API key that the red team asks with.

    surprise: the queries carry no pass, so that nobody on duty knows what they are.
    """

    name: str = Field(pattern=r"^[a-z0-9-]{1,32}$")
    who: str = Field(min_length=1, max_length=200)
    environment: Literal["staging", "production"]
    key: str = Field(pattern=r"^(open|[0-9a-f]{64})$")
    targets: tuple[Permitted, ...] = Field(min_length=1)
    attacks: tuple[str, ...] = Field(min_length=1)
    regions: tuple[Region, ...] = Field(min_length=1)
    begins: AwareDatetime
    expires: AwareDatetime
    windows: tuple[Window, ...] = (Window(),)
    caps: Caps
    safety: Safety = Safety()
    surprise: bool = False

    @model_validator(mode="after")
    def _fits(self) -> Scope:
        if self.begins >= self.expires:
            raise ValueError("begins is not before expires")
        if self.environment == "production" and not self.safety.guard:
            raise ValueError("safety.guard is false; in production a guard must tell its figures")
        if self.environment == "production" and self.surprise:
            raise ValueError("surprise is for staging")
        return self

    def closed(self, now: float) -> str:
        """Why nothing may be sent at a time (seconds since 1970), empty where it may."""
        at = datetime.fromtimestamp(now, UTC)
        if at >= self.expires:
            return f"the scope expired at {self.expires:%Y-%m-%d %H:%M} UTC; have a new one signed"
        if at < self.begins:
            return f"the scope begins at {self.begins:%Y-%m-%d %H:%M} UTC; wait"
        if not any(window.holds(at) for window in self.windows):
            told = listed(f"{' '.join(one.days)} {one.begin}-{one.end}" for one in self.windows)
            return f"it is {DAYS[at.weekday()]} {at:%H:%M} UTC, outside the windows {told}; wait"
        return ""

    def allows(self, url: str, model: str) -> bool:
        """Whether an address and a model of it are permitted."""
        return any(one.url == url and model in one.models for one in self.targets)

    def reaches(self, norm: str, eps: float) -> bool:
        """Whether a region is permitted."""
        return any(one.norm == norm and eps <= one.eps for one in self.regions)


def parse_scope(content: bytes, where: str) -> Scope:
    """The scope in a file's bytes; raises OperationError with the key and the fix."""
    try:
        # A key that is there twice is refused: who signs may see another one than who reads.
        told = read_yaml(content.decode())
    except UnicodeDecodeError as error:
        raise OperationError(f"scope {where}: not UTF-8 ({one_line(error)}); save it so") from None
    except ConfigError as error:
        raise OperationError(f"scope {where}: {error}") from None
    if not isinstance(told, dict):
        raise OperationError(f"scope {where}: it is no mapping; write the keys name, who, targets")
    try:
        return Scope.model_validate(told)
    except ValidationError as error:
        raise OperationError(f"scope {where}: {_told(error)}") from None


def read_bytes(path: Path) -> bytes:
    """A file of a scope; raises OperationError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise OperationError(
            f"{path} cannot be read ({error.strerror}); see `withstand redteam --help`"
        ) from None


def _told(error: ValidationError) -> str:
    problems = sorted(error.errors(include_url=False), key=lambda one: one["type"] not in _WORD)
    first = problems[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] in _WORD:
        hint = did_you_mean(first["loc"][-1], Scope.model_fields) if len(first["loc"]) == 1 else ""
        told = hint or f"; the keys of a scope are {listed(Scope.model_fields, 20)}"
        return f"key {key!r} {_WORD[first['type']]}{told}"
    message = first["msg"].removeprefix("Value error, ")
    return one_line(f"{key} is {first['input']!r}; {message}" if key else message, 300)
