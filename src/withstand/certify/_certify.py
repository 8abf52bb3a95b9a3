"""From a model, data and a threat to certificates."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .._errors import ModelError, ThreatError
from .._version import __version__
from ..attacks import Checkpoint
from ..data import Dataset
from ..evidence import content_digest
from ..models import Model, adapt, describe
from ..models._torch import device_of
from ..threat import Targeted, Threat, Untargeted, check_goal
from ._certificate import Certificate, Certificates, Method, Outcome
from ._classifier import SmoothedClassifier
from ._poll import Poll, decide
from ._rows import Rows, Trees
from ._smoothing import Smoothing, rule
from .trees import digest_of

Array = NDArray[Any]
Progress = Callable[[int, int], None]
"""Told of inputs done, and of all."""

_AT_ONCE = 64
_OUTCOMES: dict[str, Outcome] = {
    "proven": "certified", "witness": "not certified", "undecided": "abstained"
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Prove by bounds of the scores: those of ibp, crown-ibp, crown, alpha-crown or beta-crown."""

    bound: str = "alpha-crown"


METHODS: dict[type[Any], Method] = {Smoothing: "smoothing", Bounds: "bounds", Trees: "trees"}


def certify(
    model: Model,
    data: Dataset,
    threat: Threat,
    method: Smoothing | Bounds | Trees,
    *,
    checkpoint: str | Path | None = None,
    progress: Progress | None = None,
) -> Certificates:
    """Prove for each input, as far as the method goes, that the threat does not change its answer.

    Smoothing certifies the smoothed classifier of the model, at `draws` + `select` forwards an
    input at most; bounds and trees certify the model itself. checkpoint: a file from which the same
    call goes on, to the same certificates. Raises ThreatError, ModelError, BudgetError and
    DataError for what cannot be certified.
    """
    if not isinstance(threat.goal, Untargeted | Targeted):
        raise ThreatError(
            f"the goal is {threat.goal.describe()}; only an answer that is one class is certified"
        )
    if isinstance(model, SmoothedClassifier):
        if not isinstance(method, Smoothing) or method.sigma != model.sigma:
            raise ModelError(
                f"the model is a smoothed classifier with sigma {model.sigma:g}; certify it by "
                "smoothing with the same sigma"
            )
        model = model.model
    device = device_of(model)
    work = _Work(
        model=model,
        x=torch.from_numpy(np.ascontiguousarray(data.x)).to(device),
        y=data.y.astype(int),
        inputs=tuple(content_digest(row) for row in data.x),
        threat=threat,
    )
    work.check(data.y)
    kept = None
    if checkpoint is not None:
        kept = Checkpoint(checkpoint, work.fingerprint(method))
    engine = _engine(work.x)
    left_out: tuple[str, ...] = ()
    settings = asdict(method)
    if isinstance(method, Smoothing):
        certificates, forwards = work.smoothed(method, kept, progress)
        settings |= {"radii": list(method.radii)}
    elif isinstance(method, Bounds):
        certificates, forwards = work.bounded(method, kept, progress)
    else:
        rows = Rows(model, work.x.cpu().numpy(), work.y, threat)
        certificates = work.decided(rows, method, kept, progress)
        forwards, left_out = rows.forwards, rows.left_out
        engine |= {"forest": digest_of(rows.forest)}
    found = Certificates(
        method=METHODS[type(method)],
        model=describe(model),
        threat=threat.describe(),
        units=f"raw input, {model.domain.describe()}",
        data={**vars(data.provenance), "shape": list(data.provenance.shape)},
        settings=settings,
        engine=engine,
        forwards=forwards,
        certificates=certificates,
        left_out=left_out,
    )
    if kept is not None:
        kept.remove()
    return found


@dataclass(frozen=True, kw_only=True, eq=False)
class _Work:
    model: Model
    x: Tensor
    y: Array
    inputs: tuple[str, ...]
    threat: Threat

    @property
    def eps(self) -> Array:
        """The threat's radius for each input (N,)."""
        return np.broadcast_to(np.asarray(self.threat.describe()["eps"], float), len(self.x))

    def check(self, y: Array) -> None:
        """Raise DataError or ThreatError where the goal cannot be judged on labels y as given."""
        with self.model.held():
            model = self._classifier(1)
            by_labels = model.access in ("labels", "none")
            answer = (model.labels if by_labels else model.scores)(self.x[:1])
        check_goal(self.threat.goal, answer, torch.from_numpy(y))

    def fingerprint(self, method: Smoothing | Bounds | Trees) -> str:
        """What a checkpoint belongs to."""
        told = (
            __version__, describe(self.model), self.threat.describe(), method, self.inputs,
            self.y.tolist(),
        )  # fmt: skip
        digest = hashlib.blake2b(repr(told).encode(), digest_size=16)
        for part in self.threat.region:
            digest.update(part.content())
        return digest.hexdigest()

    def smoothed(
        self, method: Smoothing, kept: Checkpoint | None, progress: Progress | None
    ) -> tuple[tuple[Certificate, ...], int]:
        """Certificates by votes under noise, and the forwards they took."""
        asked = rule(method, self.threat.norm, self.eps, self.x[0].numel())
        raw = self.x.cpu().numpy()
        if not self.model.domain.contains(raw, raw).all():
            raise ThreatError(
                f"inputs lie outside the model's domain ({self.model.domain.describe()}); give raw "
                "inputs, which sigma and radii are of, or set domain"
            )
        with self.model.held():
            poll = Poll(
                model=self._classifier(method.batch),
                x=self.x,
                keys=torch.tensor([_key(name) for name in self.inputs]).to(self.x.device),
                labels=self.y,
                rule=asked,
                checkpoint=kept,
                progress=progress,
            )
            poll.run()
        rows = np.arange(len(self.x))
        radius = asked.radius(rows, poll.counts[rows, poll.answer], poll.drawn)
        return tuple(
            Certificate(
                input=self.inputs[i],
                label=int(self.y[i]),
                answer=int(poll.answer[i]),
                outcome=self._outcome(i, int(poll.answer[i]), float(radius[i])),
                radius=float(radius[i]),
                method="smoothing",
                draws=int(poll.drawn[i]),
                votes=_votes(poll.counts[i]),
                first=_votes(poll.first[i]),
            )
            for i in rows.tolist()
        ), int((poll.drawn + method.select).sum())

    def bounded(
        self, method: Bounds, kept: Checkpoint | None, progress: Progress | None
    ) -> tuple[tuple[Certificate, ...], int]:
        """Certificates by bounds, some inputs at a time."""
        # Bounds are imported late: they trace networks with torch.fx.
        from .bounds import prove

        done: list[Certificate] = []
        if kept is not None:
            done = [Certificate(**row) for row in kept.content.get("done", ())]
        eps = self.eps
        with self.model.held():
            model = self._classifier(_AT_ONCE)
            parts = [decide(model, part) for part in torch.split(self.x, _AT_ONCE)]
        answers = torch.cat(parts).cpu().numpy()
        for begin in range(len(done), len(self.x), _AT_ONCE):
            rows = np.arange(begin, min(begin + _AT_ONCE, len(self.x)))
            y = torch.from_numpy(self.y[rows]).to(self.x.device)
            found = prove(model, self.x[rows], y, self.threat.take(rows), method=method.bound)
            for place, i in enumerate(rows.tolist()):
                radius = float(eps[i]) if found.proven[place] else 0.0
                margin = float(found.margin[place])
                done.append(
                    Certificate(
                        input=self.inputs[i],
                        label=int(self.y[i]),
                        answer=int(answers[i]),
                        outcome=self._outcome(i, int(answers[i]), radius, unsure="not certified"),
                        radius=radius,
                        method=found.method[place],
                        # Where rounding leaves nothing sure, there is no margin to tell.
                        margin=margin if isfinite(margin) else None,
                    )
                )
            if kept is not None and kept.due:
                kept.save({"done": [asdict(row) for row in done]})
            if progress is not None:
                progress(len(done), len(self.x))
        return tuple(done), len(self.x)

    def decided(
        self, rows: Rows, method: Trees, kept: Checkpoint | None, progress: Progress | None
    ) -> tuple[Certificate, ...]:
        """Certificates by decisions, one input after the other."""
        done: list[Certificate] = []
        forest = digest_of(rows.forest)
        if kept is not None and kept.content.get("forest") == forest:
            done = [Certificate(**row) for row in kept.content["done"]]
            rows.forwards = kept.content.get("forwards", rows.forwards)
        for i in range(len(done), len(self.x)):
            done.append(self._decided(i, rows, method))
            if kept is not None and kept.due:
                told = {"forest": forest, "forwards": rows.forwards}
                kept.save({"done": [asdict(row) for row in done], **told})
            if progress is not None:
                progress(len(done), len(self.x))
        return tuple(done)

    def _decided(self, i: int, rows: Rows, method: Trees) -> Certificate:
        answer = int(rows.answers[i])
        bare = Certificate(
            input=self.inputs[i], label=int(self.y[i]), answer=answer, outcome="wrong",
            radius=0.0, method="trees",
        )  # fmt: skip
        if answer != self.y[i]:
            return bare
        found = rows.decided(i, method.seconds)
        told = replace(
            bare,
            outcome=_OUTCOMES[found.status],
            method=found.by or "trees",
            # The label's lead over the others, the sign of `Goal.margin`.
            margin=None if found.margin is None else -found.margin,
        )
        if found.row is not None:
            return replace(told, witness=tuple(found.row.tolist()))
        return replace(told, radius=float(self.eps[i])) if found.status == "proven" else told

    def _outcome(
        self, i: int, answer: int, radius: float, unsure: Outcome = "abstained"
    ) -> Outcome:
        if answer != self.y[i]:
            return "wrong"
        if radius >= self.eps[i]:
            return "certified"
        return unsure if radius == 0 else "not certified"

    def _classifier(self, batch: int) -> Model:
        """The model with two scores where it gives one."""
        if self.model.access in ("labels", "none"):
            return self.model
        return adapt(self.model, self.model.scores(self.x[:batch]))[0]


def _votes(counts: Array) -> dict[str, int]:
    return {str(k): int(votes) for k, votes in enumerate(counts) if votes}


def _key(digest: str) -> int:
    return int.from_bytes(bytes.fromhex(digest)[:8], "little", signed=True)


def _engine(x: Tensor) -> dict[str, Any]:
    return {
        "withstand": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "dtype": str(x.dtype).removeprefix("torch."),
        "device": str(x.device),
        "threads": torch.get_num_threads(),
    }
