"""Writers of evidence that live in processes of their own, to be killed."""

from __future__ import annotations

from multiprocessing.connection import Connection
from pathlib import Path

from withstand.evidence.log import Log


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
