"""What pages are asked and what they answer."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

from .access import Account, Role, Session

_NAMED = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, kw_only=True)
class Ask:
    """A request of somebody who is logged in; form: of a POST. Each name once, the last one."""

    session: Session
    path: dict[str, str] = field(default_factory=dict)
    query: dict[str, str] = field(default_factory=dict)
    form: dict[str, str] = field(default_factory=dict)

    @property
    def account(self) -> Account:
        """Who asks."""
        return self.session.account


class Page(NamedTuple):
    """A page to be drawn: its template, its title and what it shows."""

    template: str
    title: str
    values: dict[str, Any]


class Content(NamedTuple):
    """What is handed out as it is, such as a picture."""

    kind: str
    body: bytes
    name: str = ""


class Done(NamedTuple):
    """What has come of an action, in words, and where to go then."""

    text: str
    to: str


class MissingError(Exception):
    """There is nothing at this address; said in words."""


@dataclass(frozen=True, kw_only=True)
class Route:
    """An address, what it takes to ask there, and who answers.

    path: with {names} for single parts. action: of a POST, as the audit log calls it. about: what
    it is done to, with {names} of the form or the path. hidden: names of the form that no log may
    have.
    """

    path: str
    answer: Callable[[Any, Ask], Page | Content | Done]
    role: Role = "viewer"
    action: str = ""
    about: str = ""
    hidden: tuple[str, ...] = ()

    @property
    def method(self) -> str:
        """POST where it does something, else GET."""
        return "POST" if self.action else "GET"

    def match(self, path: str) -> dict[str, str] | None:
        """What stands for the names in a path as it was written, None where it is another."""
        wanted, given = self.path.split("/"), path.split("/")
        if len(wanted) != len(given):
            return None
        found: dict[str, str] = {}
        for one, part in zip(wanted, given, strict=True):
            named = _NAMED.fullmatch(one)
            if named is not None and part:
                found[named[1]] = unquote(part, errors="replace")
            elif one != part:
                return None
        return found

    def subject(self, ask: Ask) -> str:
        """What an action is done to, for the audit log."""
        told = {**ask.form, **ask.path}
        return _NAMED.sub(lambda one: told.get(one[1], "")[:200], self.about).strip()


def at(*parts: object) -> str:
    """An address of these parts, whatever is in them."""
    return "/" + "/".join(quote(str(part), safe="") for part in parts)
