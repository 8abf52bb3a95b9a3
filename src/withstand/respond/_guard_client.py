"""A running guard, as operators ask it."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Literal

from .._errors import ConfigError, OperationError, one_line
from ..config import GuardConfig, host_and_port, load_guard

CanaryVerb = Literal["start", "rollback", "freeze", "resume", "promote"]
_TIMEOUT = 10.0


class UnansweredError(OperationError):
    """Nobody answers at present: it is worth another try."""


class GuardClient:
    """The admin port of a guard, at host:port.

    What changes anything carries the token (hex), which a function gives when it is first needed.
    All methods raise OperationError where the guard refuses, with its reason, and UnansweredError
    where none answers.
    """

    def __init__(
        self, address: str, token: Callable[[], str], *, timeout: float = _TIMEOUT
    ) -> None:
        self.address, self._token, self._timeout = address, token, timeout

    @classmethod
    def from_file(
        cls, config: str | Path = "withstand.yaml", *, timeout: float = _TIMEOUT
    ) -> GuardClient:
        """The guard that a withstand.yaml configures; raises ConfigError where it has none."""
        path = Path(config)
        return cls.from_section(load_guard(path), path.parent, timeout=timeout)

    @classmethod
    def from_section(
        cls, told: GuardConfig, folder: Path, *, timeout: float = _TIMEOUT
    ) -> GuardClient:
        """The guard of a section that was read from a file in a folder."""
        return cls(told.admin, lambda: _token(folder / told.secrets), timeout=timeout)

    def status(self) -> dict[str, Any]:
        """How it is: version, modes and rules by model, whether it is killed, its evidence."""
        found: dict[str, Any] = self._read("/status")
        return found

    def metrics(self) -> str:
        """Its figures in the text form of Prometheus."""
        return self._asked("GET", "/metrics")[1].decode("utf-8", "replace")

    def canary(self) -> dict[str, Any]:
        """The rollouts of its models, by name, under `models`."""
        found: dict[str, Any] = self._read("/canary")
        return found

    def mitigations(self) -> list[dict[str, Any]]:
        """The ordered actions that hold: id, action, until, key, model, who, why."""
        found: list[dict[str, Any]] = self._read("/mitigations")
        return found

    def mitigate(
        self,
        identity: str,
        action: str,
        seconds: float,
        *,
        key: str = "",
        model: str = "",
        who: str,
        why: str,
    ) -> bool:
        """Order an action on a client, or on all; False where one of this id holds already."""
        told = {"id": identity, "action": action, "seconds": str(int(seconds))}
        told |= {"key": key, "model": model, "who": who, "why": why}
        return bool(self.change("/mitigate", told)["new"])

    def lift(self, identity: str, *, who: str, why: str) -> bool:
        """End an ordered action; False where there is none."""
        return bool(self.change("/lift", {"id": identity, "who": who, "why": why})["lifted"])

    def canary_act(
        self, verb: CanaryVerb, model: str, *, identity: str, who: str, why: str
    ) -> dict[str, Any]:
        """Start, roll back, freeze, resume or promote a model's canary; the same id acts once."""
        told = {"model": model, "id": identity, "who": who, "why": why}
        return self.change(f"/canary/{verb}", told)

    def kill(self, on: bool, *, who: str, why: str) -> bool:
        """Switch all inspection off (on=True) or on again; False where no evidence is kept."""
        told = self.change("/kill" if on else "/unkill", {"who": who, "why": why})
        return bool(told["recorded"])

    def reload(self) -> None:
        """Let it take its configuration as it is now."""
        self.change("/reload", {})

    def ask(self, target: str) -> tuple[int, Any]:
        """The status and the JSON content at a path, whatever the status."""
        status, body = self._asked("GET", target)
        return status, self._content(body)

    def change(self, target: str, content: dict[str, str]) -> dict[str, Any]:
        """What a POST with the token answers."""
        status, body = self._asked("POST", target, content)
        told: dict[str, Any] = self._content(body)
        if status != 200:
            raise self._refused(status, told)
        return told

    def _read(self, target: str) -> Any:
        status, told = self.ask(target)
        if status != 200:
            raise self._refused(status, told)
        return told

    def _asked(
        self, method: str, target: str, content: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        headers, body = {}, None
        if content is not None:
            headers["authorization"] = f"Bearer {self._token()}"
            body = json.dumps(content)
        where = host_and_port(self.address)
        with closing(HTTPConnection(*where, timeout=self._timeout)) as connection:
            try:
                connection.request(method, target, body, headers)
                answer = connection.getresponse()
                return answer.status, answer.read()
            except (OSError, HTTPException):
                raise self._silent() from None

    def _content(self, body: bytes) -> Any:
        try:
            return json.loads(body)
        except ValueError:
            raise self._silent() from None

    def _silent(self) -> UnansweredError:
        return UnansweredError(
            f"no guard answers at {self.address}; start it with `withstand guard serve`"
        )

    def _refused(self, status: int, told: Any) -> OperationError:
        why = told.get("error") if isinstance(told, dict) else None
        return OperationError(
            one_line(why or f"the guard at {self.address} answered with status {status}", 500)
        )


def _token(secrets: Path) -> str:
    try:
        from ..guard import Secrets
    except ModuleNotFoundError as error:
        raise ConfigError(f"the guard needs {error.name}; pip install 'withstand[serve]'") from None
    return Secrets(secrets).get("token").hex()
