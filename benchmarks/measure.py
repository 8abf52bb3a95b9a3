"""What every part measures with: time, queries, distances, tables."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

ORDER = {"linf": float("inf"), "l2": 2, "l1": 1, "l0": 0}
Rows = list[dict[str, Any]]


class Timed(NamedTuple):
    """Seconds of the process, seconds of the clock, and what the call returned."""

    cpu: float
    wall: float
    found: Any


def timed(work: Callable[[], Any]) -> Timed:
    """Time a call."""
    cpu, wall = time.process_time(), time.perf_counter()
    found = work()
    return Timed(time.process_time() - cpu, time.perf_counter() - wall, found)


def forwards(net: nn.Module, x: Tensor, count: int, size: int) -> None:
    """So many forwards of images like x in batches of a size, and nothing else."""
    batch = x.repeat(-(-size // len(x)), 1, 1, 1)[:size]
    with torch.inference_mode():
        for _ in range(-(-count // size)):
            net(batch)


class Counting(nn.Module):
    """Counts the images that a network is asked for; `keep`: those it gave a gradient for too."""

    def __init__(self, net: nn.Module, *, keep: bool = False) -> None:
        super().__init__()
        self.net, self.keep = net, keep
        self.clear()

    def clear(self) -> None:
        """Start again."""
        self.asked = 0
        self.graded: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.asked += len(x)
        # ART's noise is float64.
        out: Tensor = self.net(x.float())
        if self.keep and out.requires_grad:
            kept = x.detach().float().clone()
            out.register_hook(lambda _: self.graded.append(kept))
        return out


def right(net: nn.Module, x: Tensor, y: Tensor, n: int | None = None) -> tuple[Tensor, Tensor]:
    """The first n images that the network gets right, and their labels."""
    with torch.no_grad():
        rows = net(x).argmax(1) == y
    return x[rows][:n], y[rows][:n]


def distances(net: nn.Module, x: Tensor, y: Tensor, adversarial: Tensor, norm: str) -> Tensor:
    """Distances (B,), infinite where the example does not fool or leaves [0, 1]."""
    with torch.no_grad():
        fooled = net(adversarial).argmax(1) != y
    inside = ((adversarial >= 0) & (adversarial <= 1)).flatten(1).all(1)
    length = (adversarial - x).flatten(1).double().norm(p=ORDER[norm], dim=1)
    return torch.where(fooled & inside, length, torch.inf)


def table(rows: Rows) -> str:
    """Rows as a Markdown table."""
    head = list(rows[0])
    lines = [head, ["---"] * len(head), *[[str(row[name]) for name in head] for row in rows]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
