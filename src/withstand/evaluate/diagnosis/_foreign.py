"""Attacks of others: does one find what it could, and does it keep what it found?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ..._errors import DataError, ModelError, ThreatError
from ...attacks import APGD, FGSM, Attack, run
from ...data import Dataset
from ...models import Model, TorchModel
from ...stats import mcnemar
from ...threat import Goal, Threat
from .._report import Finding, Trust, Verdict

ForeignAttack = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""From a network, inputs (B, ...) and labels (B,) to examples (B, ...)."""

_STEPS = 50
_ROUNDED = 1e-5


def diagnose_attack(
    attack: ForeignAttack,
    model: Model,
    data: Dataset,
    threat: Threat,
    *,
    seed: int = 0,
    batch_size: int = 64,
) -> Trust:
    """Watch an attack of any library on a TorchModel, and compare it with short ones of our own.

    attack: is called in batches with a network that notes every query, and returns its examples.
    The findings say what it threw away, where it left the region, and what it did not find; they
    say nothing of the model. Raises ModelError for a model that is no TorchModel, ThreatError for a
    norm without a gradient attack, and DataError for what is no batch of examples.
    """
    if not isinstance(model, TorchModel):
        raise ModelError(
            f"the model is a {type(model).__name__}; an attack of another library needs a network: "
            "give a TorchModel"
        )
    if threat.norm not in FGSM.norms:
        raise ThreatError(
            f"the norm is {threat.norm}; attacks are compared in {' and '.join(FGSM.norms)}"
        )
    x, y = (torch.from_numpy(np.ascontiguousarray(v)).to(model.device) for v in (data.x, data.y))
    with model.held():
        right = ~threat.goal.hit(threat.goal.decide(_ask(model, x, batch_size)), y)
        rows = right.nonzero()[:, 0]
        if not len(rows):
            raise DataError("the model is right on none of the samples; give some that it knows")
        seen = _watched(
            attack, model, x[rows], y[rows], threat.take(rows.cpu().numpy()), batch_size
        )
        rivals = [
            run(
                rival,
                model,
                x[rows],
                y[rows],
                threat.take(rows.cpu().numpy()),
                seed=seed,
                batch_size=batch_size,
            ).success.cpu()
            for rival in _rivals()
        ]
    return Trust(findings=tuple(_findings(seen, *rivals)))


def _rivals() -> tuple[Attack, Attack]:
    return FGSM(), APGD(steps=_STEPS, loss="pma")


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """By sample (N,): fooled inside the region by some query, by what was returned; what was
    returned lies outside; the margin there exceeds that at x."""

    visited: Tensor
    returned: Tensor
    outside: Tensor
    worse: Tensor


class _Watch(nn.Module):
    """A network that notes which samples its queries have fooled inside the region."""

    def __init__(self, net: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, threat: Threat):
        super().__init__()
        self._net, self._x, self._y, self._threat = net, x, y, threat
        self.visited = torch.zeros(len(x), dtype=torch.bool)

    def forward(self, x: Tensor) -> Tensor:
        scores = self._net(x)
        with torch.no_grad():
            rows = self._rows(x.detach())
            hit = _hits(self._threat.goal, scores.detach(), self._y[rows])
            inside = self._inside(x.detach(), rows)
        self.visited[rows.cpu()[hit & inside]] = True
        return scores

    def _rows(self, x: Tensor) -> Tensor:
        """Whose each query is: its place, or the nearest sample where the places do not fit."""
        places = torch.arange(len(self._x), device=x.device)
        if len(x) == len(places) and bool(self._inside(x, places).any()):
            return places
        return torch.cdist(x.flatten(1).double(), self._x.flatten(1).double()).argmin(1)

    def _inside(self, x: Tensor, rows: Tensor) -> Tensor:
        return _within(self._threat, self._x, x, rows)


def _watched(
    attack: ForeignAttack, model: TorchModel, x: Tensor, y: Tensor, threat: Threat, batch: int
) -> _Seen:
    parts = []
    for start in range(0, len(x), batch):
        place = np.arange(start, min(start + batch, len(x)))
        here, labels, bound = x[place], y[place], threat.take(place)
        watch = _Watch(_network(model), here, labels, bound).eval()
        with torch.enable_grad():
            found = attack(watch, here.clone(), labels.clone())
        if not isinstance(found, Tensor) or found.shape != here.shape:
            told = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise DataError(
                f"the attack returned {told} for inputs of shape {tuple(here.shape)}; return the "
                "examples alone"
            )
        found = found.detach().to(here)
        with torch.no_grad():
            before, scores = model.scores(here), model.scores(found)
        inside = _within(bound, here, found, torch.arange(len(here), device=here.device))
        returned = _hits(bound.goal, scores, labels) & inside
        margin = bound.goal.margin
        worse = (margin(scores, labels) > margin(before, labels)).cpu()
        parts.append((watch.visited, returned, ~inside, worse & ~returned))
    visited, returned, outside, worse = map(torch.cat, zip(*parts, strict=True))
    return _Seen(visited=visited, returned=returned, outside=outside, worse=worse)


def _network(model: TorchModel) -> Callable[[Tensor], Tensor]:
    net, before = model.net, model.preprocess
    return net if before is None else lambda x: net(before(x))


def _within(threat: Threat, x: Tensor, points: Tensor, rows: Tensor) -> Tensor:
    """Who is inside, but for what other libraries round: a hundred-thousandth of the change."""
    here = x[rows].double()
    nearer = here + (points.double() - here) * (1 - _ROUNDED)
    region = threat.take(rows.cpu().numpy()).region
    return torch.from_numpy(region.contains(here.cpu().numpy(), nearer.cpu().numpy()))


def _hits(goal: Goal, scores: Tensor, y: Tensor) -> Tensor:
    return goal.hit(goal.decide(scores), y).cpu()


def _ask(model: TorchModel, x: Tensor, batch: int) -> Tensor:
    return torch.cat([model.scores(x[i : i + batch]) for i in range(0, len(x), batch)])


def _findings(seen: _Seen, single: Tensor, reference: Tensor) -> list[Finding]:
    found = seen.returned
    return [
        _finding(
            "discarded successes",
            _share(seen.visited & ~found),
            (0.0, 0.01),
            "share that the attack fooled on its way, and not with what it returned",
            "keep the best point of each sample, not the last one",
        ),
        _finding(
            "outside the region",
            _share(seen.outside),
            (0.0, 0.0),
            "share of the returned examples that the threat does not allow",
            "project onto the region last, in the precision in which examples are stored",
        ),
        _finding(
            "objective falls",
            _share(seen.worse),
            (0.05, 0.5),
            "share for which the model is surer at the returned point than without an attack",
            "look at the sign of the step and of the loss",
        ),
        _finding(
            "single step beats the attack",
            _lead(single & ~found, found & ~single),
            (0.01, 0.05),
            "share that one step along the gradient fooled and the attack did not, where that is "
            "no chance (McNemar, p < 0.05)",
            "look at the sign and the size of the steps, and at the loss",
        ),
        _finding(
            "reference beats the attack",
            _lead(reference & ~found, found & ~reference),
            (0.01, 0.2),
            f"share that APGD with {_STEPS} steps fooled and the attack did not, where that is no "
            "chance (McNemar, p < 0.05)",
            "give it more steps, another step size or another loss",
        ),
    ]


def _share(which: Tensor) -> float:
    return float(which.double().mean())


def _lead(ours: Tensor, theirs: Tensor) -> float:
    only, other = int(ours.sum()), int(theirs.sum())
    return _share(ours) if only >= 2 and mcnemar(only, other) < 0.05 else 0.0


def _finding(
    check: str, value: float, limits: tuple[float, float], meaning: str, fix: str
) -> Finding:
    amber, red = limits
    verdict: Verdict = "red" if value > red else "amber" if value > amber else "green"
    return Finding(
        check=check, value=value, threshold=amber, verdict=verdict, meaning=meaning, fix=fix
    )
