"""The journal that can be proved."""

from __future__ import annotations

import logging
import math
import random
import secrets
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..._errors import ConfigError, EvidenceError
from ...evidence.log import Log, Retention, Signer, Vault
from ..wire import Inference
from ._inputs import InputWriter
from ._keeper import Keeper
from ._redaction import Redaction, Redactor

_log = logging.getLogger("withstand.guard")
Inputs = Literal["none", "flagged", "all"]


@dataclass(frozen=True, kw_only=True)
class JournalCounts:
    """What a journal has done since it was made.

    written: records on the disk; dropped: benign ones for which there was no room; refused: others,
    for which there was none either; malformed: that could not be written down at all; skipped:
    benign ones that were not asked for; failures: of writing; waiting: records in memory.
    inputs_kept, _dropped (benign), _refused (flagged) and _failed (the vault's fault): inputs;
    inputs_waiting: in memory. anchors_failed: checkpoints that could not be sent.
    """

    written: int
    dropped: int
    refused: int
    malformed: int
    skipped: int
    failures: int
    waiting: int
    inputs_kept: int
    inputs_dropped: int
    inputs_refused: int
    inputs_failed: int
    inputs_waiting: int
    anchors_failed: int


class EvidenceJournal:
    """For `Guard(journal=)`: decisions go to a log and inputs to a vault, and nobody waits.

    log, vault, signer: become the journal's, which closes them; the signer is the one that the log
    tells its heads, and signs the last one. inputs: of which requests they are kept:
    none, flagged ones, or all, and then `share` of the benign ones. records: the share of benign
    decisions that is written down. required: requests are refused while nothing can be written.
    redactions: of records and inputs; secret: of the digests that they make, a random one if not
    given. retention: what is over is removed each hour. most, most_bytes: inputs that wait in
    memory; half of it is for flagged ones alone. A record names its input under `input`, or tells
    why there is none under `input_lost`. Raises ConfigError.
    """

    def __init__(
        self,
        log: Log,
        vault: Vault | None = None,
        *,
        signer: Signer | None = None,
        inputs: Inputs = "flagged",
        share: float = 1.0,
        records: float = 1.0,
        required: bool = False,
        redactions: Sequence[Redaction] = (),
        secret: bytes | None = None,
        retention: Retention | None = None,
        most: int = 1024,
        most_bytes: int = 64 * 2**20,
    ) -> None:
        for name, value in (("share", share), ("records", records)):
            if not 0 <= value <= 1:
                raise ConfigError(f"{name} of benign traffic is {value:g}; give 0 to 1")
        if inputs != "none" and vault is None:
            raise ConfigError(f"inputs is {inputs}, and there is no vault; give one, or none")
        self.required = required
        self._log, self._vault, self._signer = log, vault, signer
        self._share = {"none": None, "flagged": 0.0, "all": share}[inputs]
        self._recorded = records
        self._redactor = Redactor(redactions, secret or secrets.token_bytes(32))
        self._lock = threading.Lock()
        self._skipped = self._malformed = 0
        self._writer = InputWriter(
            vault, record=self._write, shown=self._redactor.inputs, most=most,
            most_bytes=most_bytes,
        )  # fmt: skip
        self._keeper = Keeper(log, vault, retention)

    @property
    def failing(self) -> bool:
        """Whether the log cannot be written at present."""
        return self._log.failing

    @property
    def counts(self) -> JournalCounts:
        """What was kept and lost since it was made."""
        log, writer = self._log.counts, self._writer
        return JournalCounts(
            written=log.written,
            dropped=log.dropped,
            refused=log.refused,
            malformed=self._malformed,
            skipped=self._skipped,
            failures=log.failures,
            waiting=log.waiting,
            inputs_kept=writer.kept,
            inputs_dropped=writer.dropped,
            inputs_refused=writer.refused,
            inputs_failed=writer.failed,
            inputs_waiting=writer.waiting,
            anchors_failed=0 if self._signer is None else self._signer.failures,
        )

    def note(self, content: dict[str, Any], *, flagged: bool, asked: Inference | None) -> bool:
        """Write a decision down, and keep the input where that is due; False where it is lost."""
        if not flagged and self._recorded < 1 and random.random() >= self._recorded:
            with self._lock:
                self._skipped += 1
            return True
        return self._keep("decision", content, flagged, asked)

    def bring(self, content: dict[str, Any], asked: Inference | None) -> bool:
        """Write down what another logger says it saw, as imported; False where it is lost."""
        return self._keep("imported", content, False, asked)

    def tell(self, kind: str, content: dict[str, Any]) -> bool:
        """Write down something else than a decision, such as a new configuration."""
        return self._log.append(content, kind=kind)

    def flush(self, timeout: float = 10.0) -> bool:
        """Wait until all that was noted is on the disk; False if it took too long."""
        return self._writer.flush(timeout) and self._log.flush(timeout)

    def close(self) -> None:
        """Write what waits, and let go of log and vault; raises EvidenceError where that fails."""
        self._keeper.close()
        self._writer.close()
        try:
            self._log.close()
        finally:
            if self._signer is not None:
                self._signer.close(self._log.head)
            if self._vault is not None:
                self._vault.close()

    def _wanted(self, flagged: bool) -> bool:
        share = self._share
        return share is not None and (flagged or (share > 0 and random.random() < share))

    def _keep(
        self, kind: str, content: dict[str, Any], flagged: bool, asked: Inference | None
    ) -> bool:
        content = self._redactor.record(content)
        if asked is not None and self._wanted(flagged):
            if self._writer.put(kind, content, asked, flagged=flagged):
                return True
            content = content | {"input_lost": "no room"}
        return self._write(kind, content, flagged)

    def _write(self, kind: str, content: dict[str, Any], flagged: bool) -> bool:
        try:
            return self._log.append(content, kind=kind, droppable=not flagged)
        except EvidenceError:
            pass
        try:
            # A score that is no finite number is no JSON: the record must not be lost with it.
            return self._log.append(_spelt(content), kind=kind, droppable=not flagged)
        except EvidenceError as error:
            _log.warning("a decision could not be written down: %s", error)
            with self._lock:
                self._malformed += 1
            return False


def _spelt(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _spelt(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_spelt(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
