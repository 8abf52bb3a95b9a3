"""Bounds of a network's scores over a region, by any of four methods."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from ..._errors import ThreatError
from ...models import Model
from ...models._torch import device_of
from ...threat import Region, Untargeted
from ._alpha import ascended
from ._branch import branched
from ._crown import Bounded, intervals, refined, relaxed
from ._operations import Interval
from ._questions import questions
from ._reach import reach
from ._trace import exact_graph

Method = Literal["ibp", "crown-ibp", "crown", "alpha-crown", "beta-crown"]
METHODS: tuple[Method, ...] = get_args(Method)
STEPS = 20
"""Steps of slopes' ascent in alpha-CROWN."""
PARTS = 1000
"""The most parts that beta-CROWN splits a region into, for one function of one sample."""


def tightened(bounded: Bounded, method: Method) -> Bounded:
    """The bounds of hidden layers that a method works with, from those of the one before it."""
    if method == "crown-ibp":
        return relaxed(bounded)
    return refined(bounded) if method == "crown" else bounded


def least(
    bounded: Bounded,
    a: Tensor,
    owner: Tensor,
    method: Method,
    enough: Tensor | None = None,
) -> Tensor:
    """Lower bounds (R,) of linear functions a (R, K) of the scores of sample `owner` (R,)."""
    if method == "alpha-crown":
        return ascended(bounded, a, owner, steps=STEPS, enough=enough)
    if method == "beta-crown":
        found = [
            branched(
                bounded.take(sample[None]),
                function[None],
                enough=None if enough is None else float(enough[i]),
                steps=STEPS,
                parts=PARTS,
            )
            for i, (function, sample) in enumerate(zip(a, owner, strict=True))
        ]
        return torch.stack(found) if found else a.new_zeros(0)
    found = [
        bounded.least(bounded.graph.output, a[rows], owner[rows], near=method == "ibp")
        for rows in bounded.chunks(len(a))
    ]
    return torch.cat(found) if found else a.new_zeros(0)


def up_to(method: str) -> tuple[Method, ...]:
    """The method and all cheaper ones; raises ThreatError for a name that is none."""
    for place, name in enumerate(METHODS):
        if name == method:
            return METHODS[: place + 1]
    raise ThreatError(f"method is {method!r}; it is one of {', '.join(METHODS)}")


def bounds(net: nn.Module | Model, x: Any, region: Region, *, method: str = "crown") -> Interval:
    """Lower and upper bounds (B, K) of the scores over the region around x (B, ...), in float64.

    method: ibp (Gowal et al. 2018), crown-ibp (Zhang et al. 2020), crown (Zhang et al. 2018),
    alpha-crown (Xu et al. 2021) or, for small networks, beta-crown (Wang et al. 2021); each takes
    the best of its own and the cheaper ones' bounds. A model's region is cut to its domain. Raises
    ModelError for operations that bounds do not pass through, and ThreatError for a region without
    an end.
    """
    begun = _begun(net, x, region)
    samples, classes = len(begun.reach.x), begun.graph.shapes[begun.graph.output][0]
    eye = torch.eye(classes, dtype=torch.float64, device=begun.reach.x.device)
    both = torch.cat((eye, -eye)).expand(samples, -1, -1)
    found = _lower(begun, both, up_to(method))
    # A score's own interval counts too, where it is tighter than the merged last layer's.
    box = begun.boxes[begun.graph.output]
    return Interval(
        torch.maximum(found[:, :classes], box.lower), torch.minimum(-found[:, classes:], box.upper)
    )


def margins(
    net: nn.Module | Model, x: Any, y: Any, region: Region, *, method: str = "crown"
) -> Tensor:
    """Lower bounds (B,) of how far the label's score leads all others over the region, in float64.

    The difference of two scores is bounded as one function. Methods and errors as of `bounds`.
    """
    begun = _begun(net, x, region)
    classes = begun.graph.shapes[begun.graph.output][0]
    y = torch.as_tensor(y, device=begun.reach.x.device)
    return _lower(begun, questions(Untargeted(), y, classes).a, up_to(method)).amin(1)


def _begun(net: nn.Module | Model, x: Any, region: Region) -> Bounded:
    if isinstance(net, nn.Module):
        device, domain = next((p.device for p in net.parameters()), torch.device("cpu")), None
    else:
        device, domain = device_of(net), net.domain
    x = torch.as_tensor(x).detach().to(device, torch.float64)
    with torch.no_grad():
        return intervals(exact_graph(net, x), reach(region, x, domain))


def _lower(bounded: Bounded, a: Tensor, methods: tuple[Method, ...]) -> Tensor:
    """The best lower bounds (B, S) of functions a (B, S, K) of the scores by these methods."""
    owner = torch.arange(len(a), device=a.device).repeat_interleave(a.shape[1])
    rows = a.reshape(len(owner), -1)
    best = a.new_full((len(owner),), -torch.inf)
    with torch.no_grad():
        for method in methods:
            bounded = tightened(bounded, method)
            best = torch.maximum(best, least(bounded, rows, owner, method))
    return best.reshape(a.shape[:2])
