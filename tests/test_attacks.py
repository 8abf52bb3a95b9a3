"""The engine against closed forms, and the properties it promises."""

import pytest
import torch
from torch import Tensor, nn

from withstand import WithstandError, attacks
from withstand.models import FunctionModel, TorchModel
from withstand.threat import L2, Frozen, Linf, Region, Threat

WEIGHT = torch.tensor([3.0, -4.0, 0.0])


def linear() -> TorchModel:
    net = nn.Linear(3, 2, bias=False)
    with torch.no_grad():
        net.weight.copy_(torch.stack((torch.zeros(3), WEIGHT)))
    return TorchModel(net, domain=(-10, 10))


def network() -> tuple[TorchModel, Tensor, Tensor]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 8, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 9, 5))
    x = torch.rand(60, 1, 8, 8)
    return TorchModel(net), x, net(x).argmax(1).detach()


@pytest.mark.parametrize(("ball", "radius"), [(Linf, 2 / 7), (L2, 2 / 5)], ids=["linf", "l2"])
@pytest.mark.parametrize(
    "attack",
    [attacks.FGSM(), attacks.PGD(steps=10), attacks.APGD(steps=20)],
    ids=["fgsm", "pgd", "apgd"],
)
def test_linear_model_falls_exactly_beyond_its_margin(
    attack: attacks.Attack, ball: type, radius: float
) -> None:
    x = torch.tensor([[2 / 3, 0.0, 0.0]])  # the margin is 2
    y = torch.tensor([1])
    for factor, falls in ((0.99, False), (1.01, True)):
        threat = Threat(region=ball(radius * factor))
        result = attacks.run(attack, linear(), x, y, threat)
        assert bool(result.success) is falls
        assert bool(threat.region.contains(x, result.x_adv).all())


def test_frozen_features_stay() -> None:
    x, y = torch.tensor([[2 / 3, 0.0, 0.0]]), torch.tensor([1])
    region = Linf(0.6) & Frozen((0,))
    result = attacks.run(attacks.PGD(steps=5), linear(), x, y, Threat(region=region))
    assert bool(result.success)
    assert result.x_adv[0, 0] == x[0, 0]


@pytest.mark.parametrize("region", [Linf(0.12), L2(0.5)], ids=["linf", "l2"])
@pytest.mark.parametrize(
    "attack",
    [attacks.PGD(steps=6, restarts=2), attacks.APGD(steps=20)],
    ids=["pgd", "apgd"],
)
def test_examples_and_ledger_do_not_depend_on_batches_or_order(
    region: Region, attack: attacks.Attack
) -> None:
    model, x, y = network()
    x = torch.cat((x, x[:3]))
    y = torch.cat((y, y[:3]))
    threat = Threat(region=region)
    whole = attacks.run(attack, model, x, y, threat, seed=3, batch_size=63)
    assert 5 < int(whole.success.sum()) < 58
    assert bool(region.contains(x, whole.x_adv).all())
    order = torch.randperm(60)
    for batch_size in (5, 17, 50):
        split = attacks.run(attack, model, x, y, threat, seed=3, batch_size=batch_size)
        assert torch.equal(split.x_adv, whole.x_adv)
        assert torch.equal(split.ledger.forwards, whole.ledger.forwards)
    mixed = attacks.run(attack, model, x[order], y[order], threat, seed=3, batch_size=20)
    assert torch.equal(mixed.x_adv, whole.x_adv[order])
    other = attacks.run(attack, model, x, y, threat, seed=4, batch_size=63)
    assert not torch.equal(other.x_adv, whole.x_adv)


def test_compaction_changes_no_example_and_no_ledger() -> None:
    model, x, y = network()
    threat, attack = Threat(region=Linf(0.12)), attacks.PGD(steps=6)
    kept = attacks.run(attack, model, x, y, threat, compact=False)
    left = attacks.run(attack, model, x, y, threat)
    assert torch.equal(kept.x_adv, left.x_adv)
    assert torch.equal(kept.ledger.forwards, left.ledger.forwards)


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_the_query_limit_is_never_exceeded(limit: int) -> None:
    model, x, y = network()
    threat = Threat(region=Linf(0.001), queries=limit)
    result = attacks.run(attacks.PGD(steps=50), model, x, y, threat)
    assert result.ledger.forwards.tolist() == [limit] * 60
    assert set(result.status) == {attacks.Status.BUDGET}


def test_a_sample_that_is_wrong_already_costs_one_query() -> None:
    model, x, y = network()
    result = attacks.run(attacks.PGD(), model, x, (y + 1) % 5, Threat(region=Linf(0.1)))
    assert set(result.status) == {attacks.Status.ALREADY_WRONG}
    assert result.ledger.forwards.tolist() == [1] * 60
    assert not result.distance.any()
    assert torch.equal(result.x_adv, x)


def test_scaled_logits_blind_cross_entropy_but_not_the_scale_free_losses() -> None:
    model, x, y = network()
    loud = TorchModel(nn.Sequential(model.net, _Scale(1e5)))
    rates = {
        name: float(
            attacks.run(attacks.PGD(steps=20, loss=name), loud, x, y, Threat(region=Linf(0.12)))
            .success.float()
            .mean()
        )
        for name in ("ce", "dlr", "pma")
    }
    assert rates["pma"] > rates["ce"]
    assert rates["dlr"] > rates["ce"]


class _Scale(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def test_noise_is_uniform_and_each_rows_own() -> None:
    from withstand.attacks._engine import sample_keys
    from withstand.attacks._noise import normal, uniform

    x, y = torch.zeros(3, 4), torch.zeros(3, dtype=torch.long)
    keys = sample_keys(x, y)
    assert len(set(keys.tolist())) == 3
    one = torch.ones(3)
    problem = attacks.Problem(
        x=x, y=y, key=keys, lane=y, eps=one, lower=x, upper=x, norm="linf",
        goal=Threat(region=Linf(1)).goal, seed=0,
    )  # fmt: skip
    drawn = uniform(problem, 1, 0, 20000)
    assert drawn.min() > 0
    assert drawn.max() < 1
    assert (
        torch.corrcoef(torch.cat((drawn, uniform(problem, 1, 1, 20000))))
        .fill_diagonal_(0)
        .abs()
        .max()
        < 0.03
    )
    assert abs(float(drawn.mean()) - 0.5) < 0.01
    gaussian = normal(problem, 2, 0, 20001)
    assert abs(float(gaussian.std()) - 1) < 0.02
    assert abs(float(gaussian.pow(4).mean()) - 3) < 0.2


def test_impossible_requests_are_one_line() -> None:
    model, x, y = network()
    threat = Threat(region=Linf(0.1))
    blind = FunctionModel(lambda a: a.reshape(len(a), -1)[:, :5])
    for call, words in (
        (lambda: attacks.run(attacks.PGD(), blind, x, y, threat), "needs gradients"),
        (lambda: attacks.run(attacks.PGD(), model, x[:0], y[:0], threat), "as many labels"),
        (lambda: attacks.run(attacks.PGD(), model, 5 * x, y, threat), "outside the model's domain"),
        (lambda: attacks.run(attacks.PGD(), model, x, y, threat.unbounded()), "finite"),
        (lambda: attacks.run(attacks.PGD(loss="mse"), model, x, y, threat), "ce, dlr"),
    ):
        with pytest.raises(WithstandError, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_apgd_checkpoints_are_the_papers() -> None:
    windows = attacks.APGD(steps=100)._windows(torch.arange(101))
    assert windows.nonzero()[:, 0].tolist() == [22, 41, 57, 70, 80, 87, 93, 99]
    assert windows[windows > 0].tolist() == [22, 19, 16, 13, 10, 7, 6, 6]


def test_apgd_fools_at_least_what_pgd_fools_at_equal_steps() -> None:
    model, x, y = network()
    threat = Threat(region=Linf(0.12))
    fooled = [
        int(attacks.run(attack, model, x, y, threat).success.sum())
        for attack in (attacks.APGD(steps=40), attacks.PGD(steps=40))
    ]
    assert fooled[0] >= fooled[1]
