"""Telling receivers what they are due, each for itself."""

from __future__ import annotations

import logging
import os
import random
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ..._errors import ConfigError, WithstandError
from ...config import ReceiverConfig
from ..store import Alert, Store
from ._messages import alertmanager_body, signature, webhook_body
from ._outbox import Message, Outbox
from ._post import UnfitError, post, trusted

_log = logging.getLogger("withstand.monitor")
_FIRST, _LONGEST = 1.0, 300.0


@dataclass(kw_only=True)
class _Standing:
    """How often a receiver has failed since it last answered, and when it is asked again."""

    failures: int = 0
    again: float = 0.0
    error: str = ""


class Receivers:
    """The receivers of a configuration, which are told what the outbox has for them.

    One that does not answer is asked again after a while that doubles up to five minutes, give or
    take a half, and holds up nobody else. Raises ConfigError where a secret is not there.
    """

    def __init__(
        self, store: Store, config: Mapping[str, ReceiverConfig], folder: Path, *,
        clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self._outbox, self._config, self._folder, self._clock = Outbox(store), config, folder, clock
        self._standing = {name: _Standing() for name in config}
        sound(config, folder)

    @property
    def errors(self) -> dict[str, str]:
        """Why receivers were not reached when they were asked last."""
        return {name: one.error for name, one in self._standing.items() if one.error}

    def put(
        self, alerts: list[Alert], now: float, *,
        silenced: Callable[[Alert], bool] = lambda alert: False,
    ) -> None:  # fmt: skip
        """Note what receivers must be told; nothing of alerts that an experiment explains.

        silenced: of these, and of those too mild for them, they are told the end alone, where they
        know of the beginning.
        """
        for name, told in self._config.items():
            wanted: list[Alert] = []
            quiet: list[Alert] = []
            for one in alerts:
                if not one.suppressed:
                    due = told.least == "ticket" or one.severity == "page"
                    (wanted if due and not silenced(one) else quiet).append(one)
            self._outbox.put(name, wanted, now)
            self._outbox.end(name, quiet, now)

    def deliver(self) -> int:
        """Tell every receiver what it is due, one after another; how many messages were taken."""
        return sum(self.tell(name) for name in self._config)

    def tell(self, name: str) -> int:
        """Tell one receiver, unless it has failed just now; how many messages it has taken."""
        told, standing, now = self._config[name], self._standing[name], self._clock()
        if now < standing.again <= now + 2 * _LONGEST:
            return 0
        due = self._outbox.due(name, now, again=told.alertmanager is not None)
        groups = [due] if told.alertmanager is not None and due else [[one] for one in due]
        taken, failed = 0, ""
        while groups:
            group = groups.pop(0)
            try:
                self._send(name, told, group, now)
            except WithstandError as error:  # Its secret may be gone for a moment, too.
                middle = len(group) // 2
                if middle and isinstance(error, UnfitError):
                    # One message that it never takes holds up none that came with it.
                    groups[:0] = [group[:middle], group[middle:]]
                    continue
                failed = str(error)
                self._outbox.later(group, now)
                if not (groups and isinstance(error, UnfitError) and told.alertmanager):
                    break
            else:
                self._outbox.done(group, now)
                taken += len(group)
        if failed:
            standing.failures += 1
            pause = min(_LONGEST, _FIRST * 2 ** min(standing.failures - 1, 20))
            standing.again = self._clock() + pause * random.uniform(0.5, 1.5)
            if standing.error != failed:
                _log.warning("receiver %s: %s", name, failed)
            standing.error = failed
        elif taken:
            standing.failures, standing.again, standing.error = 0, 0.0, ""
        return taken

    def run(self, stop: threading.Event, *, every: float = 1.0) -> list[threading.Thread]:
        """Tell each receiver from a thread of its own until it is stopped."""

        def go_on(name: str) -> None:
            while not stop.wait(every):
                try:
                    self.tell(name)
                except WithstandError as error:
                    _log.error("receiver %s: %s", name, error)

        threads = [
            threading.Thread(target=go_on, args=(name,), name=f"receiver-{name}", daemon=True)
            for name in self._config
        ]
        for one in threads:
            one.start()
        return threads

    def _send(self, name: str, told: ReceiverConfig, group: list[Message], now: float) -> None:
        ca = None if told.ca is None else self._folder / told.ca
        headers = {"Content-Type": "application/json"}
        if told.alertmanager is not None:
            body = alertmanager_body(group, now)
            post(f"{told.alertmanager}/api/v2/alerts", body, headers, ca=ca)
            return
        body = webhook_body(name, group[0])
        headers["Idempotency-Key"] = group[0].key
        secret = _secret(name, told, self._folder)
        if secret is not None:
            headers["X-Withstand-Timestamp"] = str(int(now))
            headers["X-Withstand-Signature"] = f"sha256={signature(secret, int(now), body)}"
        post(_url(name, told), body, headers, ca=ca)


def sound(config: Mapping[str, ReceiverConfig], folder: Path) -> None:
    """Raises ConfigError where a receiver's secret or ca is not there, or its address is none."""
    for name, told in config.items():
        _secret(name, told, folder)
        _url(name, told)
        try:
            if told.ca is not None:
                trusted(folder / told.ca)
        except OSError as error:
            raise ConfigError(
                f"monitor.receivers.{name}.ca: {told.ca} holds no certificates "
                f"({error.strerror}); give a PEM file of the authorities"
            ) from None


def _url(name: str, told: ReceiverConfig) -> str:
    """Where to, with the environment's variables filled in; raises ConfigError."""

    def value(match: re.Match[str]) -> str:
        found = os.environ.get(match[1] or match[2], "")
        if not found or not found.isprintable() or " " in found:
            raise ConfigError(
                f"monitor.receivers.{name}.webhook needs the environment variable "
                f"{match[1] or match[2]}, which is not set or no part of a URL; export it"
            )
        return found

    url = re.sub(r"\$(?:(\w+)|\{(\w+)\})", value, told.webhook or told.alertmanager or "")
    try:
        parts = urlsplit(url)
        sound = bool(parts.hostname) and parts.port != 0 and parts.username is None
    except ValueError:
        sound = False
    if not sound or not url.isascii():
        raise ConfigError(
            f"monitor.receivers.{name}.webhook is no URL, or has a user in it; give "
            "https://host/path, and a secret for a signature"
        )
    return url


def _secret(name: str, told: ReceiverConfig, folder: Path) -> bytes | None:
    """What messages are signed with; raises ConfigError where it is not there."""
    if told.secret is None:
        return None
    kind, _, where = told.secret.partition(":")
    if kind == "env":
        found = os.environ.get(where, "").encode()
    else:
        try:
            found = (folder / where).read_bytes().strip()
        except OSError:
            found = b""
    if len(found) < 16:
        raise ConfigError(
            f"monitor.receivers.{name}.secret: {told.secret} holds {len(found)} bytes; put at "
            "least 16 random ones there"
        )
    return found
