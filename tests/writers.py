"""Writers of evidence that live in processes of their own, to be killed."""

from __future__ import annotations

from multiprocessing.connection import Connection
from pathlib import Path

from withstand.evidence.log import Log, Vault


def write_until_killed(folder: Path, told: Connection) -> None:
    """Append without end, in small groups, and tell what is on the disk."""
    log = Log(folder, group=8, wait=0.0)
    number = 0
    while True:
        for _ in range(20):
            log.append({"number": number})
            number += 1
        log.flush()
        told.send(log.head)


def journal_until_killed(folder: Path, told: Connection) -> None:
    """Note decisions with their inputs without end, erase some, and tell what is on the disk."""
    # Seconds of imports that writers of nothing but a log do without.
    import numpy as np

    from withstand.evidence.log._retention import erase
    from withstand.guard.journal import EvidenceJournal
    from withstand.guard.wire import Inference, Named

    log, vault = Log(folder, group=8, wait=0.0), Vault(folder / "vault", bytes(32))
    journal = EvidenceJournal(log, vault, inputs="all")
    values = np.zeros((1, 4), np.float32)
    named = Named(name="x", datatype="FP32", values=values, parameters={})
    asked = Inference(id="", inputs=(named,), parameters={})
    while True:
        for _ in range(10):
            journal.note({"decision": "flag"}, flagged=True, asked=asked)
        journal.flush()
        told.send(log.head)
        erase(log, vault, vault.references()[:2], "asked for")
