"""The trace that a request is part of (W3C Trace Context, level 1)."""

from __future__ import annotations

import re

from ._message import Headers

NAME = b"traceparent"
# Version 00: trace id, parent id and flags; the two ids are not all zeros (section 3.2).
_FORM = re.compile(rb"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def traced(headers: Headers) -> dict[str, str]:
    """What a record tells of it; nothing of a header that is missing, odd or given twice."""
    if NAME not in dict(headers):
        return {}
    found = [value for name, value in headers if name == NAME]
    if len(found) > 1 or not _FORM.fullmatch(found[0]):
        return {}
    return {"traceparent": found[0].decode()}
