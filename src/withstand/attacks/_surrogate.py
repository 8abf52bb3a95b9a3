"""A stand-in for a model that shows only its answers, trained on answers to well-chosen queries."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from .._errors import BudgetError, DataError, ModelError, answering
from ..models import Model, TorchModel
from ..threat import L2
from ._ball import reach


def train_surrogate(
    victim: Model,
    x: Tensor,
    net: nn.Module,
    *,
    queries: int,
    seed: int = 0,
    steps: int = 300,
    step_size: float = 0.2,
    learning_rate: float = 0.05,
    batch_size: int = 64,
) -> TorchModel:
    """A copy of `net`, trained to answer as the victim does on exactly `queries` of its answers.

    The first queries are inputs x (N, ...), a random choice where N is more than `queries`. Then
    each round asks what is known again, moved along the sign of the gradient of the output that the
    victim's answer names (Papernot et al. 2017, algorithm 1), to and fro by turns, until the
    queries are spent. A victim with scores teaches its probabilities, scores being logits unless
    they sum to 1; one with labels teaches those. Answers that are not finite teach nothing, but
    count. Training goes on from round to round.

    net: maps raw input (B, ...) to one output a class, and stays as it is; its weights are the
    start. step_size: share of the domain's width, or of the spread of x where that is infinite.
    steps: of training in each round, on batches drawn from all answers. Raises BudgetError,
    DataError, ThreatError (x outside the domain) or ModelError; a victim that fails in the middle
    has been asked no more than `queries`.
    """
    if queries < 1:
        raise BudgetError(f"queries is {queries}; give at least 1")
    if len(x) == 0:
        raise DataError("x has no samples; give the surrogate some inputs of the victim's kind")
    if steps < 1 or batch_size < 1:
        raise ModelError(f"steps is {steps}, batch_size {batch_size}; give at least 1 of each")
    net = deepcopy(net).eval()
    weights = [weight for weight in net.parameters() if weight.requires_grad]
    if not weights:
        raise ModelError("the surrogate has no parameters to train; give a net that has some")
    device = weights[0].device
    pupil = TorchModel(net, domain=victim.domain)
    lower, upper, *_ = reach(L2(np.inf) & victim.domain, x.detach())
    spread = x.detach().amax(0) - x.detach().amin(0)
    stride = step_size * torch.where((upper - lower).isfinite(), upper - lower, spread)
    # A net that does not take such inputs is found out before the victim is asked.
    pupil.scores(x.detach()[:1].to(device))
    known = _Known(victim, batch_size)
    random = torch.Generator().manual_seed(seed)
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        origin = torch.randperm(len(x), generator=random)[:queries]
        fresh, turn = x.detach()[origin].to(device), 1.0
        # Bounds are rows' own: a moved input keeps those of the input that it descends from.
        bounds = [part[origin].to(device) for part in (lower, upper, stride)]
        while True:
            known.ask(fresh)
            _fit(pupil, weights, known, steps, learning_rate, random)
            left = queries - known.asked
            if not left:
                break
            rows = torch.randperm(known.asked, generator=random)[:left].to(device)
            low, high, far = (part[rows] for part in bounds)
            base = known.inputs[rows]
            slope = _slopes(pupil, base, known.answer[rows], batch_size)
            fresh = (base + turn * far * slope.sign()).clamp(low, high)
            bounds = [torch.cat((part, part[rows])) for part in bounds]
            turn = -turn
    net.eval()
    return pupil


class _Known:
    """Inputs that were asked, the victim's label of each, and what it teaches (N, K)."""

    def __init__(self, victim: Model, batch: int) -> None:
        self.victim, self.batch = victim, batch
        self.asked = 0
        self.parts: list[tuple[Tensor, Tensor]] = []
        self.probable: bool | None = None

    def ask(self, x: Tensor) -> None:
        at = getattr(self.victim, "device", torch.device("cpu"))
        with self.victim.held():
            for rows in torch.split(x, self.batch):
                self.asked += len(rows)
                self.parts.append((rows, self._taught(rows.to(at)).to(x.device)))

    def _taught(self, rows: Tensor) -> Tensor:
        if self.victim.access == "labels":
            return self.victim.labels(rows)
        scores = self.victim.scores(rows)
        if scores.shape[1] < 2:
            raise ModelError(
                "the victim answers with one number; a surrogate learns classes, adapt it first"
            )
        if self.probable is None:
            sums = scores.double().sum(1)
            self.probable = bool((scores >= 0).all() and ((sums - 1).abs() < 1e-3).all())
        return scores if self.probable else scores.softmax(1)

    @property
    def inputs(self) -> Tensor:
        return torch.cat([rows for rows, _ in self.parts])

    @property
    def taught(self) -> Tensor:
        """Labels (N,) or probabilities (N, K)."""
        return torch.cat([answers for _, answers in self.parts])

    @property
    def answer(self) -> Tensor:
        taught = self.taught
        return taught if taught.ndim == 1 else taught.argmax(1)


def _fit(
    pupil: TorchModel,
    weights: list[nn.Parameter],
    known: _Known,
    steps: int,
    rate: float,
    random: torch.Generator,
) -> None:
    """Descend on all that is known, at a rate that falls to nothing."""
    x, wanted = known.inputs, known.taught
    net, batch = pupil.net, known.batch
    net.eval()
    classes = pupil.scores(x[:1]).shape[1]
    if wanted.ndim == 1:
        if int(wanted.max()) >= classes or int(wanted.min()) < 0:
            raise ModelError(
                f"the victim answers with class {int(wanted.max())}, the surrogate has {classes} "
                "outputs; give it one for each class"
            )
        wanted = one_hot(wanted, classes).to(x.dtype)
    elif wanted.shape[1] != classes:
        raise ModelError(
            f"the victim has {wanted.shape[1]} scores, the surrogate {classes} outputs; give it "
            "one for each class"
        )
    fine = wanted.isfinite().all(1)
    x, wanted = x[fine], wanted[fine]
    if not len(x):
        raise ModelError("the victim gave no finite answer; nothing can be learned from it")
    net.train()
    speeds = [torch.zeros_like(weight) for weight in weights]
    for step in range(steps):
        # Drawn with replacement: batch normalisation cannot do with a batch of one.
        rows = torch.randint(len(x), (batch,), generator=random).to(x.device)
        with answering(x[rows]):
            loss = cross_entropy(net(x[rows]), wanted[rows])
        slopes = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
        # Momentum by hand: torch.optim imports the compiler, which takes seconds.
        with torch.no_grad():
            for weight, speed, slope in zip(weights, speeds, slopes, strict=True):
                weight.sub_(rate * (1 - step / steps) * speed.mul_(0.9).add_(slope))
    if not all(bool(weight.isfinite().all()) for weight in weights):
        raise ModelError(f"training diverged at learning_rate {rate:g}; give a smaller one")


def _slopes(pupil: TorchModel, x: Tensor, answer: Tensor, batch: int) -> Tensor:
    with pupil.held():
        parts = zip(torch.split(x, batch), torch.split(answer, batch), strict=True)
        return torch.cat([pupil.jacobian(rows, to[:, None])[1][:, 0] for rows, to in parts])
