"""Accounts in a file that only its owner can read."""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from ..._errors import ConfigError, OutputError
from ..._whole import whole

Role = Literal["viewer", "responder", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)
"""Each may do what the one before may."""

SHORTEST = 12
_LONGEST = 1024
_NAME = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}")
_BLOCK = 8
# 32 MiB and about 0.2 seconds for each attempt.
_COST = (2**15, 3)


@dataclass(frozen=True, kw_only=True)
class Account:
    """Somebody who may log in.

    salt, digest: of the password (hex), by scrypt (RFC 7914) with the cost (n, p) and r = 8.
    """

    name: str
    role: Role
    salt: str
    digest: str
    cost: tuple[int, int]

    @property
    def stamp(self) -> str:
        """What changes with the password, so that its sessions end."""
        return hashlib.sha256(f"{self.salt}:{self.digest}".encode()).hexdigest()

    def may(self, role: Role) -> bool:
        """Whether it may do what takes a role."""
        return ROLES.index(self.role) >= ROLES.index(role)


class Accounts:
    """The accounts of a file, read anew whenever it has changed.

    Raises ConfigError for a file that is none, that others can read, and for names, roles and
    passwords that cannot be. cost: of new digests.
    """

    def __init__(self, path: str | Path, *, cost: tuple[int, int] | None = None) -> None:
        self.path, self._cost = Path(path), cost or _COST
        self._read: tuple[tuple[int, int, int], dict[str, Account]] | None = None

    @cached_property
    def _decoy(self) -> Account:
        return _made("-", "viewer", secrets.token_hex(16), self._cost)

    def all(self) -> list[Account]:
        """Everybody, by name."""
        return sorted(self._held().values(), key=lambda account: account.name)

    def get(self, name: str) -> Account | None:
        """An account by its name."""
        return self._held().get(name)

    def check(self, name: str, password: str) -> Account | None:
        """The account of this name and password; a name that is unknown takes as long."""
        found, decoy = self.get(name), self._decoy
        account = found or decoy
        same = hmac.compare_digest(_digest(password, account.salt, account.cost), account.digest)
        return found if same else None

    def add(self, name: str, role: str, password: str) -> None:
        """A new account."""
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"name {name[:64]!r} cannot be; give 1 to 64 of a-z 0-9 . _ @ -, a letter or digit "
                "first"
            )
        new = _made(name, _role(role), _sound(password), self._cost)
        with self._changing() as held:
            if name in held:
                raise ConfigError(f"{name} is there already; see `withstand ui user password`")
            held[name] = new

    def change(self, name: str, *, role: str | None = None, password: str | None = None) -> None:
        """Give an account another role or password; a new password ends its sessions."""
        with self._changing() as held:
            account = self._named(held, name)
            if role is not None:
                account = replace(account, role=_role(role))
            if password is not None:
                account = _made(name, account.role, _sound(password), self._cost)
            held[name] = account

    def remove(self, name: str) -> None:
        """Take an account away, and with it its sessions."""
        with self._changing() as held:
            self._named(held, name)
            del held[name]

    def _named(self, held: dict[str, Account], name: str) -> Account:
        if name not in held:
            raise ConfigError(f"there is no account {name[:64]!r}; see `withstand ui user list`")
        return held[name]

    def _held(self) -> dict[str, Account]:
        try:
            found = self.path.stat()
            if stat.S_IMODE(found.st_mode) & 0o077:
                raise ConfigError(
                    f"accounts {self.path} is open to others; run `chmod 600 {self.path}`"
                )
            mark = (found.st_mtime_ns, found.st_size, found.st_ino)
            if self._read is None or self._read[0] != mark:
                told = json.loads(self.path.read_text())
                self._read = mark, {one["name"]: _account(one) for one in told}
            return self._read[1]
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, KeyError):
            raise ConfigError(
                f"accounts {self.path} cannot be read; restore the file, or remove it and make "
                "accounts anew"
            ) from None

    @contextmanager
    def _changing(self) -> Iterator[dict[str, Account]]:
        """The accounts to change, and nobody else changes them; written wholly or not at all."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(os.open(f"{self.path}.lock", os.O_CREAT | os.O_RDWR, 0o600)) as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                held = dict(self._held())
                led = _led(held)
                yield held
                if led and not _led(held):
                    raise ConfigError("the last admin would be gone; make another one first")
                told = json.dumps([asdict(account) for account in held.values()], indent=1)
                with whole(self.path, 0o600) as file:
                    file.write(told.encode())
        except OSError as error:
            raise OutputError(
                f"accounts {self.path} cannot be written: {error.strerror}; give another "
                "ui.accounts"
            ) from None


def _led(held: dict[str, Account]) -> bool:
    return any(account.role == "admin" for account in held.values())


def _account(told: dict[str, Any]) -> Account:
    if told["role"] not in ROLES:
        raise ValueError
    return Account(**{**told, "cost": tuple(told["cost"])})


def _made(name: str, role: Role, password: str, cost: tuple[int, int]) -> Account:
    salt = secrets.token_hex(16)
    digest = _digest(password, salt, cost)
    return Account(name=name, role=role, salt=salt, digest=digest, cost=cost)


def _digest(password: str, salt: str, cost: tuple[int, int]) -> str:
    n, p = cost
    return hashlib.scrypt(
        password[:_LONGEST].encode(), salt=bytes.fromhex(salt), n=n, r=_BLOCK, p=p,
        maxmem=2 * 128 * n * _BLOCK * p,
    ).hex()  # fmt: skip


def _role(role: str) -> Role:
    for known in ROLES:
        if role == known:
            return known
    raise ConfigError(f"role is {role[:32]!r}; give one of {', '.join(ROLES)}")


def _sound(password: str) -> str:
    if not SHORTEST <= len(password) <= _LONGEST:
        raise ConfigError(
            f"the password has {len(password)} characters; give {SHORTEST} to {_LONGEST}"
        )
    try:
        password.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"the password's character {error.start + 1} is not UTF-8; give it as UTF-8"
        ) from None
    return password
