"""What a training costs, and how much more that is than standard training would."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

if TYPE_CHECKING:
    from torch.optim import Optimizer

# Standard steps that are timed in an epoch, each after one that is not.
_TIMED = 4


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a training has cost, checks and selection included.

    samples: trained on, over all epochs; forwards, backwards: passes of single samples through the
    net; seconds: of all processor cores together, of the clock on an accelerator; standard_seconds:
    what standard training on the same batches takes, from steps timed in between.
    """

    samples: int = 0
    forwards: int = 0
    backwards: int = 0
    seconds: float = 0.0
    standard_seconds: float = 0.0

    @property
    def passes(self) -> float:
        """Gradient passes (a forward and a backward) for each sample; standard training has 1."""
        return self.backwards / self.samples if self.samples else 0.0

    @property
    def factor(self) -> float:
        """Times the seconds of standard training."""
        return self.seconds / self.standard_seconds if self.standard_seconds else float("nan")


class Meter:
    """Counts every pass through a net, and times the training against standard steps.

    A copy of the net takes the standard steps, on batches of the training, and their time is not
    counted as the training's.
    """

    def __init__(self, net: nn.Module, optimizer: Callable[[Any], Optimizer]) -> None:
        self.forwards = self.backwards = self.samples = self.steps = self.timed = 0
        self.seconds = self.fetching = self.standard = 0.0
        self._cuda = any(p.is_cuda for p in net.parameters())
        self._copy = deepcopy(net).train()
        self._optimizer = optimizer([p for p in self._copy.parameters() if p.requires_grad])
        self._began = 0.0

    @contextmanager
    def counting(self, *nets: nn.Module) -> Iterator[None]:
        """Passes through these nets and the time count inside."""
        handles = [net.register_forward_hook(self._forward) for net in nets]
        self._began = self._clock()
        try:
            yield
        finally:
            self.pause()
            for handle in handles:
                handle.remove()

    def _forward(self, module: nn.Module, given: tuple[Any, ...], out: Any) -> None:
        if not isinstance(out, Tensor):
            return
        self.forwards += len(out)
        if out.requires_grad:
            out.register_hook(self._backward)  # type: ignore[no-untyped-call]

    def _backward(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)

    def _clock(self) -> float:
        if not self._cuda:
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    def pause(self) -> None:
        """Take in the time until now."""
        now = self._clock()
        self.seconds += now - self._began
        self._began = now

    @contextmanager
    def fetch(self) -> Iterator[None]:
        """The time inside is that of loading a batch, which standard training spends too."""
        clock = time.perf_counter if self._cuda else time.process_time
        began = clock()
        yield
        self.fetching += clock() - began

    def step(self, x: Tensor, y: Tensor, place: int, count: int) -> None:
        """Count a batch, and now and then in an epoch of `count` batches time a standard step."""
        self.samples += len(x)
        self.steps += 1
        if place % max(1, count // _TIMED):
            return
        self.pause()
        # The first one warms the caches, as the steps of a standard training do for each other.
        for timed in (False, True):
            began = self._clock()
            self._optimizer.zero_grad()
            torch.autograd.backward(cross_entropy(self._copy(x), y))
            self._optimizer.step()
            if timed:
                self.standard += self._clock() - began
                self.timed += 1
        self._began = self._clock()

    @property
    def cost(self) -> Cost:
        """What was spent so far."""
        each = self.standard / self.timed if self.timed else 0.0
        return Cost(
            samples=self.samples,
            forwards=self.forwards,
            backwards=self.backwards,
            seconds=self.seconds,
            standard_seconds=each * self.steps + self.fetching if self.timed else 0.0,
        )

    @property
    def factor(self) -> float | None:
        """Times the seconds of standard training so far; None where no standard step was timed."""
        self.pause()
        cost = self.cost
        return cost.factor if cost.standard_seconds else None

    def content(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        self.pause()
        return {name: getattr(self, name) for name in _KEPT}

    def restore(self, content: dict[str, Any]) -> None:
        """Go on from what a checkpoint kept."""
        for name in _KEPT:
            setattr(self, name, content[name])


_KEPT = (
    "forwards",
    "backwards",
    "samples",
    "steps",
    "seconds",
    "fetching",
    "standard",
    "timed",
)


def told(cost: Cost) -> dict[str, Any]:
    """A cost as plain values, with what follows from it."""
    factor = cost.factor if cost.standard_seconds else None
    return {**asdict(cost), "passes": cost.passes, "factor": factor}
