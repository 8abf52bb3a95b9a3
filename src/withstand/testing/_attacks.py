"""What every attack must keep, whoever wrote it."""

from __future__ import annotations

import random
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..attacks import Attack, Result, Status, run
from ..models import FunctionModel, Model, TorchModel
from ..threat import L0, L1, L2, Access, Frozen, Linf, Region, Threat

_BALLS = {"linf": Linf, "l2": L2, "l1": L1, "l0": L0}
_RADII = {"linf": 0.15, "l2": 0.6, "l1": 2.0, "l0": 6.0}
# The whole domain of the victim's pictures.
_WIDEST = {"linf": 1.0, "l2": 8.0, "l1": 64.0, "l0": 64.0}


def check_attack(attack: Attack) -> None:
    """Run an attack through the conformance suite; raises AssertionError with what it broke.

    In each of its norms: examples lie in the region, the ledger is exact and within the limit,
    neither results nor any point that the model is asked about depend on batch size, order or
    compaction, the same seed gives the same result, frozen features and per-sample radii hold, a
    radius of zero fools nobody, and neither model, inputs nor global random state are changed. In
    one of them somebody is fooled, at least where the next class is next to the sample. Takes
    seconds.
    """
    assert attack.norms, "the attack names no norm"
    assert set(attack.norms) <= _BALLS.keys(), f"norms are {attack.norms}; known are {[*_BALLS]}"
    fooled = 0
    for norm in attack.norms:
        net, x, y = _victim()
        asked = _Asked(net)
        model = _model(net, attack.needs)
        region = _BALLS[norm](_RADII[norm])
        before = _state(net, x, y)
        whole = _attacked(attack, model, x, y, region)
        _same(before, _state(net, x, y), f"{norm}: model, inputs or random state changed")
        _check_result(whole, x, region, norm)
        fooled += _fooled(whole)
        _check_batches(attack, model, x, y, region, whole, norm, asked)
        _check_regions(attack, model, x, y, norm)
        _check_limit(attack, model, x, y, region, norm)
        if attack.minimum_norm:
            free = _attacked(attack, model, x, y, _BALLS[norm](np.inf))
            _check_result(free, x, _BALLS[norm](np.inf), norm)
            assert _fooled(free), f"{norm}: no sample is fooled without a radius"
            fooled += _fooled(free)
    # A weak attack may need more queries than are tried here.
    assert fooled or any(_fooled(_near(attack, norm)) for norm in attack.norms), (
        "nobody is fooled, not even next to another class"
    )


def _victim() -> tuple[nn.Module, Tensor, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(1, 4, 3, stride=2, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(64, 5),
        )
        x = torch.rand(26, 1, 8, 8)
    x[-1] = x[0]
    net.eval()
    y = net(x).argmax(1).detach()
    y[1] = (y[1] + 1) % 5
    return net.train(), x, y


class _Asked:
    """The points that a net and its copies are asked about, as bytes."""

    def __init__(self, net: nn.Module) -> None:
        self._points: set[bytes] = set()

        def note(_: nn.Module, given: tuple[Tensor, ...]) -> None:
            self._points.update(row.tobytes() for row in given[0].detach().numpy())

        net.register_forward_pre_hook(note)

    def taken(self) -> set[bytes]:
        """Those since it was last asked for; raises AssertionError without any."""
        points, self._points = self._points, set()
        assert points
        return points


def _fooled(result: Result) -> int:
    return sum(status == Status.FOOLED for status in result.status)


def _near(attack: Attack, norm: str) -> Result:
    """The attack without a limit on samples that half of all small steps bring across."""
    net, x, _ = _victim()
    model, far = TorchModel(net), x.roll(1, 0)
    with model.held():
        y, column = model.labels(x), (-1, 1, 1, 1)
        for _ in range(30):
            middle = (x + far) / 2
            same = (model.labels(middle) == y).reshape(column)
            x, far = torch.where(same, middle, x), torch.where(same, far, middle)
    return _attacked(attack, _model(net, attack.needs), x, y, _BALLS[norm](_WIDEST[norm]))


def _model(net: nn.Module, needs: Access) -> Model:
    if needs == "gradients":
        return TorchModel(net)
    # Held once, since nobody reaches into a black box.
    still = deepcopy(net).eval()

    def function(x: Any) -> Any:
        # A black box is never padded by the engine, so its answers must not depend on the batch.
        rows = torch.from_numpy(np.resize(x, (max(len(x), 4), *x.shape[1:])))
        with torch.no_grad():
            scores = still(rows)[: len(x)]
        return (scores.argmax(1) if needs == "labels" else scores).numpy()

    return FunctionModel(function, returns="labels" if needs == "labels" else "scores")


def _attacked(
    attack: Attack, model: Model, x: Tensor, y: Tensor, region: Region, **options: Any
) -> Result:
    threat = Threat(region=region, access=attack.needs, queries=options.pop("queries", None))
    return run(attack, model, x, y, threat, **{"seed": 1, "batch_size": 26, **options})


def _state(net: nn.Module, x: Tensor, y: Tensor) -> list[Any]:
    tensors = [*net.state_dict().values(), x, y, torch.get_rng_state()]
    grads = [parameter.grad is None for parameter in net.parameters()]
    modes = [module.training for module in net.modules()]
    numpy_state = [v.tolist() if hasattr(v, "tolist") else v for v in np.random.get_state()]
    flags = [parameter.requires_grad for parameter in net.parameters()]
    return [
        [t.clone() for t in tensors], grads, modes, flags, numpy_state, random.getstate()
    ]  # fmt: skip


def _same(before: list[Any], after: list[Any], message: str) -> None:
    assert all(map(torch.equal, before[0], after[0])), message
    assert before[1:] == after[1:], message


def _check_result(result: Result, x: Tensor, region: Region, norm: str) -> None:
    inside = region.contains(x.numpy(), result.x_adv.numpy())
    assert inside.all(), f"{norm}: {int((~inside).sum())} examples lie outside the region"
    box = (result.x_adv >= 0) & (result.x_adv <= 1)
    assert bool(box.all()), f"{norm}: examples lie outside the model's domain"
    assert result.status[1] == Status.ALREADY_WRONG, f"{norm}: a wrong sample is not noticed"
    moved = (result.x_adv != x).flatten(1).any(1)
    fooled = torch.tensor([status == Status.FOOLED for status in result.status])
    assert torch.equal(moved, fooled), f"{norm}: x_adv differs from x where nobody is fooled"
    ledger = result.ledger
    assert bool((ledger.backwards <= ledger.forwards * 32).all()), f"{norm}: backwards uncounted"
    late = ledger.first_success > ledger.forwards
    assert not bool(late.any()), f"{norm}: a first success lies beyond the ledger"
    assert bool((ledger.first_success[fooled] > 0).all()), f"{norm}: a success has no query"


def _check_batches(
    attack: Attack,
    model: Model,
    x: Tensor,
    y: Tensor,
    region: Region,
    whole: Result,
    norm: str,
    asked: _Asked,
) -> None:
    # The last row equals the first, and equals are told apart by their order.
    few = torch.tensor([*range(12), 25])
    mixed = torch.cat((torch.arange(24, 0, -1), torch.tensor([0, 25])))
    compacted = asked.taken()
    for order, options in ((few, {"batch_size": 5}),
                           (mixed, {"batch_size": 17, "compact": False})):  # fmt: skip
        other = _attacked(attack, model, x[order], y[order], region, **options)
        points = asked.taken()
        # Only who is never dropped is asked about all points that others are asked about.
        compacted = compacted - points if order is mixed else compacted | points
        what = f"{options}{' in another order' if order is mixed else ''}"
        assert torch.equal(other.x_adv, whole.x_adv[order]), f"{norm}: {what} changes the examples"
        equal = torch.equal(other.ledger.forwards, whole.ledger.forwards[order])
        assert equal, f"{norm}: {what} changes the ledger"
    assert not compacted, f"{norm}: {len(compacted)} points are asked about in some batches only"


def _check_regions(attack: Attack, model: Model, x: Tensor, y: Tensor, norm: str) -> None:
    ball, radius = _BALLS[norm], _RADII[norm]
    frozen = Frozen(tuple(range(20)))
    radii = np.where(np.arange(len(x)) % 2 == 0, radius, 0.0)
    result = _attacked(attack, model, x, y, ball(radii) & frozen)
    rows = x.numpy(), result.x_adv.numpy()
    assert frozen.contains(*rows).all(), f"{norm}: frozen features moved"
    assert ball(radii).contains(*rows).all(), f"{norm}: radii are mixed up"
    odd = torch.tensor([status == Status.FOOLED for status in result.status])[1::2]
    assert not bool(odd.any()), f"{norm}: a radius of zero fools somebody"


def _check_limit(
    attack: Attack, model: Model, x: Tensor, y: Tensor, region: Region, norm: str
) -> None:
    for limit in (1, 3):
        result = _attacked(attack, model, x, y, region, queries=limit)
        most = int(result.ledger.forwards.max())
        assert most <= limit, f"{norm}: {most} queries where {limit} are allowed"
