"""Attacks on labels alone: closed forms, odd inputs and goals."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from withstand import attacks
from withstand.attacks import (
    CGBA,
    Attack,
    BoundaryAttack,
    Donors,
    Examples,
    RayS,
    Result,
    SignOPT,
    Status,
    SurFree,
    sample_keys,
)
from withstand.evaluate import evaluate
from withstand.models import FunctionModel, TorchModel
from withstand.threat import L2, Frozen, Linf, Targeted, Threat

ATTACKS: tuple[Attack, ...] = (BoundaryAttack(), CGBA(), RayS(), SignOPT(), SurFree())
each = pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: type(attack).__name__)


def threat_for(attack: Attack, radius: float = torch.inf, **options: object) -> Threat:
    region = (L2 if "l2" in attack.norms else Linf)(radius)
    return Threat(region=region, access="labels", **options)


def least(attack: Attack, model: TorchModel, x: Tensor, y: Tensor, queries: int) -> Result:
    return attacks.run(replace(attack, queries=queries), model, x, y, threat_for(attack))


def linear(features: int, classes: int = 2) -> nn.Linear:
    net = nn.Linear(features, classes)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        net.weight.copy_(torch.randn(classes, features, generator=generator))
        net.bias.zero_()
    return net


def box(features: int, n: int, seed: int = 0) -> Tensor:
    return torch.rand(n, features, generator=torch.Generator().manual_seed(seed))


@each
def test_it_comes_near_the_closed_form_distance_of_a_linear_model(attack: Attack) -> None:
    net, x = linear(60), box(60, 8)
    # Far from the box's faces, so that only the boundary counts.
    x = 0.4 + 0.2 * x
    scores = net(x).detach()
    y = scores.argmax(1)
    normal = (net.weight[1] - net.weight[0]).detach()
    dual = normal.norm() if "l2" in attack.norms else normal.abs().sum()
    exact = (scores[:, 1] - scores[:, 0]).abs() / dual
    model = TorchModel(net, domain=(-9.0, 9.0))
    found = least(attack, model, x, y, 1000).distance
    slack = 1.2 if isinstance(attack, BoundaryAttack | SignOPT) else 1.1
    assert bool((found >= exact - 1e-5).all())
    assert float((found / exact).median()) <= slack
    earlier = least(attack, model, x, y, 150).distance
    assert bool((found <= earlier).all())
    assert float(found.mean()) < float(earlier.mean())


@each
def test_it_says_when_there_is_nothing_to_start_from(attack: Attack) -> None:
    constant = FunctionModel(lambda a: a.reshape(len(a), -1)[:, :2] * 0 + [[1, 0]])
    x, y = box(12, 3).reshape(3, 1, 3, 4), torch.zeros(3, dtype=torch.long)
    result = attacks.run(replace(attack, starts=7), constant, x, y, threat_for(attack))
    assert set(result.status) == {Status.NO_START}
    assert torch.equal(result.x_adv, x)
    assert int(result.ledger.forwards.max()) == 8


@each
@pytest.mark.parametrize("shape", [(1,), (5,), (1, 5, 9), (3, 4, 6), (7, 3)], ids=str)
def test_it_knows_rows_and_pictures_of_any_shape(attack: Attack, shape: tuple[int, ...]) -> None:
    features = int(torch.tensor(shape).prod())
    net = nn.Sequential(nn.Flatten(), linear(features))
    with torch.no_grad():
        net[1].bias.copy_(-0.5 * net[1].weight.sum(1))
    x = box(features, 4).reshape(4, *shape)
    y = net(x).argmax(1)
    result = least(attack, TorchModel(net), x, y, 200)
    assert set(result.status) == {Status.FOOLED}
    assert bool((net(result.x_adv).argmax(1) != y).all())


@each
def test_it_keeps_to_bounds_of_each_feature_and_to_frozen_ones(attack: Attack) -> None:
    lower, upper = torch.tensor([-1.0, 0, -3, 10, 0, 0]), torch.tensor([1.0, 100, -2, 11, 1, 0.5])
    net = linear(6)
    with torch.no_grad():
        net.weight /= (upper - lower).square()
        net.bias.copy_(-(net.weight @ (lower + upper)) / 2)
    x = lower + (upper - lower) * box(6, 12)
    y = net(x).argmax(1)
    threat = threat_for(attack)
    threat = replace(threat, region=threat.region & Frozen((0, 3)))
    model = TorchModel(net, domain=(lower.numpy(), upper.numpy()))
    result = attacks.run(replace(attack, queries=150), model, x, y, threat)
    assert Status.FOOLED in result.status
    assert bool(((result.x_adv >= lower) & (result.x_adv <= upper)).all())
    assert torch.equal(result.x_adv[:, [0, 3]], x[:, [0, 3]])


@each
def test_it_reaches_a_target_where_it_finds_a_start(attack: Attack) -> None:
    net = nn.Sequential(nn.Flatten(), linear(16, 3))
    x = 2 * box(16, 6).reshape(6, 1, 4, 4) - 1
    y = net(x).argmax(1)
    x, y = x[y != 1], y[y != 1]
    threat = threat_for(attack, goal=Targeted(1))
    model = TorchModel(net, domain=(-1.0, 1.0))
    few, many = (
        attacks.run(replace(attack, queries=queries), model, x, y, threat) for queries in (60, 300)
    )
    fooled = torch.tensor([status == Status.FOOLED for status in many.status])
    assert bool(fooled.any())
    assert bool((net(many.x_adv).argmax(1) == 1)[fooled].all())
    assert float(many.distance[fooled].mean()) < float(few.distance[fooled].mean())


@each
def test_it_stops_at_the_first_success_within_a_radius(attack: Attack) -> None:
    net, x = linear(20), box(20, 6)
    y = net(x).argmax(1)
    model = TorchModel(net)
    free = least(attack, model, x, y, 300)
    radius = float(free.distance.median())
    bounded = attacks.run(replace(attack, queries=300), model, x, y, threat_for(attack, radius))
    within = free.distance <= radius
    assert torch.equal(bounded.success, within)
    assert bool((bounded.ledger.forwards <= free.ledger.forwards).all())
    first = bounded.ledger.first_success[within]
    assert torch.equal(bounded.ledger.forwards[within] >= first, torch.ones_like(first) > 0)


@each
def test_it_improves_with_queries(attack: Attack) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        net = nn.Sequential(nn.Flatten(), nn.Linear(36, 24), nn.ReLU(), nn.Linear(24, 4))
    x = box(36, 8, seed=3).reshape(8, 1, 6, 6)
    y = net(x).argmax(1)
    far, near, nearer = (
        least(attack, TorchModel(net), x, y, queries).distance for queries in (50, 150, 450)
    )
    assert bool((nearer <= near).all())
    assert bool((near <= far).all())
    assert float(nearer.mean()) < float(near.mean()) < float(far.mean())


@pytest.mark.parametrize("queries", [150, 200, 260, 300])
def test_cgba_leaves_no_estimate_without_its_search(queries: int) -> None:
    net, x = linear(60), 0.4 + 0.2 * box(60, 1)
    asked: list[int] = []

    def labels(points: Tensor) -> Tensor:
        asked.append(len(points))
        return net(torch.as_tensor(points, dtype=torch.float32)).argmax(1)

    model = FunctionModel(labels, returns="labels", domain=(-9.0, 9.0))
    y = net(x).argmax(1)
    result = attacks.run(CGBA(queries=queries), model, x, y, threat_for(CGBA()))
    assert int(result.ledger.forwards) <= queries + 1
    estimates = [place for place, size in enumerate(asked) if size > 1]
    # One that was cut off would be the last that is asked.
    assert len(asked) - 1 - estimates[-1] >= 5


@pytest.mark.parametrize(
    "attack",
    [
        attacks.HopSkipJump(queries=300),
        attacks.CGBA(queries=300),
        attacks.SurFree(queries=300),
        attacks.SignOPT(queries=300),
        attacks.BoundaryAttack(queries=300),
    ],
    ids=lambda attack: type(attack).__name__,
)
def test_a_wanted_class_is_begun_with_inputs_of_others(attack: attacks.Attack, digits: Any) -> None:
    x, y = torch.from_numpy(digits.data.x), torch.from_numpy(digits.data.y)
    noise = torch.rand(200, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with digits.model.held():
        answer = digits.model.labels(x)
        # A class that nothing is taken for by chance.
        seen = digits.model.labels(torch.cat((noise, noise.round(), 1 - x)))
        target = int(seen.bincount(minlength=10).argmin())
    threat = Threat(region=L2(np.inf), goal=Targeted(target), access="labels")
    others, own = y != target, (answer == target).numpy()
    donors = Donors(digits.data.x[own], answer.numpy()[own])
    attack = replace(attack, starts=10)
    alone = attacks.run(attack, digits.model, x[others], y[others], threat)
    begun = attacks.run(replace(attack, rows=donors), digits.model, x[others], y[others], threat)
    assert bool(begun.success.all())
    assert int(alone.success.sum()) < len(alone.success)
    both = alone.success
    if bool(both.any()):
        assert float(begun.distance[both].median()) <= 1.2 * float(alone.distance[both].median())
    # A row of a run is what it is alone.
    single = attacks.run(
        replace(attack, rows=donors), digits.model, x[others][5:6], y[others][5:6], threat
    )
    assert torch.equal(single.x_adv[0], begun.x_adv[5])


def test_what_was_found_before_is_begun_with(digits: Any) -> None:
    x, y = torch.from_numpy(digits.data.x[:6]), torch.from_numpy(digits.data.y[:6])
    threat = Threat(region=L2(np.inf), access="labels")
    first = attacks.run(attacks.CGBA(queries=200), digits.model, x, y, threat)
    kept = Examples(first.x_adv.numpy(), sample_keys(x, y).numpy())
    attack = attacks.CGBA(queries=200, rows=kept)
    again = attacks.run(attack, digits.model, x, y, threat)
    assert bool((again.distance <= first.distance * 1.0001).all())


@pytest.mark.parametrize("region", [L2(1.5), Linf(0.3)], ids=["l2", "linf"])
def test_an_evaluation_by_labels_reaches_a_wanted_class(region: Any, digits: Any) -> None:
    threat = Threat(region=region, goal=Targeted(0), access="labels")
    report = evaluate(digits.model, digits.data, threat, preset="smoke")
    status = np.array(report.samples.status)
    assert "budget spent" not in status
    assert (status == "fooled").sum() > 5
    # Who is of the class already is nobody's target, and nobody asks about them again.
    own = (digits.data.y == 0) & (status != "already wrong")
    assert own.any()
    assert set(status[own]) == {"withstood"}
    assert report.samples.forwards[own].max() == 1
    assert all(
        f.check != "unfinished samples" or f.verdict == "green" for f in report.trust.findings
    )
