"""What an evaluation has done so far, and how it outlives an interruption."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from ..attacks import Checkpoint
from ._found import Found
from ._report import Cost, Stage
from ._surrogates import Source


class Record:
    """Stages, what they found for each sample, and their cost.

    asked, asked_back: passes that the evaluation itself asked for, such as a first look. verified:
    forwards to see whether what fooled another model in the attacked one's place fools that too.
    """

    checkpoint: Checkpoint | None = None
    missed: float | None = None

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources = sources
        self.stages: list[Stage] = []
        self.asked, self.asked_back = 0, 0
        self.verified = 0
        self.batch_invariant = True
        self.found: Found
        self._began, self._cpu = time.monotonic(), time.process_time()
        self._earlier = Cost()
        self._restored: list[Stage] = []

    def open(self, path: str | Path, fingerprint: str) -> None:
        """Go on from a checkpoint, if the file is there; raises CheckpointError."""
        self.checkpoint = Checkpoint(path, fingerprint)
        saved = self.checkpoint.content
        for source, spent in zip(self.sources, saved.get("surrogates", ()), strict=False):
            source.forwards, source.backwards = spent
        if "stages" not in saved:
            return
        self.found = Found.restored(saved)
        self._restored = [Stage(**{**s, "cost": Cost(**s["cost"])}) for s in saved["stages"]]
        self._earlier = Cost(**saved["cost"])
        self.batch_invariant, self.missed = saved["invariant"], saved.get("missed")
        self.verified = saved["verified"]

    def known(self) -> bool:
        """Whether the next stage was already done before an interruption; it is then recorded."""
        if self._restored:
            self.stages.append(self._restored.pop(0))
            return True
        return False

    def save(self) -> None:
        """Write what is there at the end of a stage."""
        if self.checkpoint is None:
            return
        self.checkpoint.save(
            {
                "run": None,
                "stages": [asdict(stage) for stage in self.stages],
                "cost": asdict(self.cost()),
                "invariant": self.batch_invariant,
                "missed": self.missed,
                "verified": self.verified,
                "surrogates": self.spent(),
                **self.found.content(),
            }
        )

    def spent(self) -> list[list[int]]:
        """Forwards and backwards of each surrogate."""
        return [[source.forwards, source.backwards] for source in self.sources]

    def cost(self) -> Cost:
        """What the attacked model was asked, and the time for everything."""
        return Cost(
            forwards=int(self.found.forwards.sum()) + self.asked + self.verified,
            backwards=int(self.found.backwards.sum()) + self.asked_back,
            cpu_seconds=self._earlier.cpu_seconds + time.process_time() - self._cpu,
            wall_seconds=self._earlier.wall_seconds + time.monotonic() - self._began,
        )
