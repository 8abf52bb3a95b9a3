"""What a request is known by elsewhere: its trace (W3C Trace Context, level 1) and its own id."""

from __future__ import annotations

import re

from ._message import Headers

TRACE, REQUEST = b"traceparent", b"x-request-id"
_FORMS = {
    # Version 00: trace id, parent id and flags; the two ids are not all zeros (section 3.2).
    TRACE: re.compile(rb"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"),
    REQUEST: re.compile(rb"[!-~]{1,128}"),
}
_NAMES = {TRACE: "traceparent", REQUEST: "request_id"}


def correlated(headers: Headers) -> dict[str, str]:
    """What a record tells of them; nothing of a header that is missing, odd or given twice."""
    given, told = dict(headers), {}
    for header, name in _NAMES.items():
        if header not in given:
            continue
        found = [value for one, value in headers if one == header]
        if len(found) == 1 and _FORMS[header].fullmatch(found[0]):
            told[name] = found[0].decode()
    return told
