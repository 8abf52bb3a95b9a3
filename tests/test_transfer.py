"""Examples that carry over: the attack, its surrogates, and the matrix of who fools whom."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.nn.functional import conv2d, cross_entropy, interpolate, pad

from withstand import attacks as room
from withstand._errors import BudgetError, DataError, ModelError, ThreatError, WithstandError
from withstand.attacks import APGD, FMN, PGD, Problem, Square, train_surrogate
from withstand.attacks._transfer import TransferPGD, _bell, smoothed
from withstand.data import Dataset, from_arrays, load_sklearn
from withstand.models import Ensemble, FunctionModel, Model, Pipeline, TorchModel
from withstand.testing import check_attack
from withstand.threat import L0, L1, L2, Frozen, Linf, Region, Targeted, Threat, Untargeted
from withstand.workflows import show_transfer, transfer_matrix

# As many at a time as there are: what is made does not depend on it, and every step is dear.
craft, run = partial(room.craft, batch_size=400), partial(room.run, batch_size=400)
ALL = TransferPGD(diversity=0.7, smoothing=3, variance=2, random_start=True)
PLAIN = TransferPGD(momentum=0)


@pytest.mark.parametrize(
    "attack",
    [PLAIN, pytest.param(TransferPGD(variance=2), marks=pytest.mark.slow), ALL],
    ids=repr,
)
def test_it_keeps_what_every_attack_must(attack: TransferPGD) -> None:
    check_attack(attack)


@dataclass(frozen=True)
class Zoo:
    """Networks trained on 1,400 digits, and the digits among the others that all get right."""

    models: dict[str, Model]
    x: Tensor
    y: Tensor

    @property
    def data(self) -> Dataset:
        return from_arrays(self.x.numpy(), self.y.numpy())

    def fooled(self, made: Tensor, victim: str) -> float:
        return float((self.models[victim].labels(made) != self.y).double().mean())


def _trained(net: nn.Module, x: Tensor, y: Tensor, epochs: int) -> TorchModel:
    weights, order = list(net.parameters()), torch.Generator().manual_seed(0)
    speeds = [torch.zeros_like(weight) for weight in weights]
    for _ in range(epochs):
        for rows in torch.split(torch.randperm(len(x), generator=order), 64):
            slopes = torch.autograd.grad(cross_entropy(net(x[rows]), y[rows]), weights)
            with torch.no_grad():
                for weight, speed, slope in zip(weights, speeds, slopes, strict=True):
                    weight.sub_(0.05 * speed.mul_(0.9).add_(slope))
    return TorchModel(net)


def _conv(size: int, channels: int, kernel: int, stride: int) -> nn.Module:
    side = size // stride // 2
    return nn.Sequential(
        nn.Conv2d(1, channels, kernel, stride=stride, padding=kernel // 2),
        nn.ReLU(),
        nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(2 * channels * side * side, 10),
    )


def _mlp(size: int, *hidden: int) -> nn.Module:
    layers: list[nn.Module] = [nn.Flatten()]
    for n_in, n_out in zip((size * size, *hidden), hidden, strict=False):
        layers += [nn.Linear(n_in, n_out), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(hidden[-1], 10))


def _right(models: dict[str, Model], x: Tensor, y: Tensor) -> Zoo:
    right = torch.stack([model.labels(x) == y for model in models.values()]).all(0)
    return Zoo(models, x[right], y[right])


@pytest.fixture(scope="module")
def zoo() -> Zoo:
    digits = load_sklearn("digits")
    x, y = torch.from_numpy(digits.x), torch.from_numpy(digits.y)
    train, told = x[:1400], y[:1400]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        models: dict[str, Model] = {
            "conv": _trained(_conv(8, 12, 3, 1), train, told, 6),
            "conv5": _trained(_conv(8, 8, 5, 1), train, told, 6),
            "mlp": _trained(_mlp(8, 64), train, told, 15),
            "deep": _trained(_mlp(8, 48, 48), train, told, 15),
        }
    models["ensemble"] = Ensemble([models["conv"], models["mlp"]], combine="logits")
    return _right(models, x[1400:], y[1400:])


def _shrunk(x: Tensor) -> Tensor:
    return pad(interpolate(x, size=(21, 21), mode="nearest"), (3, 0, 0, 3))


@pytest.fixture(scope="module")
def views() -> Zoo:
    """A network on digits of 24 x 24 pixels, and the same behind another view of them."""
    digits = load_sklearn("digits")
    x = interpolate(torch.from_numpy(digits.x), size=(24, 24), mode="bilinear").clamp(0, 1)
    y = torch.from_numpy(digits.y)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = _trained(_conv(24, 12, 3, 2), x[:1400], y[:1400], 6)
    return _right({"source": model, "view": Pipeline([_shrunk], model)}, x[1400:], y[1400:])


def _linear() -> tuple[TorchModel, Tensor, Tensor, Tensor]:
    """Two classes, the direction from the first to the second, and inputs of the first."""
    torch.manual_seed(3)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    weight = (net[1].weight[1] - net[1].weight[0]).detach().reshape(1, 4, 4)
    x = 0.3 + 0.4 * torch.rand(9, 1, 4, 4)
    return TorchModel(net), weight, x, torch.zeros(9, dtype=torch.long)


@pytest.mark.parametrize("momentum", [0.0, 1.0])
@pytest.mark.parametrize("variance", [0, 3])
def test_on_a_linear_model_it_ends_at_the_optimum(momentum: float, variance: int) -> None:
    model, weight, x, y = _linear()
    attack = TransferPGD(momentum=momentum, variance=variance)
    for region, best in (
        (Linf(0.2), x + 0.2 * weight.sign()),
        (L2(0.2), x + 0.2 * weight / weight.norm()),
    ):
        made = craft(attack, model, x, y, Threat(region=region))
        assert torch.allclose(made, best, atol=2e-6, rtol=0)


@pytest.mark.parametrize("region", [Linf(0.1), L2(0.5)])
def test_with_everything_off_it_is_pgd(zoo: Zoo, region: Region) -> None:
    model, threat = zoo.models["conv"], Threat(region=region)
    plain = craft(PLAIN, model, zoo.x, zoo.y, threat)
    pgd = PGD(steps=10, step_size=0.1, random_start=False)
    expected = craft(pgd, model, zoo.x, zoo.y, threat)
    near = (plain - expected).flatten(1).abs().amax(1) < 1e-5
    # In L2 normed gradients differ in the last bit, which may turn a later step.
    assert near.double().mean() > (0.95 if region.describe().startswith("L2") else 0.999)


@pytest.mark.parametrize("decay", [0.0, 0.5, 1.0])
def test_momentum_is_that_of_the_paper(zoo: Zoo, decay: float) -> None:
    model, x, y, eps = zoo.models["conv"], zoo.x, zoo.y, 0.05
    moved, velocity = x.clone(), torch.zeros_like(x)
    for _ in range(10):
        gradient = model.gradient(moved, lambda s: cross_entropy(s, y, reduction="none")).gradient
        velocity = decay * velocity + gradient / gradient.abs().sum((1, 2, 3), keepdim=True)
        moved = (moved + eps / 10 * velocity.sign()).clamp(x - eps, x + eps).clamp(0, 1)
    made = craft(TransferPGD(momentum=decay), model, x, y, Threat(region=Linf(eps)))
    # A different order of float operations turns few signs of what is nearly zero.
    same = (made - moved).flatten(1).abs().amax(1) < 1e-5
    withstood = model.labels(moved) == y
    assert same[~withstood].double().mean() > 0.9
    assert same[withstood].double().mean() > 0.95


def _problem(x: Tensor, norm: str = "linf") -> Problem:
    n = torch.arange(len(x))
    return Problem(
        x=x, y=0 * n, key=n, lane=0 * n, target=0 * n - 1, eps=torch.full((len(x),), 0.2),
        lower=x - 0.2, upper=x + 0.2, norm=norm, goal=Untargeted(), seed=0,
    )  # fmt: skip


def test_copies_are_shrunk_and_padded_and_their_gradients_come_back() -> None:
    torch.manual_seed(0)
    x = 0.5 + torch.rand(400, 2, 20, 30)
    x[:, :, 0, 0] = 0.0
    attack, problem = TransferPGD(diversity=0.75), _problem(x)
    shape = attack._shape(problem, torch.zeros(400, dtype=torch.long), 10)
    copies = shape.forth(x)
    changed = (copies != x).flatten(1).any(1)
    # Heights are 18 to 20, widths 27 to 30 by the same number: a quarter of the copies is whole.
    assert changed.double().mean() == pytest.approx(0.75 * 0.75, abs=0.08)
    rows = (copies > 0).any(1).any(2).sum(1)
    columns = (copies > 0).any(1).any(1).sum(1)
    assert sorted(set(rows.tolist())) == [18, 19, 20]
    assert sorted(set(columns.tolist())) == [27, 28, 29, 30]
    for row in range(40):
        held = (copies[row] > 0).any(0)
        (top, *_, bottom), (left, *_, right) = (held.any(1 - n).nonzero()[:, 0] for n in (0, 1))
        size = (int(bottom - top) + 1, int(right - left) + 1)
        seen = copies[row, :, top : bottom + 1, left : right + 1]
        expected = interpolate(x[row : row + 1], size, mode="bilinear", align_corners=False)[0]
        assert torch.allclose(seen, expected, atol=1e-6)
    gradient = torch.randn_like(x)
    ahead = (copies * gradient).double().sum((1, 2, 3))
    back = (x * shape.back(gradient)).double().sum((1, 2, 3))
    assert torch.allclose(ahead, back, atol=1e-3, rtol=1e-5)
    untouched = attack._shape(problem, torch.full((400,), 10), 10)
    assert torch.equal(untouched.forth(x), x)


def test_a_step_follows_the_gradient_at_the_copy_back_to_the_image() -> None:
    torch.manual_seed(0)
    x, attack = torch.rand(30, 1, 20, 20), TransferPGD(diversity=1.0)
    problem = _problem(x)
    state = attack.init(problem)
    shape = attack._shape(problem, state.asked, 10)
    points, gradient = attack.query(problem, state).points, torch.randn_like(x)
    assert torch.equal(points, shape.forth(x))
    moved = attack.step(problem, state, _seen(points, gradient)).points
    assert torch.equal((moved - x).sign(), shape.back(gradient).sign())
    assert not torch.equal((moved - x).sign(), gradient.sign())


def test_copies_stay_in_a_domain_without_zero() -> None:
    x = 2 + torch.rand(50, 1, 20, 20)
    shape = TransferPGD(diversity=1.0)._shape(_problem(x), torch.zeros(50, dtype=torch.long), 10)
    assert shape.forth(x).min() >= 2


@pytest.mark.parametrize("width", [1, 3, 7, 21])
def test_smoothing_is_a_convolution(width: int) -> None:
    torch.manual_seed(0)
    gradient = torch.randn(3, 2, 9, 12)
    bell = torch.tensor(_bell(width))
    kernel = (bell[:, None] * bell)[None, None].expand(2, 1, width, width)
    expected = conv2d(gradient, kernel, padding=width // 2, groups=2)
    assert torch.allclose(smoothed(gradient, width), expected, atol=1e-6, rtol=1e-5)
    assert sum(_bell(width)) == pytest.approx(1)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_neighbours_lie_within_one_and_a_half_radii(norm: str) -> None:
    problem = _problem(torch.rand(20, 1, 8, 8), norm)
    attack = TransferPGD(variance=4)
    state = attack.init(problem)
    assert torch.equal(attack.query(problem, state).points, problem.x)
    seen = []
    for phase in range(1, 5):
        points = attack.query(problem, state._replace(asked=state.asked + phase)).points
        delta = (points - problem.x).flatten(1)
        size = delta.abs().amax(1) if norm == "linf" else delta.norm(dim=1)
        assert bool((size > 0).all())
        assert size.max() <= 1.5 * 0.2 * (1 + 1e-5)
        seen.append(points)
    assert not torch.equal(seen[0], seen[1])


def test_variance_is_that_of_the_paper(zoo: Zoo) -> None:
    model, x, y = zoo.models["conv"], zoo.x[:40], zoo.y[:40]
    attack = TransferPGD(steps=3, variance=3)
    problem = _problem(x)

    def slope(points: Tensor) -> Tensor:
        return model.gradient(points, lambda s: cross_entropy(s, y, reduction="none")).gradient

    state = attack.init(problem)
    moved, velocity, variance = x, torch.zeros_like(x), torch.zeros_like(x)
    for _ in range(3):
        asked = state
        gradient, others = slope(moved), []
        for phase in range(4):
            query = attack.query(problem, state)
            if phase:
                others.append(slope(moved + attack._offset(problem, state.asked)))
            seen = model.gradient(query.points, lambda s: cross_entropy(s, y, reduction="none"))
            state = attack.step(problem, state, _seen(query.points, seen.gradient))
        assert bool((state.asked == asked.asked + 4).all())
        corrected = gradient + variance
        velocity = velocity + corrected / corrected.abs().sum((1, 2, 3), keepdim=True)
        variance = torch.stack(others).mean(0) - gradient
        moved = (moved + 0.2 / 3 * velocity.sign()).clamp(x - 0.2, x + 0.2)
        assert torch.allclose(state.variance, variance, atol=1e-6 * float(variance.abs().max()))
        assert torch.allclose(state.velocity, velocity, atol=1e-6)
        near = (state.points - moved).abs() < 1e-6
        assert near.double().mean() > 0.999
        moved, velocity, variance = state.points, state.velocity, state.variance


def _seen(points: Tensor, gradient: Tensor):  # type: ignore[no-untyped-def]
    from withstand.attacks import Seen

    hit = torch.zeros(len(points), dtype=torch.bool)
    return Seen(points, hit, gradient=gradient)


def test_neighbours_and_copies_are_in_the_ledger(zoo: Zoo) -> None:
    threat = Threat(region=Linf(0.001))
    result = run(
        TransferPGD(steps=4, variance=3, diversity=0.5), zoo.models["mlp"], zoo.x, zoo.y, threat
    )
    withstood = ~result.success
    assert bool(withstood.any())
    # One clean answer, four points with three neighbours each, and the last point.
    assert set(result.ledger.forwards[withstood].tolist()) == {1 + 4 * 4 + 1}
    assert set(result.ledger.backwards[withstood].tolist()) == {4 * 4 + 1}


@pytest.mark.parametrize("attack", [PLAIN, TransferPGD(), ALL, APGD(steps=20, loss="ce")], ids=repr)
def test_crafted_examples_fool_their_model_as_often_and_others_more(
    zoo: Zoo, attack: TransferPGD
) -> None:
    model, threat = zoo.models["conv"], Threat(region=Linf(0.15))
    result = run(attack, model, zoo.x, zoo.y, threat)
    made = craft(attack, model, zoo.x, zoo.y, threat)
    assert torch.equal(model.labels(made) != zoo.y, result.success)
    inside = (threat.region & model.domain).contains(zoo.x.numpy(), made.numpy())
    assert inside.all()
    for victim in ("conv5", "mlp", "deep"):
        assert zoo.fooled(made, victim) > zoo.fooled(result.x_adv, victim) + 0.02


def test_crafted_examples_depend_on_neither_batches_nor_order(zoo: Zoo) -> None:
    model, threat = zoo.models["conv"], Threat(region=L2(0.8) & Frozen((3, 4)))
    x, y = zoo.x[:14].clone(), zoo.y[:14].clone()
    x[7], y[7] = x[3], y[3]
    before = torch.get_rng_state()
    whole = craft(ALL, model, x, y, threat)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(whole[:, 0, 0, 3:5], x[:, 0, 0, 3:5])
    for size in (3, 10):
        assert torch.equal(craft(ALL, model, x, y, threat, batch_size=size), whole)
    # Row 7 equals row 3: what comes first is told apart from its copy.
    order = torch.cat((torch.arange(13, 7, -1), torch.tensor([3, 7]), torch.arange(3)))
    assert torch.equal(craft(ALL, model, x[order], y[order], threat), whole[order])
    assert not torch.equal(craft(ALL, model, x, y, threat, seed=1), whole)


def test_each_radius_is_its_sample_s_own(zoo: Zoo) -> None:
    radii = np.where(np.arange(len(zoo.x)) % 2 == 0, 0.1, 0.0)
    made = craft(ALL, zoo.models["mlp"], zoo.x, zoo.y, Threat(region=Linf(radii)), batch_size=50)
    assert torch.equal(made[1::2], zoo.x[1::2])
    assert bool((made[::2] != zoo.x[::2]).flatten(1).any(1).all())


def test_treated_gradients_transfer_no_worse_than_plain_ones(zoo: Zoo) -> None:
    threat = Threat(region=Linf(0.15))
    attacks = {
        "plain": PLAIN,
        "momentum": TransferPGD(),
        "smoothing": TransferPGD(smoothing=5),
        "variance": TransferPGD(variance=3),
    }
    rates = {}
    for name, attack in attacks.items():
        made = craft(attack, zoo.models["conv"], zoo.x, zoo.y, threat)
        rates[name] = np.mean([zoo.fooled(made, v) for v in ("conv5", "mlp", "deep")])
    assert rates["plain"] > 0.3
    for name in attacks:
        assert rates[name] > rates["plain"] - 0.05, name


def test_treated_gradients_survive_another_view(views: Zoo) -> None:
    threat = Threat(region=Linf(0.12))
    attacks = {
        "plain": PLAIN,
        "diversity": TransferPGD(diversity=0.9),
        "smoothing": TransferPGD(smoothing=7),
        "all": TransferPGD(diversity=0.5, smoothing=7, variance=2),
    }
    made = {
        name: craft(attack, views.models["source"], views.x, views.y, threat)
        for name, attack in attacks.items()
    }
    rates = {name: views.fooled(examples, "view") for name, examples in made.items()}
    for name in ("diversity", "smoothing", "all"):
        assert rates[name] > rates["plain"], rates


def test_an_ensemble_reaches_further_than_its_members(zoo: Zoo) -> None:
    threat, worst = Threat(region=Linf(0.15)), {}
    for source in ("conv", "mlp", "ensemble"):
        made = craft(TransferPGD(), zoo.models[source], zoo.x, zoo.y, threat)
        worst[source] = min(zoo.fooled(made, victim) for victim in ("conv5", "deep"))
    # Against the network that it fools least, of those that it has not seen.
    assert worst["ensemble"] > max(worst["conv"], worst["mlp"])


def _counting(
    model: Model, returns: str
) -> tuple[FunctionModel, list[int], Callable[[Tensor], Tensor]]:
    rows: list[int] = []

    def answer(x: np.ndarray) -> np.ndarray:
        rows.append(len(x))
        scores = model.scores(torch.from_numpy(x))
        if returns == "probabilities":
            return scores.softmax(1).numpy()
        return (scores.argmax(1) if returns == "labels" else scores).numpy()

    box = FunctionModel(answer, returns="labels" if returns == "labels" else "scores")
    return box, rows, model.labels


@pytest.mark.parametrize("returns", ["scores", "probabilities", "labels"])
def test_a_surrogate_learns_the_victim_from_its_answers(zoo: Zoo, returns: str) -> None:
    victim, rows, labels = _counting(zoo.models["conv"], returns)
    torch.manual_seed(5)
    net = _mlp(8, 64).train()
    weights = [weight.clone() for weight in net.parameters()]
    before = torch.get_rng_state()
    surrogate = train_surrogate(victim, zoo.x[:100], net, queries=500)
    assert torch.equal(before, torch.get_rng_state())
    assert all(map(torch.equal, weights, net.parameters()))
    assert net.training
    assert sum(rows) == 500
    unseen, y = zoo.x[100:], zoo.y[100:]
    assert (surrogate.labels(unseen) == labels(unseen)).double().mean() > 0.6
    # Its examples fool the victim, which noise of that length does not.
    made = craft(TransferPGD(), surrogate, unseen, y, Threat(region=Linf(0.15)))
    noise = unseen + 0.15 * torch.randn_like(unseen).sign()
    fooled = (labels(made) != y).double().mean()
    assert fooled > 0.25
    assert fooled > (labels(noise.clamp(0, 1)) != y).double().mean() + 0.1
    again = train_surrogate(victim, zoo.x[:100], net, queries=500)
    assert torch.equal(again.scores(unseen), surrogate.scores(unseen))


@pytest.mark.parametrize("queries", [1, 20, 30, 31, 95])
def test_a_surrogate_s_queries_are_spent_exactly_and_in_the_domain(zoo: Zoo, queries: int) -> None:
    asked = []

    def answer(x: np.ndarray) -> np.ndarray:
        asked.append(x)
        return zoo.models["mlp"].labels(torch.from_numpy(x)).numpy()

    victim = FunctionModel(answer, returns="labels")
    net = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Dropout(0.1), nn.Linear(64, 10))
    train_surrogate(victim, zoo.x[:30], net, queries=queries, steps=3, batch_size=7)
    points = np.concatenate(asked)
    assert len(points) == queries
    assert points.min() >= 0
    assert points.max() <= 1
    own = {row.tobytes() for row in zoo.x[:30].numpy()}
    assert all(row.tobytes() in own for row in points[:30])
    assert len({row.tobytes() for row in points}) > 0.9 * queries


def test_a_surrogate_of_features_without_bounds_moves_by_their_spread() -> None:
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(0, (1, 100), (40, 2)).astype(np.float32))
    asked = []

    def answer(rows: np.ndarray) -> np.ndarray:
        asked.append(rows)
        return (rows[:, 0] > 0).astype(np.int64)

    victim = FunctionModel(answer, returns="labels", domain=(-np.inf, np.inf))
    train_surrogate(victim, x, nn.Linear(2, 2), queries=80, steps=5, learning_rate=1e-4)
    moved = np.concatenate(asked)
    nearest = np.abs(moved[40:, None] - moved[None, :40])
    spread = x.numpy().max(0) - x.numpy().min(0)
    steps = np.abs(nearest / spread - 0.2).max(2).min(1)
    assert steps.max() < 1e-3


def test_answers_that_are_no_numbers_teach_nothing(zoo: Zoo) -> None:
    def answer(x: np.ndarray) -> np.ndarray:
        scores = zoo.models["mlp"].scores(torch.from_numpy(x)).numpy()
        scores[::2] = np.nan
        return scores

    surrogate = train_surrogate(FunctionModel(answer), zoo.x[:60], _mlp(8, 16), queries=60)
    assert bool(surrogate.scores(zoo.x).isfinite().all())
    silent = FunctionModel(lambda x: np.full((len(x), 10), np.nan))
    _one_line(ModelError, "finite", train_surrogate, silent, zoo.x, _mlp(8, 16), queries=5)


def _one_line(kind: type[WithstandError], word: str, call, *args, **options) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(kind, match=word) as caught:
        call(*args, **options)
    assert "\n" not in str(caught.value)


def test_the_matrix_says_who_fools_whom(zoo: Zoo) -> None:
    labels = FunctionModel(
        lambda x: zoo.models["deep"].labels(torch.from_numpy(x)).numpy(), returns="labels"
    )
    models: dict[str, Model] = {
        "conv": zoo.models["conv"], "mlp": zoo.models["mlp"], "box": labels
    }  # fmt: skip
    # Every fifth label is wrong, so that no model is right there.
    y = zoo.y.clone()
    y[::5] = (y[::5] + 1) % 10
    data, threat = from_arrays(zoo.x.numpy(), y.numpy()), Threat(region=Linf(0.12), access="none")
    before = torch.get_rng_state()
    matrix = transfer_matrix(models, data, threat, attack=TransferPGD(steps=5))
    assert torch.equal(before, torch.get_rng_state())
    assert matrix.models == ("conv", "mlp", "box")
    right = len(y) - len(y[::5])
    assert matrix.clean_accuracy["conv"].n == len(y)
    for source in ("conv", "mlp"):
        white = run(TransferPGD(steps=5), models[source], zoo.x, y, Threat(region=Linf(0.12)))
        fooled = sum(status == "fooled" for status in white.status)
        assert matrix.rates[source][source].n == right
        assert round(matrix.rates[source][source].value * right) == fooled
        for victim in models:
            rate = matrix.rates[source][victim]
            assert rate.n == right
            assert 0.1 < rate.value <= matrix.rates[source][source].value + 0.1
    assert all(rate.n == 0 for rate in matrix.rates["box"].values())
    assert matrix.strongest is not None
    assert matrix.strongest[0] != "box"
    told = json.loads(json.dumps(matrix.to_dict(), allow_nan=False))
    assert told["rates"]["box"]["conv"] == {"value": None, "low": None, "high": None, "n": 0}
    assert told["threat"]["access"] == "none"
    console = Console(width=140, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    show_transfer(matrix, console)
    shown = console.export_text()
    console.file.close()
    assert shown.count("no data") == 3
    assert str(matrix.rates["conv"]["mlp"]) in shown
    assert shown.startswith(f"Examples made on {matrix.strongest[0]} fool {matrix.strongest[1]}")


def test_a_matrix_counts_inputs_that_both_get_right(zoo: Zoo) -> None:
    torch.manual_seed(0)
    models: dict[str, Model] = {"conv": zoo.models["conv"], "blind": TorchModel(_mlp(8, 4))}
    matrix = transfer_matrix(models, zoo.data, Threat(region=Linf(0.1)))
    both = int((models["blind"].labels(zoo.x) == zoo.y).sum())
    assert 0 < both < len(zoo.x)
    assert matrix.rates["conv"]["blind"].n == both
    assert matrix.rates["blind"]["conv"].n == both
    assert matrix.rates["conv"]["conv"].n == len(zoo.x)


def test_a_matrix_without_a_pair_says_that_there_is_no_data(zoo: Zoo) -> None:
    wrong = FunctionModel(lambda x: np.full(len(x), -1), returns="labels")
    models: dict[str, Model] = {"conv": zoo.models["conv"], "wrong": wrong}
    matrix = transfer_matrix(models, zoo.data, Threat(region=Linf(0.1)))
    assert matrix.strongest is None
    assert str(matrix.rates["conv"]["wrong"]) == "no data"
    console = Console(width=140)
    with console.capture() as captured:
        show_transfer(matrix, console)
    assert captured.get().startswith("No data")


def test_a_victim_that_crashes_is_not_fooled(zoo: Zoo) -> None:
    def answer(x: np.ndarray) -> np.ndarray:
        scores = zoo.models["mlp"].scores(torch.from_numpy(x)).numpy()
        known = {row.tobytes() for row in zoo.x.numpy()}
        scores[[row.tobytes() not in known for row in x]] = np.nan
        return scores

    models: dict[str, Model] = {"conv": zoo.models["conv"], "crashing": FunctionModel(answer)}
    matrix = transfer_matrix(models, zoo.data, Threat(region=Linf(0.15)))
    assert matrix.rates["conv"]["crashing"].value == 0


def test_a_matrix_of_probabilities_is_that_of_their_logits(zoo: Zoo) -> None:
    class Soft(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return zoo.models["conv"].net(x).softmax(1)  # type: ignore[attr-defined, no-any-return]

    models: dict[str, Model] = {"conv": zoo.models["conv"], "soft": TorchModel(Soft())}
    rates = transfer_matrix(models, zoo.data, Threat(region=Linf(0.1))).rates
    assert rates["soft"]["soft"].value == pytest.approx(rates["conv"]["conv"].value, abs=0.02)
    assert rates["soft"]["conv"].value == pytest.approx(rates["conv"]["conv"].value, abs=0.02)


@pytest.mark.parametrize("region", [Linf(0.1), L2(0.5), L1(3.0)])
def test_a_matrix_of_targeted_examples_and_of_each_norm(zoo: Zoo, region: Region) -> None:
    models = {name: zoo.models[name] for name in ("conv", "mlp")}
    threat = Threat(region=region, goal=Targeted(3))
    matrix = transfer_matrix(models, zoo.data, threat)
    assert matrix.rates["conv"]["conv"].value >= matrix.rates["conv"]["mlp"].value > 0


def test_errors_say_in_one_line_what_to_do(zoo: Zoo) -> None:
    model, x, y, threat = zoo.models["conv"], zoo.x, zoo.y, Threat(region=Linf(0.1))
    for options in ({"momentum": -1}, {"diversity": 1.5}, {"variance": -1}, {"diversity": -0.1}):
        _one_line(ThreatError, "at least 0", TransferPGD, **options)
    for width in (-1, 2, 4):
        _one_line(ThreatError, "odd", TransferPGD, smoothing=width)
    flat = TorchModel(_mlp(8, 16))
    for attack in (TransferPGD(diversity=0.5), TransferPGD(smoothing=3)):
        _one_line(ThreatError, "images", craft, attack, flat, x.flatten(1), y, threat)
    box = FunctionModel(lambda x: np.zeros((len(x), 10)))
    _one_line(ModelError, "surrogate", craft, TransferPGD(), box, x, y, threat)
    _one_line(ModelError, "gradients", craft, Square(), model, x, y, threat)
    _one_line(ThreatError, "radius", craft, FMN(), model, x, y, threat)
    _one_line(ThreatError, "radius", craft, TransferPGD(), model, x, y, threat.unbounded())
    _one_line(ThreatError, "norm", craft, TransferPGD(), model, x, y, Threat(region=L0(3)))
    _one_line(DataError, "labels", craft, TransferPGD(), model, x, y[1:], threat)
    _one_line(DataError, "labels", craft, TransferPGD(), model, x[:0], y[:0], threat)

    net = _mlp(8, 16)
    _one_line(BudgetError, "at least 1", train_surrogate, model, x, net, queries=0)
    _one_line(DataError, "samples", train_surrogate, model, x[:0], net, queries=5)
    _one_line(ModelError, "steps", train_surrogate, model, x, net, queries=5, steps=0)
    _one_line(ModelError, "parameters", train_surrogate, model, x, nn.Flatten(), queries=5)
    _one_line(ModelError, "diverged", train_surrogate, model, x, net, queries=5, learning_rate=1e38)
    few = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    _one_line(ModelError, "10 scores", train_surrogate, model, x, few, queries=5)
    labels = FunctionModel(lambda x: np.full(len(x), 7), returns="labels")
    _one_line(ModelError, "class 7", train_surrogate, labels, x, few, queries=5)
    one = FunctionModel(lambda x: np.zeros((len(x), 1)))
    _one_line(ModelError, "one number", train_surrogate, one, x, net, queries=5)
    victim, rows, _ = _counting(model, "scores")
    wrong = nn.Sequential(nn.Flatten(), nn.Linear(63, 10))
    _one_line(ModelError, "failed", train_surrogate, victim, x, wrong, queries=5)
    assert not rows

    _one_line(ModelError, "surrogate", transfer_matrix, {"box": box}, zoo.data, threat)
    _one_line(ModelError, "surrogate", transfer_matrix, {}, zoo.data, threat)
    scaled = {"a": model, "b": TorchModel(net, domain=(0, 255))}
    _one_line(DataError, "Pipeline", transfer_matrix, scaled, zoo.data, threat)
