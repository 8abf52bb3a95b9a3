"""The address of a server."""

from __future__ import annotations

import ipaddress
import re
import socket
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BeforeValidator, WithJsonSchema


def without_secrets(text: str) -> str:
    """Text whose addresses tell no user, no password and no query."""
    text = re.sub(r"//[^\s'\"]*@", "//…@", text)
    return re.sub(r"(//[^\s'\"?]*)\?[^\s'\"]*", r"\1?…", text)


def _link_local(host: str) -> bool:
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        try:
            # What is no plain address is one to the system all the same, such as 0xa9fea9fe.
            found = ipaddress.ip_address(socket.inet_aton(host))
        except (OSError, ValueError):
            return False
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return (mapped or found).is_link_local


def _url(value: object) -> str:
    parts = urlsplit(value) if isinstance(value, str) else None
    try:
        sound = parts is not None and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound or parts is None or parts.scheme not in ("http", "https"):
        raise ValueError("give a server's address, such as http://127.0.0.1:8080")
    if parts.username or parts.query or parts.fragment or parts.path not in ("", "/"):
        raise ValueError("give only scheme, host and port, such as http://127.0.0.1:8080")
    if _link_local(parts.hostname or ""):
        raise ValueError(
            "link-local addresses are a cloud's metadata; give another, such as "
            "http://127.0.0.1:8080"
        )
    return f"{parts.scheme}://{parts.netloc}"


Url = Annotated[
    str, BeforeValidator(_url), WithJsonSchema({"type": "string", "pattern": "^https?://"})
]
