"""A corpus as one evaluation uses it: replayed at its start, added to at its end."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from .._errors import BudgetError, CorpusError, ModelError
from ..evidence import Corpus, Entry, Origin, content_digest
from ..threat import Access, Box
from ._files import check_writable
from ._record import Record
from ._replay import Replay, Stretch
from ._report import _plain
from ._stages import Stages


class Memory:
    """A corpus, and the version that is replayed, whatever is added meanwhile.

    access: the attacker's. Raises CorpusError, and OutputError where nothing can be added.
    """

    def __init__(self, corpus: Corpus | str | Path, access: Access) -> None:
        self.corpus = Corpus(corpus) if isinstance(corpus, str | Path) else corpus
        check_writable(self.corpus.path)
        self.replay = Replay.of(self.corpus, access)

    def pin(self, record: Record) -> None:
        """Replay the version that the record's checkpoint began with; raises CheckpointError."""
        if record.checkpoint is not None:
            self.replay = self.replay.pinned(self.corpus, record.checkpoint.content)

    def show(self, stages: Stages) -> None:
        """Replay, and then go on in the same directions where the region has an edge."""
        stages.replay(self.replay, self.corpus)
        if self.replay.version and stages.threat.bounded and stages.threat.norm != "l0":
            stages.replay(Stretch(**vars(self.replay)), self.corpus)

    def add(self, stages: Stages, *, model: dict[str, Any], data: str) -> tuple[str, ...]:
        """Add what was found, and return notes: that the corpus takes nothing costs no report.

        model: its description; data: its digest. All answers to the examples are known. Pictures
        are asked about once more, rounded to 8 bits: 1 forward each.
        """
        found = stages.record.found
        names = [stage.name for stage in stages.record.stages]
        replayed = [i for i, name in enumerate(names) if name == Replay.__name__]
        old = torch.isin(found.made, torch.tensor(replayed, dtype=torch.long))
        rows = (found.fooled & ~old).nonzero()[:, 0]
        origin = Origin(model=digest_of(model), data=data, threat=_plain(stages.threat.describe()))
        entries = self._entries(stages, rows, origin)
        stages.record.asked += sum(entry.survives_8bit is not None for entry in entries)
        try:
            self.corpus.add(list(found.x_adv[rows].cpu().numpy()), entries)
        except CorpusError as error:
            return (f"What was found here is not kept: {error}",)
        return ()

    def _entries(self, stages: Stages, rows: Tensor, origin: Origin) -> list[Entry]:
        found, x, y = stages.record.found, stages.x[rows].cpu().numpy(), stages.y[rows]
        points = found.x_adv[rows]
        ball = next(part for part in stages.threat.region if hasattr(part, "distance"))
        distance = ball.distance(x, points.cpu().numpy()) if len(rows) else []
        answer_8bit, survives = [None] * len(rows), [None] * len(rows)
        if x.ndim == 4 and len(rows):
            # Whoever limits what a served model is asked still gets the report.
            with suppress(ModelError, BudgetError):
                answer, hit = stages.answers.judged(
                    eight_bit(points, stages.answers.model.domain), y
                )
                answer_8bit, survives = answer.tolist(), hit.tolist()
        makers = [stages.record.stages[made] for made in found.made[rows].tolist()]
        return [
            Entry(
                original=content_digest(x[i]),
                label=y[i].tolist(),
                answer=found.answer[row].tolist(),
                attack=maker.name,
                access=cast(Access, maker.access),
                distance=float(distance[i]),
                answer_8bit=answer_8bit[i],
                survives_8bit=survives[i],
                origin=origin,
            )
            for i, (row, maker) in enumerate(zip(rows.tolist(), makers, strict=True))
        ]


def eight_bit(x: Tensor, domain: Box) -> Tensor:
    """Inputs (B, ...) as they come back from a file of 256 levels between the domain's bounds."""
    lower, upper = (torch.tensor(b, device=x.device) for b in domain.bounds(tuple(x.shape)))
    span = (upper - lower).where(upper > lower, 1.0)
    levels = ((x.double() - lower) / span * 255).round()
    return (lower + levels * span / 255).to(x.dtype)


def digest_of(model: dict[str, Any]) -> str:
    """The digest of a described model's weights, or else of the description itself."""
    told = json.dumps(model, sort_keys=True, default=str)
    return str(model.get("digest") or hashlib.sha256(told.encode()).hexdigest())
