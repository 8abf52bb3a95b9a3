"""What the work on incidents is done with: what operations know, the guard, its evidence."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from .._errors import OperationError
from ..config import load_operations
from ..monitor import Alerts, Audit, Campaign, Observations, Store
from ._guard_client import GuardClient
from ._incidents import Incident, Incidents
from ._reviews import Reviews

if TYPE_CHECKING:
    from ..evidence.log import Vault


class Desk:
    """All of that, as a withstand.yaml tells it; raises ConfigError and OperationError.

    `config` has the sections, `root` is the file's folder, from which relative paths count.
    """

    def __init__(self, path: str | Path = "withstand.yaml") -> None:
        self.path = Path(path)
        self.root = self.path.parent
        self.config = load_operations(self.path)
        self.store = Store(self.root / self.config.monitor.folder)
        self.alerts = Alerts(self.store)
        self.audit = Audit(self.store)
        self.incidents = Incidents(self.store)
        self.observations = Observations(self.store)
        self.reviews = Reviews(self.store)

    @cached_property
    def guard(self) -> GuardClient:
        """The running guard; raises OperationError where none is configured."""
        if self.config.guard is None:
            raise OperationError(f"{self.path} has no section guard; add it to act upon clients")
        return GuardClient.from_section(self.config.guard, self.root)

    @property
    def evidence(self) -> Path:
        """The folder of the guard's evidence; raises OperationError where none is kept."""
        guard = self.config.guard
        if guard is None or guard.evidence is None:
            raise OperationError(f"{self.path} keeps no evidence; add guard.evidence")
        return self.root / guard.evidence.folder

    @contextmanager
    def vault(self) -> Iterator[Vault]:
        """The recorded inputs; raises OperationError where none are kept or there is no key."""
        from ..evidence.log import Vault

        place, guard = self.evidence / "vault", self.config.guard
        assert guard is not None
        secrets = self.root / guard.secrets
        if not place.is_dir():
            raise OperationError(f"{place} is not there; let guard.evidence.inputs be flagged")
        # A guard makes the secrets that it lacks; a new one would open nothing here.
        if "WITHSTAND_MASTER" not in os.environ and not (secrets / "master").exists():
            raise OperationError(
                f"there is no master key in {secrets}; copy the guard's, or set WITHSTAND_MASTER"
            )
        from ..guard import Secrets

        vault = Vault(place, Secrets(secrets).get("master"))
        try:
            yield vault
        finally:
            vault.close()

    def campaign(self, incident: Incident) -> Campaign | None:
        """The campaign that an incident is about, as it is by now."""
        return self.alerts.campaign(incident.campaign) if incident.campaign else None

    def folder(self, identity: int) -> Path:
        """The folder of what belongs to an incident, which only its owner can read."""
        place = self.root / self.config.respond.folder / f"incident-{identity}"
        try:
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise OperationError(
                f"{place} cannot be made ({error.strerror}); give another respond.folder"
            ) from None
        return place

    @contextmanager
    def alone(self, identity: int, patience: float = 0.0) -> Iterator[bool]:
        """Whether nobody else works on an incident's steps, and nobody does until the end.

        patience: seconds to wait for that. The lock is the system's, which lets go of it when its
        process dies.
        """
        until, place = time.monotonic() + patience, self.folder(identity) / ".lock"
        try:
            lock = place.open("w")
        except OSError as error:
            raise OperationError(
                f"{place} cannot be opened ({error.strerror}); give it to who responds"
            ) from None
        with lock as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= until:
                        yield False
                        return
                time.sleep(0.05)
            yield True
