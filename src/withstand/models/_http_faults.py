"""What went wrong with a request to a served model, and what mends it."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from .._errors import one_line


class FaultError(Exception):
    """A request without an answer.

    again: it may be sent once more; wait: seconds, where the server asks for some; reached: rows
    may have left this machine.
    """

    def __init__(
        self,
        what: str,
        fix: str,
        *,
        again: bool = True,
        wait: float | None = None,
        reached: bool = True,
    ) -> None:
        super().__init__(what)
        self.what, self.fix, self.again, self.wait, self.reached = what, fix, again, wait, reached


def retry_after(value: str | None) -> float | None:
    """Seconds to wait, from a number of them or an HTTP date; None if it tells neither."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max(0.0, (at - datetime.now(UTC)).total_seconds())


def said(text: str) -> str:
    """The body of an error on one line: out of its JSON, and of a traceback the error itself."""
    with suppress(ValueError, RecursionError):
        content = json.loads(text)
        found = (
            (content.get(key) for key in ("error", "detail")) if isinstance(content, dict) else ()
        )
        text = next((word for word in found if isinstance(word, str)), text)
    if "Traceback (most recent call last)" in text:
        text = text.rstrip().rpartition("\n")[2]
    return one_line(text)


def fix(status: int, *, format: str, answered: bool, headers: bool) -> str:
    """What to do about a status; answered: whether the server has ever given an answer.

    headers: whether any are set.
    """
    if status in (401, 403) and headers:
        return "correct model.http.headers, or the environment variables that they name"
    if status in (401, 403):
        return "set model.http.headers, e.g. {Authorization: $NAME}"
    if status in (404, 405) or 300 <= status < 400:
        return "correct model.url, model.http.name or format"
    # MLServer reads the tensors as JSON, and fails in more than one way.
    unread = format == "v2-binary" and not answered
    plain = ", or set model.http.format: v2 if it takes no binary tensors" if unread else ""
    if status < 500:
        return (
            "correct model.http.format, input, datatype or request to what the server takes" + plain
        )
    return "look into the server's log" + plain


def cause(error: Any) -> str:
    """What the system said, without the address that is told already."""
    found = getattr(error, "certificate_error", None) or getattr(error, "os_error", error)
    return getattr(found, "verify_message", None) or getattr(found, "strerror", None) or str(found)
