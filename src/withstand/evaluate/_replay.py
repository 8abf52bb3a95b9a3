"""Examples that earlier evaluations kept, shown again before anything is searched for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .._errors import BudgetError, CheckpointError, ModelError
from ..attacks import Checkpoint, Ledger
from ..evidence import Corpus, Entry, content_digest
from ..threat import ACCESS, Access, Box, Threat
from ._answers import Answers
from ._transfer import Shown, result

Array = NDArray[Any]
_READ = 64
# The share of the radius that is used, so that rounding does not leave the region.
_SHY = 0.9999


@dataclass(frozen=True, kw_only=True)
class Replay:
    """The stage that shows kept examples as they are, nearest first.

    version, digest: of the corpus; each: the most that a sample is shown; needs: the attacker's
    access: what only a stronger one could have made is not shown.
    """

    version: int
    digest: str
    needs: Access
    each: int = 10

    @classmethod
    def of(cls, corpus: Corpus, access: Access) -> Self:
        """The replay of a corpus as it is now."""
        head = corpus.head
        version, digest = (head.number, head.digest) if head else (0, "")
        return cls(version=version, digest=digest, needs=access)

    def pinned(self, corpus: Corpus, content: dict[str, Any]) -> Self:
        """The replay that the run of a checkpoint's content began with, or else this one.

        Raises CheckpointError where the corpus no longer has that version.
        """
        version, digest = content.setdefault("corpus", [self.version, self.digest])
        if version and [v.digest for v in corpus.versions()[version - 1 : version]] != [digest]:
            raise CheckpointError(
                f"the checkpoint replays version {version} of corpus {corpus.path}, which is not "
                "there any more; restore it, or delete the checkpoint to start from the beginning"
            )
        return replace(self, version=version, digest=digest)

    def told(self) -> dict[str, Any]:
        """What a report says of the corpus."""
        return {"version": self.version, "digest": self.digest}

    def placed(self, x: Array, kept: Array, threat: Threat) -> Array:
        """The points (B, ...) to show for kept examples of inputs x (B, ...)."""
        return kept


@dataclass(frozen=True, kw_only=True)
class Stretch(Replay):
    """The stage that draws kept examples out, or in, to the edge of the region.

    An example just behind the boundary of one model is often before that of the next, and further
    along the same line it is not.
    """

    def placed(self, x: Array, kept: Array, threat: Threat) -> Array:
        ball = _ball(threat)
        length = ball.distance(x, kept)
        factor = _SHY * np.asarray(ball.eps) / np.where(length > 0, length, np.inf)
        column = factor.reshape(-1, *(1,) * (x.ndim - 1))
        points = x + column * (kept.astype(np.float64) - x)
        for part in threat.region:
            if isinstance(part, Box):
                points = points.clip(*part.bounds(points.shape))
        return np.asarray(points, x.dtype)


def stored(replay: Replay, corpus: Corpus, x: Tensor, threat: Threat) -> list[list[Entry]]:
    """For each sample x (N, ...) the kept examples that are shown in its region, nearest first.

    The threat's region is cut to the model's domain.
    """
    inputs, least = x.cpu().numpy(), ACCESS.index(replay.needs)
    rows: dict[str, list[int]] = {}
    for row, values in enumerate(inputs):
        rows.setdefault(content_digest(values), []).append(row)
    entries = corpus.entries(replay.version, originals=rows, kind="adversarial")
    found: list[list[tuple[float, Entry]]] = [[] for _ in inputs]
    for among in _chunks(entry for entry in entries if ACCESS.index(entry.access) >= least):
        # A row for each sample of the same content.
        pairs = [
            (row, values, entry)
            for entry, values in zip(among, corpus.read(among), strict=True)
            for row in rows[entry.original or ""]
            if (values.dtype, values.shape) == (inputs.dtype, inputs.shape[1:])
        ]
        if not pairs:
            continue
        index, kept = np.array([row for row, _, _ in pairs]), np.stack([v for _, v, _ in pairs])
        here = threat.take(index)
        inside = here.region.contains(inputs[index], replay.placed(inputs[index], kept, here))
        distance = _ball(threat).distance(inputs[index], kept)
        for place in np.flatnonzero(inside):
            row, _, entry = pairs[place]
            found[row].append((float(distance[place]), entry))
            found[row] = sorted(found[row], key=lambda known: known[0])[: replay.each]
    return [[entry for _, entry in known] for known in found]


def shown_first(corpus: Corpus, x: Tensor, threat: Threat) -> list[list[Array]]:
    """For each sample x (N, ...) the values of the kept examples that a replay would show.

    The threat's region is cut to the model's domain, its access is the attacker's.
    """
    kept = stored(Replay.of(corpus, threat.access), corpus, x, threat)
    return [corpus.read(entries) for entries in kept]


def show(
    replay: Replay,
    corpus: Corpus,
    kept: list[list[Entry]],
    victim: Answers,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    *,
    clean: Tensor,
    known: Ledger,
    limit: int | None,
    seconds: float | None,
    checkpoint: Checkpoint | None,
    progress: Callable[[int, int, int], None] | None,
) -> Shown:
    """Ask the victim about each sample's kept examples, 1 forward each, until one fools it.

    Threat as in `stored`, the other arguments as in `transfer`. Raises CorpusError and ModelError.
    """
    until = time.monotonic() + (torch.inf if seconds is None else seconds)
    made, answer = x.clone(), clean.clone()
    hit = torch.zeros(len(x), dtype=torch.bool)
    asked = torch.zeros(len(x), dtype=torch.long)
    saved = None if checkpoint is None else checkpoint.content.get("run")
    if saved is not None:
        made, answer = saved["made"].to(x.device), saved["answer"]
        hit, asked = saved["hit"], saved["asked"]

    def keep() -> None:
        if checkpoint is not None:
            checkpoint.save({"run": {"made": made, "answer": answer, "hit": hit, "asked": asked}})

    there = torch.tensor([len(entries) for entries in kept])
    most = torch.full_like(there, np.iinfo(np.int64).max) if limit is None else limit
    while time.monotonic() < until:
        # The nearest ones of all samples come before the second nearest of any.
        left = (~hit & (asked < there) & (known.forwards + asked < most)).nonzero()[:, 0]
        rows = left[asked[left].argsort(stable=True)[: victim.batch]]
        if not len(rows):
            break
        entries = [kept[row][asked[row]] for row in rows.tolist()]
        placed = replay.placed(
            x[rows].cpu().numpy(), np.stack(corpus.read(entries)), threat.take(rows.numpy())
        )
        points = torch.from_numpy(placed).to(x.device)
        try:
            given, reached = victim.judged(points, y[rows])
        except (ModelError, BudgetError):
            # What a served model has answered is dear; only the failing part is asked again.
            keep()
            raise
        made[rows], asked[rows], hit[rows] = points, asked[rows] + 1, reached.cpu()
        answer[rows] = given.cpu().to(answer.dtype)
        if checkpoint is not None and checkpoint.due:
            keep()
        if progress is not None:
            progress(int((hit | (asked >= there)).sum()), len(x), int(hit.sum()))
    ended = hit | (asked >= there)
    return Shown(result(x, made, hit, asked, ended, threat, known), answer)


def _ball(threat: Threat) -> Any:
    """The ball that distances are told in."""
    return next(part for part in threat.region if hasattr(part, "distance"))


def _chunks(entries: Iterator[Entry]) -> Iterator[list[Entry]]:
    while among := list(islice(entries, _READ)):
        yield among
