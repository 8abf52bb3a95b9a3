"""The server that an address names."""

from __future__ import annotations

import re
import ssl
from pathlib import Path
from urllib.parse import urlsplit

from ..._errors import ConfigError, one_line
from ._pool import HttpPool, Patience

_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[a-z0-9._-]+|[0-9a-f:.]+")


def upstream_of(
    url: str,
    patience: Patience | None = None,
    *,
    ca: str | Path | None = None,
    certificate: str | Path | None = None,
) -> HttpPool:
    """A pool of connections to the server at http://host:port or https://host:port.

    ca: a PEM file with the authorities that are trusted instead of the system's; certificate: a PEM
    file with what we show, and its key. Nobody but this host is ever asked: no redirect is followed
    and no proxy of the environment is used. Raises ConfigError for another address, and for files
    that cannot be used.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        bare = parts.path in ("", "/") and not parts.query and not parts.fragment
    except ValueError:
        host, port, bare = "", None, False
    if "@" in url:
        # Not told: it may hold a password.
        raise ConfigError("upstream holds a user or a password; write http://host:port without it")
    if not _HOST.fullmatch(host) or not bare or parts.scheme not in _PORTS or port == 0:
        raise ConfigError(
            f"upstream is {one_line(url, 80)!r}; write http:// or https://, a host and perhaps a "
            "port, without a path, e.g. http://localhost:8000"
        )
    if parts.scheme == "http" and (ca or certificate):
        raise ConfigError(f"upstream {url} takes no ca or certificate; write https:// to use them")
    tls = _trusting(ca, certificate) if parts.scheme == "https" else None
    return HttpPool(host, port or _PORTS[parts.scheme], patience=patience, tls=tls)


def _trusting(ca: str | Path | None, certificate: str | Path | None) -> ssl.SSLContext:
    key, path = "ca", ca
    try:
        context = ssl.create_default_context(cafile=ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if certificate is not None:
            key, path = "certificate", certificate
            # Else a key under a password would be asked for at the terminal.
            context.load_cert_chain(certificate, password=lambda: "")
    except OSError as error:
        # Those of ssl are among them.
        why = "no such PEM" if isinstance(error, ssl.SSLError) else error.strerror
        raise ConfigError(
            f"upstream {key} {path} cannot be used ({why}); give a PEM file"
        ) from None
    return context
