"""Where the pages get what they show, and what they act upon."""

from __future__ import annotations

from pathlib import Path

from ..redteam import Runs
from ..respond import Desk, GuardClient
from ._inputs import Inputs
from ._past import Corpora
from .access import Accounts, Sessions


class Site:
    """What one withstand.yaml tells of: its store, evidence, corpus, accounts and guard.

    Raises ConfigError for a file that is broken, and OperationError for a store that is.
    """

    def __init__(self, path: str | Path = "withstand.yaml") -> None:
        self.desk = desk = Desk(path)
        self.path, self.folder, self.config = desk.path, desk.root, desk.config
        self.store, self.alerts, self.audit = desk.store, desk.alerts, desk.audit
        self.incidents, self.reviews = desk.incidents, desk.reviews
        self.observations, self.runs = desk.observations, Runs(desk.store)
        told, guard = self.config.ui, self.config.guard
        self.accounts = Accounts(self.folder / told.accounts)
        self.sessions = Sessions(
            self.store, self.accounts, hours=told.session_hours, minutes=told.idle_minutes
        )
        self.inputs = None
        if guard is not None and guard.evidence is not None:
            self.inputs = Inputs(desk.evidence, self.folder / guard.secrets)
        self.corpora = Corpora(self.folder / (told.corpus or self.config.respond.corpus))

    @property
    def guard(self) -> GuardClient:
        """The running guard; raises OperationError where the file has none."""
        return self.desk.guard

    def close(self) -> None:
        """Let go of the files."""
        if self.inputs is not None:
            self.inputs.close()
        self.store.close()
