"""Sending to an address of the configuration, and to no other."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from urllib.parse import urlsplit

from ..._errors import OperationError

_SECONDS = 10.0
_METADATA = ("100.100.100.200", "fd00:ec2::254", "168.63.129.16")


_UNFIT = (400, 413, 422)


class UnfitError(OperationError):
    """The receiver is there, and does not take this message."""


def post(
    url: str, body: bytes, headers: dict[str, str], *, ca: Path | None = None,
    seconds: float = _SECONDS,
) -> None:  # fmt: skip
    """POST to a URL; raises OperationError, without the URL's path, where it was not taken.

    Redirects are answers like others: not taken. The address that was checked is the one that is
    connected to, whatever the name leads to a moment later.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    name = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    port = parts.port or (443 if parts.scheme == "https" else 80)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        connection = HTTPConnection(host, port, timeout=seconds)
        with closing(connection):
            connection.sock = _connected(host, port, seconds)
            if parts.scheme == "https":
                connection.sock = trusted(ca).wrap_socket(connection.sock, server_hostname=host)
            shown = f"[{host}]" if ":" in host else host
            standard = port == (443 if parts.scheme == "https" else 80)
            told = {"Host": shown if standard else f"{shown}:{port}", **headers}
            with _at_most(seconds, connection.sock):
                connection.request("POST", target, body, told)
                answer = connection.getresponse()
                answer.read(65_536)
    except (OSError, HTTPException, UnicodeError) as error:  # The last of names that are none.
        why = getattr(error, "strerror", None) or type(error).__name__
        raise OperationError(f"{name} was not reached ({why}); see that it runs") from None
    if not 200 <= answer.status < 300:
        kind = UnfitError if answer.status in _UNFIT else OperationError
        raise kind(f"{name} answered with status {answer.status}; see its log")


def trusted(ca: Path | None) -> ssl.SSLContext:
    """For a server whose authorities are in a file, or known to the system; raises OSError."""
    context = ssl.create_default_context(cafile=None if ca is None else str(ca))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def refused(address: str) -> bool:
    """Whether nothing is ever sent to an IP address: link-local ones, and a cloud's metadata."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return (
        found.is_link_local or found.is_multicast or found.is_unspecified
        or str(found) in _METADATA
    )  # fmt: skip


@contextmanager
def _at_most(seconds: float, connection: socket.socket) -> Iterator[None]:
    """Raises TimeoutError after a time; the connection's own limit begins anew with each byte."""
    over = threading.Event()

    def cut() -> None:
        over.set()
        with suppress(OSError):
            # Not that of TLS, which would take its state from whoever is reading.
            socket.socket.shutdown(connection, socket.SHUT_RDWR)

    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        if over.is_set():
            # Half an answer may look like a whole one.
            raise TimeoutError


def _connected(host: str, port: int, seconds: float) -> socket.socket:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    last: OSError = OSError("no address")
    for family, kind, protocol, _, address in found:
        if refused(str(address[0])):
            raise OperationError(
                f"{host} leads to {address[0]}, where alerts are never sent; give the "
                "receiver's own address"
            )
        made = socket.socket(family, kind, protocol)
        made.settimeout(seconds)
        try:
            made.connect(address)
            return made
        except OSError as error:
            made.close()
            last = error
    raise last
