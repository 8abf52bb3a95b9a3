"""Proofs for samples one by one: cheap bounds for all, dear ones for those still open."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ..._errors import ModelError
from ...models import Model
from ...models._torch import device_of
from ...stats import Interval, wilson
from ...threat import Threat
from ._bounds import METHODS, Method, least, tightened, up_to
from ._crown import intervals
from ._graph import Graph
from ._questions import Questions, questions
from ._reach import Reach, reach
from ._trace import exact_graph, served

_BATCH = 64
# The bounds' own rounding, many times over: they are carried through each layer twice.
_OWN = 2.0**-48
# How far torch may round the factors of products of float32; tensor cores cut TF32 off.
_PRODUCTS = {"tf32": 2.0**-10, "bf16": 2.0**-8}


@dataclass(frozen=True, kw_only=True, eq=False)
class Proofs:
    """What is proven of each sample; a sample that is not proven may be robust or not.

    proven: whether no input of the region reaches the attacker's goal, (N,); margin: a lower bound
    of how far the scores stay from it, less `rounding`, (N,); method: what gave the margin, (N,);
    seconds: time spent on each sample, (N,).
    arithmetic: what the proof covers, `float32` (the model as it is served, whatever the order of
    its sums), `tf32` (where torch may compute products so) or `real` (exact arithmetic); rounding:
    what was taken off for it, (N,).
    """

    proven: NDArray[np.bool_]
    margin: NDArray[np.float64]
    method: tuple[Method, ...]
    seconds: NDArray[np.float64]
    rounding: NDArray[np.float64]
    arithmetic: str
    threat: dict[str, Any]

    @property
    def certified_accuracy(self) -> Interval:
        """The share of proven samples, a lower bound of the true robust accuracy on them."""
        return wilson(int(self.proven.sum()), len(self.proven))


def prove(
    model: Model,
    x: Any,
    y: Any,
    threat: Threat,
    *,
    method: str = "alpha-crown",
    arithmetic: str = "served",
    progress: Callable[[int, int], None] | None = None,
) -> Proofs:
    """Prove that the threat's goal fails on samples x (N, ...) with labels y (N,).

    IBP first, then CROWN-IBP, CROWN, alpha-CROWN and beta-CROWN up to `method`, each on the samples
    that are still open; beta-CROWN, which splits the region, is for small networks. Bounds are
    computed in float64. arithmetic: `served` takes off what rounding in the model's own precision
    can change (Higham 2002, 3.1), TF32 and bfloat16 products included where torch is told to use
    them, as it is by default for convolutions on a GPU; `real` proves the statement for exact
    arithmetic. progress: called with samples done, all. Raises ModelError for
    operations that bounds do not pass through, ThreatError for a goal or region that they cannot
    state.
    """
    methods = up_to(method)
    if arithmetic not in ("served", "real"):
        raise ModelError(f"arithmetic is {arithmetic!r}; it is served or real")
    device = device_of(model)
    x, y = torch.as_tensor(x).to(device), torch.as_tensor(y).to(device)
    if not len(x):
        raise ModelError("there are no samples to prove anything of; give at least one")
    with model.held(), torch.no_grad():
        kind = _precision(model, x) if arithmetic == "served" else _Kind("real", 0.0)
        graph = exact_graph(model, x[:1].double())
        asked = questions(threat.goal, y, graph.shapes[graph.output][0])
        parts = []
        for rows in torch.split(torch.arange(len(x), device=device), _BATCH):
            inside = reach(threat.take(rows.cpu().numpy()).region, x[rows], model.domain)
            part = Questions(asked.a[rows], asked.offset[rows], asked.margin)
            parts.append(_proven(graph, inside, part, methods, kind))
            if progress is not None:
                progress(int(rows[-1]) + 1, len(x))
    margin, place, seconds, rounding = (np.concatenate(each) for each in zip(*parts, strict=True))
    return Proofs(
        proven=margin > 0,
        margin=margin,
        method=tuple(METHODS[i] for i in place),
        seconds=seconds,
        rounding=rounding,
        arithmetic=kind.name,
        threat=threat.describe(),
    )


class _Kind(NamedTuple):
    """An arithmetic by its name, and its unit roundoff: of values, and of factors of products."""

    name: str
    unit: float
    factors: float = 0.0


class _Types(TorchFunctionMode):
    """Notes the types of all numbers that are made inside."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[torch.dtype] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for each in found if isinstance(found, tuple | list) else (found,):
            if isinstance(each, Tensor) and each.is_floating_point():
                self.seen.add(each.dtype)
        return found


def _precision(model: Model, x: Tensor) -> _Kind:
    """The coarsest arithmetic that the model computes in.

    With autocast, casts of the model's own, and products that torch may round further.
    """
    with _Types() as types:
        model.scores(x[:1])
    own = {p.dtype for p in served(model).parameters() if p.is_floating_point()}
    coarsest: torch.dtype = max(
        own | types.seen or {x.dtype}, key=lambda dtype: torch.finfo(dtype).eps
    )
    name, unit = str(coarsest).removeprefix("torch."), torch.finfo(coarsest).eps / 2
    found = _products(x.device) & _PRODUCTS.keys() if coarsest == torch.float32 else set()
    if not found:
        return _Kind(name, unit)
    name = max(found, key=_PRODUCTS.__getitem__)
    return _Kind(name, unit, _PRODUCTS[name])


def _products(device: torch.device) -> set[str]:
    """How torch is told to compute products of float32 on a device."""
    backends: Any = torch.backends
    if not hasattr(backends, "fp32_precision"):  # before torch 2.9
        if device.type == "cuda":
            reduced = backends.cudnn.allow_tf32 or backends.cuda.matmul.allow_tf32
            return {"tf32"} if reduced else set()
        return {"bf16"} if torch.get_float32_matmul_precision() == "medium" else set()
    kinds: tuple[Any, ...] = (backends.mkldnn.conv, backends.mkldnn.matmul)
    if device.type == "cuda":
        kinds = (backends.cudnn.conv, backends.cudnn.rnn, backends.cuda.matmul)
    return {str(kind.fp32_precision) for kind in kinds}


def _proven(
    graph: Graph, inside: Reach, asked: Questions, methods: tuple[Method, ...], kind: _Kind
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Margins, places of the methods that gave them, seconds and allowances, each (B,)."""
    samples, count = asked.a.shape[:2]
    began = perf_counter()
    bounded = intervals(graph, inside)
    rounding = graph.rounding(bounded.boxes, kind.unit + _OWN, kind.factors)
    allowance = torch.einsum("bsk,bk->bs", asked.a.abs(), rounding)
    offset = asked.offset - allowance
    values = asked.a.new_full((samples, count), -torch.inf)
    margin = asked.a.new_full((samples,), -torch.inf)
    place = torch.zeros(samples, dtype=torch.long, device=margin.device)
    seconds = np.zeros(samples)
    open_ = torch.arange(samples, device=margin.device)
    for step, method in enumerate(methods):
        bounded = tightened(bounded, method)
        wanted, functions = (values[open_] <= 0).nonzero(as_tuple=True)
        rows = open_[wanted]
        shift = offset[rows, functions]
        found = least(bounded, asked.a[rows, functions], wanted, method, enough=-shift) + shift
        values[rows, functions] = torch.maximum(values[rows, functions], found)
        reached = asked.margin(values[open_])
        place[open_[reached > margin[open_]]] = step
        margin[open_] = reached
        now = perf_counter()
        seconds[open_.cpu().numpy()] += (now - began) / len(open_)
        began, left = now, (reached <= 0).nonzero()[:, 0]
        open_ = open_[left]
        if not len(open_):
            break
        bounded = bounded.take(left)
    worst = allowance.amax(1)
    return margin.cpu().numpy(), place.cpu().numpy(), seconds, worst.cpu().numpy()
