"""Attacks on tables: every row can be made, none depends on its batch, and the ledger is exact."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from tables import capability, linear, plain, rows
from torch import Tensor, nn

from withstand import attacks
from withstand._errors import DataError, ThreatError
from withstand.attacks import CAPGD, Cuts, Donors, Examples, TableSearch, TableWalk
from withstand.attacks._repair import repaired
from withstand.models import FunctionModel, TorchModel
from withstand.threat import Box, Linf, Targeted, Threat
from withstand.threat.tabular import Capability, Derived, Feature, OneHot, Relation

WEIGHTS = np.array([-0.01, -0.05, 0.3, -0.02, 0.5, -0.5, -0.01, 0.0])
LIMITS = {"most_changed": 2, "most_cost": 6.0}


def network(x: Any) -> TorchModel:
    """A network on features of unlike scales, that answers half of the rows with each class."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        net = nn.Sequential(nn.Linear(7, 16), nn.ReLU(), nn.Linear(16, 2))
    scale = torch.from_numpy(np.abs(x).mean(0) + 1)
    with torch.no_grad():
        net[0].weight /= scale
        gap = net(torch.from_numpy(x)).diff(dim=1).median()
        net[2].bias += torch.stack((gap, torch.zeros(())))
    return TorchModel(net, domain=(-1e6, 1e6))


def scored(x: Any) -> FunctionModel:
    weights = WEIGHTS.copy()
    weights[-1] = -np.median(x @ weights[:-1])
    return linear(weights)


def labelled(x: Any) -> FunctionModel:
    model = scored(x)
    return FunctionModel(
        lambda rows: model.function(rows).argmax(1), returns="labels", domain=Box(-1e6, 1e6)
    )


def donors() -> Donors:
    others = rows(60, 5)
    return Donors(others, scored(rows(40)).labels(torch.from_numpy(others)).numpy())


CUTS = Cuts([np.array([20.0, 100.5]), np.array([30.0]), *[np.array([0.5])] * 4, np.empty(0)])
ATTACKS = {
    "capgd": (CAPGD(steps=8, restarts=2), network),
    "search": (TableSearch(generations=6, children=8, restarts=2), scored),
    "search, knowing more": (
        TableSearch(generations=6, children=8, cuts=CUTS, donors=donors()),
        scored,
    ),
    "walk": (TableWalk(rows=donors(), rounds=10, block=12, restarts=2), labelled),
    "walk by cost": (TableWalk(rows=donors(), rounds=10, aim="cost"), labelled),
}


@pytest.mark.parametrize(
    ("name", "limits"),
    [*((name, LIMITS) for name in ATTACKS), ("capgd", {}), ("search", {})],
)
def test_rows_can_be_made_and_depend_on_nothing_but_the_seed(
    name: str, limits: dict[str, Any]
) -> None:
    attack, made = ATTACKS[name]
    x = rows(14)
    x[13] = x[0]
    model, asked = made(x), capability(**limits)
    inputs = torch.from_numpy(x)
    y = model.labels(inputs)
    threat = Threat(region=asked, access=attack.needs)
    count = [0]

    def counted(points: Tensor) -> None:
        count[0] += len(points)

    whole = attacks.run(attack, _watched(model, counted), inputs, y, threat, batch_size=500)
    fooled = whole.success.numpy()
    assert fooled.sum() >= 4
    for before, after in zip(x[fooled], whole.x_adv.numpy()[fooled], strict=True):
        assert plain(before, after, asked.most_changed, asked.most_cost)
    answer = model.labels(whole.x_adv)
    assert torch.equal(answer != y, whole.success)
    # A model with gradients is asked again about each success, and padded to a batch of four.
    spent = int(whole.ledger.forwards.sum())
    assert count[0] == spent or (attack.needs == "gradients" and count[0] >= spent)
    for size, few in ((1, 3), (7, 14)):
        other = attacks.run(attack, model, inputs[:few], y[:few], threat, batch_size=size)
        assert torch.equal(other.x_adv, whole.x_adv[:few])
        assert torch.equal(other.ledger.forwards, whole.ledger.forwards[:few])
    order = torch.cat((torch.arange(12, 0, -1), torch.tensor([0, 13])))
    mixed = attacks.run(attack, model, inputs[order], y[order], threat, batch_size=9)
    assert torch.equal(mixed.x_adv, whole.x_adv[order])
    poor = Threat(region=asked, access=attack.needs, queries=4)
    short = attacks.run(attack, model, inputs[:6], y[:6], poor)
    assert int(short.ledger.forwards.max()) <= 4


def _watched(model: Any, told: Any) -> Any:
    if isinstance(model, TorchModel):
        net = nn.Sequential(_Tap(told), model.net)
        return TorchModel(net, domain=model.domain)

    def function(points: Any) -> Any:
        told(points)
        return model.function(points)

    return FunctionModel(function, returns=model.access, domain=model.domain)


class _Tap(nn.Module):
    def __init__(self, told: Any) -> None:
        super().__init__()
        self.told = told

    def forward(self, x: Tensor) -> Tensor:
        self.told(x)
        return x


def whole_numbers(count: int, **told: Any) -> Capability:
    names = list("abcd")[:count]
    features = tuple(Feature(name=one, integer=True, lower=0, upper=4, cost=1.0) for one in names)
    return Capability(features=features, **told)


def test_a_walk_ends_where_no_feature_can_be_given_up_or_brought_nearer() -> None:
    asked = whole_numbers(4)
    x = np.array(list(product(range(5), repeat=4)), np.float32)[::40]
    draw = np.random.default_rng(0)
    found = better = 0
    for _ in range(4):
        weights = np.append(draw.normal(0, 1, 4), 0.0)
        weights[-1] = -np.median(x @ weights[:-1])
        model = linear(weights)
        y = model.labels(torch.from_numpy(x))
        others = Donors(x, y.numpy())
        result = attacks.run(
            TableWalk(rows=others),
            model,
            torch.from_numpy(x),
            y,
            Threat(region=asked, access="labels"),
        )
        assert result.success.all()
        for before, after, label in zip(x, result.x_adv.numpy(), y.numpy(), strict=True):
            nearer = []
            for place in np.flatnonzero(before != after):
                step = np.sign(before[place] - after[place])
                for value in np.arange(after[place] + step, before[place] + step, step):
                    nearer.append(after.copy())
                    nearer[-1][place] = value
            fools = model.labels(torch.from_numpy(np.array(nearer))).numpy() != label
            # One step nearer never fools; two steps may, where the labels are not monotone.
            assert not fools.any()
            found += 1
            better += len(nearer) == np.abs(after - before).sum()
    assert found == better == 4 * len(x)


def test_the_least_cost_is_that_of_the_cheapest_way_there_is() -> None:
    features = (
        Feature(name="a", integer=True, lower=0, upper=20, cost=2.0),
        Feature(name="b", lower=0, upper=20, cost=1.0, fixed=3.0),
        Feature(name="c", lower=0, upper=20, cost=0.1),
    )
    asked = Capability(features=features)

    # It falls where a is 7 or more, or b is 6 or more and c is 10 or more.
    def answer(rows: Any) -> Any:
        return ((rows[:, 0] >= 7) | ((rows[:, 1] >= 6) & (rows[:, 2] >= 10))).astype(int)

    model = FunctionModel(answer, returns="labels", domain=Box(0, 20))
    x = np.array([[3, 1, 9], [0, 5, 9.5], [5, 0, 0]], np.float32)
    others = Donors(
        np.array([[7, 6, 10], [9, 1, 2], [1, 9, 12], [0, 0, 0]], np.float32), [1, 1, 1, 0]
    )
    least = {"cost": [8.0, 4.05, 4.0], "features": [8.0, 14.0, 4.0]}
    for aim, costs in least.items():
        result = attacks.run(
            TableWalk(rows=others, aim=aim, restarts=2),
            model,
            torch.from_numpy(x),
            torch.zeros(3, dtype=torch.long),
            Threat(region=asked, access="labels"),
        )
        spent = asked.cost(x.astype(float), result.x_adv.numpy().astype(float))
        np.testing.assert_allclose(spent, costs, rtol=2e-3)
    curve = attacks.Curve(distance=np.where(result.success.numpy(), spent, np.inf))
    assert curve.robust_accuracy(3.9).value == 1
    assert curve.robust_accuracy(8.1).value == pytest.approx(1 / 3)


def test_in_a_tight_box_a_walk_goes_where_the_others_point_and_gives_up_half_way() -> None:
    rng = np.random.default_rng(0)
    weights = rng.normal(0, 1, 40)
    asked = Capability(
        features=tuple(Feature(name=f"c{n}", lower=0, upper=1, most=0.05) for n in range(40))
    )
    reach = 0.05 * np.abs(weights).sum()
    x = rng.uniform(0.3, 0.7, (6, 40)).astype(np.float32)
    # All but the last two can get there, by two thirds of what they can change.
    need = np.where(np.arange(6) < 4, 0.65, 1.01) * reach
    x += ((-need - x @ weights) / (weights @ weights))[:, None] * weights
    model = FunctionModel(lambda rows: rows @ weights > 0, returns="labels", domain=Box(-9, 9))
    others = rng.uniform(0, 1, (200, 40)).astype(np.float32)
    names = (others @ weights > 0).astype(int)
    inputs, y = torch.from_numpy(x), torch.zeros(6, dtype=torch.long)
    threat = Threat(region=asked, access="labels")

    def walked(names: Any, **told: Any) -> attacks.Result:
        walk = TableWalk(rows=Donors(others, names), rounds=12, block=24, **told)
        return attacks.run(walk, model, inputs, y, threat, batch_size=4)

    found = walked(names)
    assert found.success.tolist() == [True] * 4 + [False] * 2
    assert asked.contains(x, found.x_adv.numpy()).all()
    assert (found.ledger.forwards[4:] <= 1 + 6 * 24).all()
    assert (found.ledger.forwards[4:] > 5 * 24).all()
    alone = attacks.run(
        TableWalk(rows=Donors(others, names), rounds=12, block=24),
        *(model, inputs[3:4], y[3:4], threat),
        keys=attacks.sample_keys(inputs, y)[3:4],
    )
    assert torch.equal(alone.x_adv[0], found.x_adv[3])
    assert walked(rng.permutation(names)).success.sum() < 2
    assert not walked(names, tries=96).success.any()


def test_a_walk_from_examples_keeps_them_or_finds_less() -> None:
    x = rows(12)
    model, asked = scored(x), capability()
    inputs = torch.from_numpy(x)
    y = model.labels(inputs)
    threat = Threat(region=asked, access="scores")
    first = attacks.run(TableSearch(generations=8, children=8), model, inputs, y, threat)
    keys = attacks.sample_keys(inputs, y)
    walk = TableWalk(rows=Examples(first.x_adv.numpy()[::-1], keys.numpy()[::-1]), rounds=40)
    second = attacks.run(walk, model, inputs, y, threat, known=first.ledger)
    assert torch.equal(second.success, first.success)
    wide = [one.x_adv.numpy().astype(float) for one in (first, second)]
    before, after = (asked.changed(x.astype(float), one) for one in wide)
    assert (after <= before).all()
    assert after.sum() < 0.7 * before.sum()
    assert bool((second.ledger.forwards >= first.ledger.forwards).all())
    nobody = TableWalk(rows=Examples(first.x_adv.numpy(), keys.numpy() + 1))
    assert not attacks.run(nobody, model, inputs, y, threat).success.any()


def test_gradients_go_through_what_is_derived_and_choose_of_a_group() -> None:
    names = ["a", "b", "ratio", "p", "q", "r"]
    asked = Capability(
        features=(
            Feature(name="a", lower=1, upper=9),
            Feature(name="b", lower=1, upper=9, integer=True),
            Feature(name="ratio"),
            *(Feature(name=one, lower=0, upper=1) for one in "pqr"),
        ),
        choices=(OneHot(columns=("p", "q", "r")),),
        derived=(Derived.read("ratio", "a / b", names),),
        relations=(Relation.read("a + b <= 12", names),),
    )
    x = np.array([[2, 2, 1, 1, 0, 0], [3, 1, 3, 0, 1, 0]], np.float32)
    for weights, threshold, falls in (
        ([0, 0, 1, 0, 0, 0], 8.9, True),  # a = 9 and b = 1 give 9, and 10 <= 12
        ([0, 0, 1, 0, 0, 0], 9.1, False),
        ([1, 1, 0, 0, 0, 0], 11.9, True),  # only along the relation
        ([1, 1, 0, 0, 0, 0], 12.1, False),
        ([0, 0, 0, 0, 0, 1], 0.5, True),
        ([0, 0, 0, 0, -1, 1], 0.5, True),
        ([0, 0, 1, 0, 0, 6], 14.9, True),
    ):
        net = nn.Linear(6, 2)
        with torch.no_grad():
            net.weight.copy_(torch.tensor([[0.0] * 6, weights]))
            net.bias.copy_(torch.tensor([threshold, 0.0]))
        model = TorchModel(net, domain=(-100, 100))
        y = torch.zeros(2, dtype=torch.long)
        result = attacks.run(CAPGD(), model, torch.from_numpy(x), y, Threat(region=asked))
        assert result.success.tolist() == [falls] * 2, (weights, threshold)
        assert asked.contains(x, result.x_adv.numpy()).all()


def test_limits_leave_the_changes_that_the_gradient_values_most() -> None:
    names = list("abcd")
    features = tuple(Feature(name=one, lower=0, upper=10, cost=1.0) for one in names)
    net = nn.Linear(4, 2)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[0.0] * 4, [1.0, 3.0, 2.0, -1.0]]))
        net.bias.copy_(torch.tensor([29.0, 0.0]))
    model, x = TorchModel(net, domain=(0, 10)), torch.zeros(1, 4)
    for limits, falls in (
        ({"most_changed": 1}, True),  # 30 by b alone
        ({"most_changed": 1, "most_cost": 9.8}, True),
        ({"most_cost": 9.5}, False),  # 28.5 at most
    ):
        asked = Capability(features=features, **limits)
        result = attacks.run(CAPGD(), model, x, torch.tensor([0]), Threat(region=asked))
        assert bool(result.success) is falls, limits


def test_a_search_believes_only_the_scores_that_were_given() -> None:
    names = ["a", "b"]
    features = tuple(Feature(name=one, lower=0, upper=9) for one in names)
    asked = Capability(features=features, relations=(Relation.read("floor(a) == floor(b)", names),))
    states: list[Any] = []

    class Spy(TableSearch):
        def step(self, problem: Any, state: Any, seen: Any) -> Any:
            states.append(super().step(problem, state, seen))
            return states[-1]

    model = linear(np.array([1.0, 1.0, -30.0]))
    x = torch.tensor([[2.5, 2.5], [7.5, 7.5]])
    y = model.labels(x)
    attacks.run(
        Spy(generations=10, children=12), model, x, y, Threat(region=asked, access="scores")
    )
    last = states[-1]
    known = last.margin.isfinite()
    assert known.sum() >= 4
    kept = last.kept[known]
    real = -model.scores(kept).diff(dim=1)[:, 0]
    torch.testing.assert_close(last.margin[known], real)
    assert all(np.floor(a) == np.floor(b) for a, b in kept.tolist())


def test_cuts_are_met_at_the_last_value_before_and_the_first_behind_them() -> None:
    cuts = Cuts([np.array([3.0, 1.0, 2.0]), np.empty(0)])
    lower, upper = torch.tensor([[1.5, 0.0]]), torch.tensor([[3.0, 9.0]])
    place, row = torch.linspace(0, 0.999, 50), torch.zeros(50, dtype=torch.long)
    met, none = (cuts.beside(lower, upper, row, row + feature, place) for feature in (0, 1))
    above = float(np.nextafter(np.float32(2), np.float32(3)))
    # At 3 itself nothing of the range lies behind.
    assert set(met.tolist()) == {2.0, above}
    assert none.isnan().all()
    assert cuts.between(lower, upper).tolist() == [[True, False]]
    assert repr(cuts).startswith("Cuts(3 of 2 features, ")
    assert cuts == Cuts([[1.0, 2.0, 3.0], []])
    assert hash(cuts) != hash(Cuts([[1.0, 2.0, 4.0], []]))


def test_donors_are_the_nearest_of_another_class_that_can_be_copied() -> None:
    asked = Capability(
        features=(
            Feature(name="a", lower=0, upper=10, change="none"),
            Feature(name="b", lower=0, upper=10),
        )
    )
    some = Donors([[9, 1], [2, 9], [3, 2], [2, 2]], [1, 1, 2, 0])
    x, y = torch.tensor([[2.0, 2.0]]), torch.tensor([0])
    seen: list[Any] = []

    class Spy(TableWalk):
        def init(self, problem: Any) -> Any:
            seen.append(some.begin(problem, 3))
            return super().init(problem)

    model = FunctionModel(lambda rows: rows[:, 1] > 8, returns="labels", domain=Box(0, 10))
    for goal, first, there in (
        (None, [2, 9], [True, True, True]),
        (Targeted(2), [3, 2], [True, False, False]),
    ):
        told = {} if goal is None else {"goal": goal}
        threat = Threat(region=asked, access="labels", **told)
        attacks.run(Spy(rows=some, rounds=3), model, x, y, threat)
        begin, known = seen.pop()
        assert begin[0, 0].tolist() == first
        assert known[0].tolist() == there
    assert repr(some).startswith("Donors(4 rows, ")
    assert some == Donors([[9, 1], [2, 9], [3, 2], [2, 2]], [1, 1, 2, 0])
    assert some != Examples([[9, 1], [2, 9], [3, 2], [2, 2]], [1, 1, 2, 0])
    with pytest.raises(DataError, match="give one for each"):
        Donors([[1, 2]], [1, 2])
    with pytest.raises(ThreatError, match="features, cost"):
        TableWalk(aim="money")


def test_examples_for_other_models_can_be_made_too() -> None:
    x = rows(20)
    model, asked = network(x), capability()
    inputs = torch.from_numpy(x)
    y = model.labels(inputs)
    threat = Threat(region=Linf(200.0) & asked)
    made = attacks.craft(CAPGD(steps=8), model, inputs, y, threat)
    assert threat.region.contains(x, made.numpy()).all()
    assert float((model.labels(made) != y).float().mean()) > 0.5
    parts = [attacks.craft(CAPGD(steps=8), model, inputs[n : n + 1], y[n : n + 1], threat)
             for n in range(3)]  # fmt: skip
    assert torch.equal(torch.cat(parts), made[:3])


def test_what_costs_too_much_is_changed_as_far_as_the_budget_goes() -> None:
    names = ["a", "b"]
    features = (
        Feature(name="a", lower=0, upper=100, cost=1.0, step=0.5),
        Feature(name="b", lower=0, upper=100, fixed=4.0),
    )
    asked = Capability(features=features, most_cost=7.2)
    x = np.array([[10.0, 10.0]], np.float32)
    problem = attacks.Problem(
        x=torch.from_numpy(x), y=torch.zeros(1), key=torch.zeros(1), lane=torch.zeros(1),
        target=torch.zeros(1), eps=torch.tensor([2.0]), lower=torch.zeros(1, 2),
        upper=torch.full((1, 2), 100.0), norm="l0", goal=Threat(region=asked).goal, seed=0,
        capability=asked,
    )  # fmt: skip
    wild = torch.tensor([[[50.0, 10.0], [50.0, 90.0], [20.0, 90.0]]])
    found, feasible = repaired(problem, wild)
    # 7 steps of a half; b first, whose change is the larger share of its range, and then 3.
    assert found[0].tolist() == [[17.0, 10.0], [13.0, 90.0], [13.0, 90.0]]
    assert feasible.all()
    worth = torch.tensor([[[1.0, 0.0], [1.0, 0.5], [0.5, 1.0]]])
    found, _ = repaired(problem, wild, worth=worth)
    assert found[0].tolist() == [[17.0, 10.0], [17.0, 10.0], [13.0, 90.0]]
    free, _ = repaired(problem, wild, limited=False)
    assert free[0].tolist() == wild[0].tolist()
    assert names == list(asked.index)
