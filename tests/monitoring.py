"""Evidence as a guard writes it, for those who look at it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from withstand.evidence.log import START, Head
from withstand.evidence.log._record import encode

NOW = 1_800_000_000.0


def decision(
    n: int = 0, *, key: str = "k", model: str = "m", flagged: Iterable[str] = (),
    spoke: Iterable[str] = ("queries", "detector"), score: float = 0.9, **more: Any,
) -> dict[str, Any]:  # fmt: skip
    """What a record tells of request n."""
    names = {*spoke, *flagged}
    return {
        "id": f"r-{n}", "tenant": "acme", "key": key, "model": model,
        "decision": "flag" if tuple(flagged) else "pass",
        "fingerprint": f"f-{n}", "answered": [[[1, score], [0, 0.1]]],
        "signals": [[name, 1.0, 0.5, name in set(flagged), ""] for name in sorted(names)],
        **more,
    }  # fmt: skip


class Written:
    """A log with chosen times, in segments of so many records."""

    def __init__(self, folder: Path, *, each: int = 10**9, wall: float = NOW) -> None:
        self.folder, self.each, self.wall, self.mono = folder, each, wall, 1000.0
        self.boot = "b" * 32
        self.head, self.number, self.count = Head(0, START), 1, 0
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def segment(self) -> Path:
        return self.folder / f"{self.number:08d}.log"

    def line(self, content: dict[str, Any], *, kind: str = "decision", after: float = 1.0) -> bytes:
        self.wall += after
        self.mono += after
        line, self.head = encode(
            self.head, wall=self.wall, mono=self.mono, boot=self.boot, kind=kind,
            content=json.dumps(content, separators=(",", ":")).encode(),
        )  # fmt: skip
        return line

    def add(self, *told: dict[str, Any], kind: str = "decision", after: float = 1.0) -> None:
        for content in told:
            if self.count and self.count % self.each == 0:
                self.number += 1
            self.count += 1
            with self.segment.open("ab") as file:
                file.write(self.line(content, kind=kind, after=after))


def named(text: str) -> str:
    """A key's id."""
    return hashlib.sha256(text.encode()).hexdigest()
