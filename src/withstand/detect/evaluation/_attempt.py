"""One attack on a model and its detector: run, judged, and kept for the next start."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..._errors import CheckpointError
from ...attacks import Attack, run, sample_keys
from ...evaluate import check_writable, write
from ...models import Model
from ...threat import Threat
from .._detector import Detector
from ._keep import Keeper, Keeping
from ._view import Rejecting

_Tell = Callable[[int, int, int], None]


@dataclass(frozen=True, kw_only=True, eq=False)
class Attempt:
    """What is tried: an attack on a model in a region, from the samples at `rows` (N,).

    of: so many samples were looked at, of which those at `rows` are right.
    knows: the attacker knows of the detector. best: not the first success is kept, but the surest
    or least suspicious. counts: what it finds lies in the threat's region. limit: a smallest change
    counts up to there.
    """

    attack: Attack
    model: Model
    threat: Threat
    radius: float
    knows: bool
    kept: str
    rows: Tensor
    of: int
    best: bool = False
    counts: bool = True
    limit: float | None = None

    @property
    def name(self) -> str:
        """The attack's own name."""
        return type(self.attack).__name__


@dataclass(frozen=True, kw_only=True, eq=False)
class Tried:
    """What came of it: for each sample at `rows` the example, whether it fools, and its score.

    suspicion: the score's excess over the threshold. spent: passes of each sample.
    """

    attempt: Attempt
    x_adv: Tensor
    fooled: Tensor
    suspicion: Tensor
    forwards: Tensor
    backwards: Tensor
    cpu_seconds: float
    rejected: float | None

    @property
    def unseen(self) -> Tensor:
        """Which of them are fooled and not flagged."""
        return self.fooled & ~(self.suspicion > 0)


@dataclass(kw_only=True)
class Runner:
    """Runs attempts on the same samples x (N, ...) with labels y (N,).

    folder: where results are kept, so that an interrupted evaluation goes on behind them; of:
    names the evaluation.
    """

    detector: Detector
    x: Tensor
    y: Tensor
    seed: int
    batch_size: int
    folder: Path | None
    of: str
    progress: Callable[[str], _Tell | None]
    _known: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.keys = sample_keys(self.x, self.y)
        if self.folder is not None:
            check_writable(self.folder)

    def run(self, attempt: Attempt) -> Tried:
        """Run an attempt, or take what an earlier start has kept of it, and judge its examples."""
        file = self._file(attempt)
        kept = self._known.get(file) or self._read(file)
        if kept is None:
            kept = self._ran(attempt)
            self._write(file, kept)
        self._known[file] = kept
        return self._judged(attempt, kept)

    def _ran(self, attempt: Attempt) -> dict[str, Any]:
        rows, before = attempt.rows, time.process_time()
        x, y, keys = self.x[rows], self.y[rows], self.keys[rows]
        keeper = Keeper(x, keys)
        attack = Keeping(attack=attempt.attack, keeper=keeper) if attempt.best else attempt.attack
        result = run(
            attack,
            attempt.model,
            x,
            y,
            attempt.threat.take(rows.numpy()),
            seed=self.seed,
            batch_size=self.batch_size,
            keys=keys,
            progress=self.progress(attempt.name),
        )
        found, x_adv = result.success, result.x_adv
        if attempt.best:
            lost = ~found & keeper.best.value.isfinite()
            x_adv = torch.where(_wide(lost, x), keeper.best.x_adv, x_adv)
            found = found | lost
        rejecting = attempt.model if isinstance(attempt.model, Rejecting) else None
        return {
            "x_adv": x_adv.cpu(),
            "found": found.cpu(),
            "forwards": result.ledger.forwards.cpu(),
            "backwards": result.ledger.backwards.cpu(),
            "cpu_seconds": time.process_time() - before,
            "rejected": np.nan
            if rejecting is None
            else rejecting.rejected / max(rejecting.asked, 1),
        }

    def _judged(self, attempt: Attempt, kept: dict[str, Any]) -> Tried:
        """Judged by the model and the detector themselves, whatever was attacked in their place."""
        detector, x_adv, found = self.detector, kept["x_adv"].to(self.x.device), kept["found"]
        region = attempt.threat.take(attempt.rows.numpy()).within(detector.model.domain).region
        x = self.x[attempt.rows].cpu().numpy()
        found = found & torch.from_numpy(region.contains(x, x_adv.cpu().numpy()))
        if attempt.limit is not None:
            ball = next(part for part in attempt.threat.region if hasattr(part, "distance"))
            distance = torch.from_numpy(ball.distance(x, x_adv.cpu().numpy()))
            found &= distance <= attempt.limit
        goal = getattr(attempt.threat.goal, "goal", attempt.threat.goal)
        with detector.model.held():
            labels = torch.cat([detector.model.labels(part) for part in x_adv.split(256)])
        fooled = found & goal.hit(labels, self.y[attempt.rows]).cpu()
        rejected = float(kept["rejected"])
        return Tried(
            attempt=attempt,
            x_adv=x_adv,
            fooled=fooled,
            suspicion=detector.suspicion(x_adv).cpu(),
            forwards=kept["forwards"],
            backwards=kept["backwards"],
            cpu_seconds=float(kept["cpu_seconds"]),
            rejected=None if np.isnan(rejected) else rejected,
        )

    def _file(self, attempt: Attempt) -> str:
        told = (
            self.of, repr(attempt.attack), type(attempt.model).__name__, attempt.kept,
            attempt.threat.describe(), attempt.rows.tolist(), self.seed, self.batch_size,
        )  # fmt: skip
        return hashlib.sha256(repr(told).encode()).hexdigest()[:24] + ".npz"

    def _read(self, file: str) -> dict[str, Any] | None:
        if self.folder is None or not (self.folder / file).exists():
            return None
        try:
            with np.load(self.folder / file) as stored:
                return {name: _tensor(stored[name]) for name in stored.files}
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"{self.folder / file} cannot be read ({type(error).__name__}); delete it"
            ) from None

    def _write(self, file: str, kept: dict[str, Any]) -> None:
        if self.folder is not None:
            content = BytesIO()
            arrays: dict[str, Any] = {name: np.asarray(value) for name, value in kept.items()}
            np.savez(content, **arrays)
            write(self.folder / file, content.getvalue())

    def done(self) -> None:
        """Delete what was kept, since the report is there."""
        if self.folder is not None:
            for file in self._known:
                (self.folder / file).unlink(missing_ok=True)
            if self.folder.is_dir() and not any(self.folder.iterdir()):
                self.folder.rmdir()


def scaled(threat: Threat, factor: float) -> Threat:
    """The threat with all radii times a factor."""
    from functools import reduce
    from operator import and_

    parts = [
        type(p)(p.eps * factor) if hasattr(p, "unbounded") else p  # type: ignore[attr-defined,call-arg]
        for p in threat.region
    ]
    return replace(threat, region=reduce(and_, parts))


def _wide(rows: Tensor, x: Tensor) -> Tensor:
    return rows.reshape(-1, *(1,) * (x.ndim - 1))


def _tensor(value: Any) -> Any:
    return torch.from_numpy(value) if value.ndim else value.item()
