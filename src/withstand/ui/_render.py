"""Pages from templates; all that is shown is escaped."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ..stats import Interval
from ._menu import MENU
from ._web import at

_NOTHING = "\N{EN DASH}"
_SPANS = ((86_400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))


def draw(template: str, **values: Any) -> str:
    """A page of one of the templates."""
    return _environment().get_template(template).render(**values, menu=MENU)


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("withstand.ui", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
        finalize=_finalize,
    )
    made.filters |= {
        "when": when, "ago": ago, "span": span, "share": share, "figure": figure, "plain": plain,
        "short": short,
    }  # fmt: skip
    made.globals |= {"at": at}
    return made


def _finalize(value: Any) -> Any:
    # Only plain text: what is marked up already holds nothing but what passed here before.
    return plain(value) if type(value) is str else value


def plain(text: object) -> str:
    """Text with what could hide or reorder it shown as code points."""
    return "".join(
        one
        if one.isprintable() or one in "\n\t\N{NO-BREAK SPACE}"
        else f"\N{LEFT WHITE SQUARE BRACKET}U+{ord(one):04X}\N{RIGHT WHITE SQUARE BRACKET}"
        for one in str(text)
    )


def when(wall: float | None) -> Markup | str:
    """A moment in UTC."""
    if not wall:
        return _NOTHING
    try:
        moment = datetime.fromtimestamp(wall, UTC)
    except (OverflowError, ValueError, OSError):
        return _NOTHING
    form = "%d %b %H:%M:%S" if time.time() - wall < 300 * 86_400 else "%d %b %Y"
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        moment.isoformat(timespec="seconds"), f"{moment:%Y-%m-%d %H:%M:%S} UTC", f"{moment:{form}}"
    )


def ago(wall: float | None) -> str:
    """How long ago a moment is, or how far ahead."""
    if not wall:
        return _NOTHING
    gap = time.time() - wall
    return f"{span(gap)} ago" if gap >= 0 else f"in {span(-gap)}"


def span(seconds: float | None) -> str:
    """A span of time in its largest unit."""
    if seconds is None:
        return _NOTHING
    size = abs(seconds)
    for length, name in _SPANS:
        if size >= 2 * length or name == "s":
            value = size / length
            return f"{value:.1f} {name}" if name == "s" and value < 10 else f"{value:.0f} {name}"
    raise AssertionError


def share(value: float | Interval | None) -> str:
    """A share in percent, with its interval where it has one."""
    if isinstance(value, Interval):
        if value.n == 0:
            return "no data"
        ends = f"[{100 * value.low:.1f},\N{NO-BREAK SPACE}{100 * value.high:.1f}]"
        return f"{share(value.value)} {ends}"
    if value is None or value != value:
        return "no data"
    return f"{100 * value:.1f}\N{NO-BREAK SPACE}%"


def figure(value: Any) -> str:
    """A number in a few digits."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return _NOTHING if value is None else str(value)
    if isinstance(value, int) or (value == int(value) if abs(value) < 1e15 else False):
        return f"{int(value):,}"
    return f"{value:.3g}"


def short(text: object, most: int = 16) -> str:
    """The beginning of a long id."""
    told = str(text)
    return told if len(told) <= most else told[:most] + "…"
