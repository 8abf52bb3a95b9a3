"""Bounds against golden numbers, exhaustive search, closed forms and our own attacks."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import Tensor, nn
from torch.nn import functional

from withstand import attacks
from withstand._errors import ModelError, ThreatError
from withstand.certify.bounds import METHODS, bounds, margins, prove
from withstand.certify.bounds import _crown as crown
from withstand.certify.bounds._activations import SIGMOID, TANH, Rectifier
from withstand.certify.bounds._crown import intervals
from withstand.certify.bounds._operations import Interval
from withstand.certify.bounds._reach import reach
from withstand.certify.bounds._trace import exact_graph, trace
from withstand.certify.bounds._training import worst_leads
from withstand.certify.bounds._windows import Windowed
from withstand.models import FunctionModel, Pipeline, TorchModel
from withstand.threat import (
    L0,
    L1,
    L2,
    Box,
    Frozen,
    Linf,
    Mask,
    MultiLabel,
    Region,
    Regression,
    Targeted,
    Threat,
)

DATA = Path(os.environ.get("WITHSTAND_DATA", Path(__file__).parents[2] / "shared" / "data"))
LAYERS: dict[str, Callable[..., nn.Module]] = {
    "conv": lambda i, o, k, s, p: nn.Conv2d(i, o, k, s, p),
    "linear": nn.Linear,
    "relu": nn.ReLU,
    "leaky": nn.LeakyReLU,
    "avgpool": nn.AvgPool2d,
    "batchnorm": nn.BatchNorm2d,
    "flatten": nn.Flatten,
}


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def mlp(sizes: list[int], activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), activation()]
    return nn.Sequential(*layers[:-1])


GOLDEN = sorted((DATA / "bounds").glob("*.npz"))


@pytest.mark.skipif(not GOLDEN, reason=f"no golden bounds in {DATA / 'bounds'}")
def test_golden_bounds_of_another_implementation() -> None:
    assert len(GOLDEN) == 24
    tighter = 0
    for file in GOLDEN:
        with np.load(file) as golden:
            net = nn.Sequential(
                *(LAYERS[kind](*options) for kind, *options in json.loads(str(golden["spec"])))
            )
            state = {k[3:]: torch.tensor(golden[k]) for k in golden.files if k.startswith("sd:")}
            net.load_state_dict(state)
            for name, method in (("IBP", "ibp"), ("CROWN-IBP", "crown-ibp"), ("CROWN", "crown")):
                region = Linf(float(golden["eps"]))
                lower, upper = bounds(net.eval(), golden["x"], region, method=method)
                assert lower.numpy() == pytest.approx(golden[f"lb:{name}"], abs=2e-2)
                assert (lower.numpy() >= golden[f"lb:{name}"] - 1e-5).all(), (file.name, name)
                assert (upper.numpy() <= golden[f"ub:{name}"] + 1e-5).all(), (file.name, name)
                tighter += int((lower.numpy() > golden[f"lb:{name}"] + 1e-4).sum())
    assert tighter


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.Conv2d(4, 4, 3, padding=1)
        self.norm, self.short = nn.BatchNorm2d(4), nn.Conv2d(2, 4, 1)
        self.head = nn.Linear(4, 3)
        self.norm.running_mean = torch.randn(4)
        self.norm.running_var = torch.rand(4) + 0.5

    def forward(self, x: Tensor) -> Tensor:
        out = functional.relu(self.norm(self.a(x)))
        out = functional.leaky_relu(self.b(out) + self.short(x), 0.2) - 0.5 * self.short(x)
        out = functional.adaptive_avg_pool2d(out, 1).view(out.size(0), -1)
        scores: Tensor = self.head(functional.dropout(out, training=self.training))
        return scores


class Mixed(nn.Module):
    """Normalisation, a grouped and dilated convolution, joined branches, odd reshapes."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.rand(2, 1, 1))
        self.a = nn.Conv2d(2, 4, (3, 2), stride=(2, 1), padding=(1, 0), groups=2)
        self.b = nn.Conv2d(4, 2, 2, dilation=2)
        self.head = nn.Linear(2 * 4 + 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = (x - self.mean) / torch.tensor([0.5, 0.7]).view(2, 1, 1)
        out = torch.relu(self.a(functional.pad(x, (1, 0, 0, 0))))
        out = torch.tanh(self.b(out)).permute(0, 2, 3, 1).flatten(1)
        aside = (-x).sigmoid().mean((2, 3))
        scores: Tensor = self.head(torch.cat((out[:, :8], 2 * aside), 1))
        return scores


class Clipped(nn.Module):
    """The rest of the ReLU's family, values that are cut off, and matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 3, 3), nn.Conv2d(3, 3, 2)
        self.each, self.six, self.hard = nn.PReLU(3), nn.ReLU6(), nn.Hardtanh(-0.2, 0.4)
        self.weight = nn.Parameter(torch.randn(3, 3))
        self.register_buffer("most", torch.tensor([0.1, 0.4, 0.3]))
        self.register_buffer("slope", torch.tensor([0.2]))
        with torch.no_grad():
            # A slope above 1 and one below 0 too.
            self.each.weight.copy_(torch.tensor([0.3, 1.5, -0.4]))

    def forward(self, x: Tensor) -> Tensor:
        x = (2 * x - 0.5).clamp(0, 1)
        out = self.hard(self.b(self.each(self.a(x))))
        out = functional.adaptive_avg_pool2d(self.six(5 * out + 5.5), 1).flatten(1)
        out = torch.clamp(out @ self.weight, max=self.most).clamp_min(-0.5)
        scores: Tensor = torch.matmul(functional.prelu(out, self.slope), self.weight)
        return scores


class Gray(nn.Module):
    """One channel spread over three."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3))

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.net(x - torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1))
        return scores


def zoo() -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    return {
        "residual": (Residual(), (2, 5, 5)),
        "mixed": (Mixed(), (2, 6, 6)),
        "gray": (Gray(), (1, 6, 6)),
        "max": (
            nn.Sequential(
                nn.Conv2d(1, 3, 3, padding=1),
                nn.MaxPool2d(3, stride=2, padding=1),
                nn.ReLU(),
                nn.MaxPool2d(2),
                nn.Flatten(),
                nn.Linear(12, 3),
            ),
            (1, 8, 8),
        ),
        "series": (
            nn.Sequential(
                nn.Conv1d(2, 4, 3, stride=2, padding="valid"),
                nn.LeakyReLU(0.6),
                nn.MaxPool1d(2),
                nn.AvgPool1d(2),
                nn.Conv1d(4, 3, 3, padding="same"),
                nn.ReLU(),
                nn.AdaptiveAvgPool1d(1),
                nn.Flatten(),
            ),
            (2, 21),
        ),
        "clipped": (Clipped(), (2, 4, 4)),
        "sigmoid": (mlp([6, 8, 8, 3], nn.Sigmoid), (6,)),
        "tanh": (mlp([6, 8, 8, 3], nn.Tanh), (6,)),
        "linear": (mlp([6, 3]), (6,)),
        "activation first": (nn.Sequential(nn.Tanh(), nn.Linear(6, 3)), (6,)),
        "activation of activation": (
            nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.ReLU(), nn.ReLU(), nn.Linear(8, 3)),
            (6,),
        ),
    }


@pytest.mark.parametrize("name", zoo())
@pytest.mark.parametrize("region", [Linf(0.2), L2(0.5), L1(0.9), L0(2) & Box(0, 1)])
def test_no_reachable_input_leaves_the_bounds(name: str, region: Region) -> None:
    net, shape = zoo()[name]
    x = torch.rand(3, *shape)
    reached = corners(region, x, 400)
    with torch.no_grad():
        scores = net.eval()(reached.flatten(0, 1)).reshape(3, -1, 3).double()
    widths = []
    for method in METHODS[:4]:
        lower, upper = bounds(net, x, region, method=method)
        assert (lower[:, None] <= scores + 1e-5).all()
        assert (upper[:, None] >= scores - 1e-5).all()
        widths.append(float((upper - lower).mean()))
    assert widths == sorted(widths, reverse=True)
    # Bounds that are sound by being useless would pass what is above.
    spread = float((scores.amax(1) - scores.amin(1)).mean())
    assert widths[-1] < 12 * spread


def corners(region: Region, x: Tensor, count: int) -> Tensor:
    """Inputs (B, count, ...) on the region's edge, most of them at its corners."""
    ball = next(iter(region))
    flat = x.flatten(1)[:, None].expand(-1, count, -1).clone()
    sign = torch.randint(0, 2, flat.shape) * 2.0 - 1
    eps = float(getattr(ball, "eps"))  # noqa: B009
    if isinstance(ball, Linf):
        flat += eps * sign * torch.rand(flat.shape[0], count, 1).clamp(min=0.5).round(decimals=0)
    elif isinstance(ball, L2):
        noise = torch.randn(flat.shape)
        flat += eps * noise / noise.norm(dim=2, keepdim=True)
    else:
        few = torch.rand(flat.shape).argsort(2) < (1 if isinstance(ball, L1) else int(eps))
        moved = flat + eps * sign if isinstance(ball, L1) else (sign > 0).float()
        flat = torch.where(few, moved, flat)
    return flat.reshape(len(x), count, *x.shape[1:])


@pytest.mark.parametrize("region", [Linf(0.1), L2(0.2), L1(0.3), L0(2) & Box(0, 1)])
def test_bounds_of_a_linear_model_are_exact(region: Region) -> None:
    net = nn.Linear(5, 3)
    x = torch.rand(4, 5)
    weight, scores = net.weight.detach().double(), net.double()(x.double()).detach()
    ball = next(iter(region))
    eps = float(getattr(ball, "eps"))  # noqa: B009
    if isinstance(ball, Linf):
        fall = eps * weight.abs().sum(1).expand(4, -1)
    elif isinstance(ball, L2):
        fall = eps * weight.norm(dim=1).expand(4, -1)
    elif isinstance(ball, L1):
        fall = eps * weight.abs().amax(1).expand(4, -1)
    else:
        at = x.double()[:, None]
        lost = torch.maximum(weight * at, weight * (at - 1))
        fall = lost.topk(2, dim=2).values.sum(2)
    lower, _ = bounds(net.float(), x, region)
    assert lower.numpy() == pytest.approx((scores - fall).numpy(), abs=1e-9)


def exact_least(net: nn.Sequential, x: np.ndarray, eps: float, c: np.ndarray) -> float:
    """The least c @ net over a box, by an LP for every pattern of active neurons."""
    weights = [
        (m.weight.detach().double().numpy(), m.bias.detach().double().numpy())
        for m in net
        if isinstance(m, nn.Linear)
    ]
    hidden = [len(b) for _, b in weights[:-1]]
    best = np.inf
    for pattern in product((0.0, 1.0), repeat=sum(hidden)):
        active = np.split(np.array(pattern), np.cumsum(hidden)[:-1])
        slope, shift = np.eye(len(x)), np.zeros(len(x))
        rows, limits = [], []
        for (weight, bias), on in zip(weights[:-1], active, strict=True):
            slope, shift = weight @ slope, weight @ shift + bias
            rows.append(np.where(on[:, None] > 0, -slope, slope))
            limits.append(np.where(on > 0, shift, -shift))
            slope, shift = on[:, None] * slope, on * shift
        weight, bias = weights[-1]
        slope, shift = c @ weight @ slope, c @ (weight @ shift + bias)
        found = linprog(
            slope,
            A_ub=np.concatenate(rows),
            b_ub=np.concatenate(limits),
            bounds=list(zip(x - eps, x + eps, strict=True)),
        )
        if found.success:
            best = min(best, float(found.fun + shift))
    return best


@pytest.mark.parametrize(
    ("sizes", "eps"),
    [
        ([2, 6, 2], 0.5),
        ([2, 3, 3, 2], 0.5),
        pytest.param([4, 10, 2], 0.3, marks=pytest.mark.slow),
        pytest.param([3, 5, 5, 2], 0.4, marks=pytest.mark.slow),
        pytest.param([3, 4, 3, 3, 2], 0.4, marks=pytest.mark.slow),
    ],
)
def test_bounds_never_pass_the_exact_minimum_and_come_near_it(sizes: list[int], eps: float) -> None:
    gaps: dict[str, list[float]] = {method: [] for method in METHODS}
    for seed in range(2):
        torch.manual_seed(seed)
        net, x = mlp(sizes), torch.rand(1, sizes[0])
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.mul_(2)
        c = np.array([1.0, -1.0])
        exact = exact_least(net, x[0].double().numpy(), eps, c)
        for method in METHODS:
            bound = float(margins(net, x, torch.tensor([0]), Linf(eps), method=method))
            assert bound <= exact + 1e-7
            gaps[method].append(exact - bound)
    mean = [float(np.mean(gaps[method])) for method in METHODS]
    assert mean == sorted(mean, reverse=True)
    assert mean[METHODS.index("alpha-crown")] < 0.5 * mean[0]
    assert max(gaps["beta-crown"]) < 2e-3


KINDS: dict[str, Callable[[], nn.Module]] = {
    "relu6": lambda: nn.Sequential(Scaled(8.0), nn.ReLU6(), Scaled(0.125)),
    "prelu": lambda: nn.PReLU(init=0.3),
    "steep prelu": lambda: nn.PReLU(init=1.7),
    "turned prelu": lambda: nn.PReLU(init=-0.6),
    "hardtanh": lambda: nn.Hardtanh(-0.3, 0.5),
}


class Scaled(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


@pytest.mark.parametrize("kind", KINDS)
def test_bounds_of_the_relus_family_come_near_what_a_grid_finds(kind: str) -> None:
    axis = torch.linspace(-0.5, 0.5, 301)
    grid = torch.cartesian_prod(axis, axis)
    gaps: dict[str, list[float]] = {method: [] for method in METHODS}
    for seed in range(3):
        torch.manual_seed(seed)
        net, x = mlp([2, 4, 4, 2], KINDS[kind]), torch.rand(1, 2)
        with torch.no_grad():
            for layer in net:
                if isinstance(layer, nn.Linear):
                    layer.weight.mul_(2)
            scores = net(x + grid)
        least = float((scores[:, 0] - scores[:, 1]).min())
        for method in METHODS:
            bound = float(margins(net, x, torch.tensor([0]), Linf(0.5), method=method))
            assert bound <= least + 1e-5
            gaps[method].append(least - bound)
    mean = [float(np.mean(gaps[method])) for method in METHODS]
    assert mean == sorted(mean, reverse=True)
    # The least value lies within half a step of the grid.
    assert max(gaps["beta-crown"]) < 0.05


@pytest.mark.parametrize("kind", ["relu6", "hardtanh", "prelu"])
def test_of_a_single_neuron_the_lines_are_those_of_its_hull(kind: str) -> None:
    """Between two ends the lines of a clipped value are no looser than its chords."""
    neuron = KINDS[kind]()
    lower, upper = -0.9, 1.1
    x = torch.tensor([[(lower + upper) / 2]])
    net = nn.Sequential(nn.Linear(1, 1), neuron, nn.Linear(1, 2))
    with torch.no_grad():
        net[0].weight.fill_(1.0)
        net[0].bias.fill_(0.0)
        net[2].weight.copy_(torch.tensor([[1.0], [0.0]]))
        net[2].bias.fill_(0.0)
        ends = neuron(torch.tensor([[lower], [upper]]))
    for method in METHODS[2:]:
        low, high = bounds(net, x, Linf(1.0), method=method)
        assert float(low[0, 0]) == pytest.approx(float(ends[0]), abs=1e-6)
        assert float(high[0, 0]) == pytest.approx(float(ends[1]), abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_no_attack_beats_a_certificate_of_the_relus_family(kind: str) -> None:
    fooled, proven = contradicted(range(3), activation=KINDS[kind])
    assert fooled == 0
    assert proven > 20


@pytest.mark.parametrize("crown", [False, True])
def test_gradients_of_bounds_reach_slopes_and_products_as_they_change(crown: bool) -> None:
    # With most others what they lead to is cut off, and no slope is due.
    torch.manual_seed(8)
    net, x, y = Clipped(), torch.rand(4, 2, 4, 4), torch.arange(4) % 3
    graph, wanted = trace(net, x), [net.each.weight, net.weight]
    for factor in (1.0, 0.9):
        with torch.no_grad():
            for parameter in wanted:
                parameter.mul_(factor)
        leads = worst_leads(graph, x - 0.01, x + 0.01, y, crown=crown)
        slopes = torch.autograd.grad(leads.sum(), wanted)
        assert all(slope.abs().max() > 0 for slope in slopes)
        fresh = worst_leads(trace(net, x), x - 0.01, x + 0.01, y, crown=crown)
        torch.testing.assert_close(leads, fresh)


def test_splitting_decides_what_lines_leave_open() -> None:
    net, x = mlp([5, 12, 12, 3]), torch.rand(16, 5)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(2)
    model = TorchModel(net)
    y, threat = model.labels(x), Threat(region=Linf(0.15))
    lines = prove(model, x, y, threat, arithmetic="real")
    split = prove(model, x, y, threat, arithmetic="real", method="beta-crown")
    assert (split.proven >= lines.proven).all()
    assert "beta-crown" in {m for m, p in zip(split.method, split.proven, strict=True) if p}
    # What it does not prove is fooled: nothing is left open.
    rows = np.flatnonzero(~split.proven)
    assert len(rows)
    found = attacks.run(attacks.APGD(loss="pma", steps=60), model, x[rows], y[rows], threat, seed=0)
    assert np.asarray(found.success).all()


def test_dearer_methods_are_never_looser_and_intervals_grow_with_the_radius() -> None:
    net, x = mlp([8, 16, 16, 4]), torch.rand(6, 8)
    y = torch.arange(6) % 4
    found = [margins(net, x, y, Linf(0.08), method=method) for method in METHODS[:4]]
    for cheap, dear in pairwise(found):
        assert (dear >= cheap).all()
    assert (found[-1] > found[0] + 1e-3).any()
    radii = [margins(net, x, y, Linf(eps), method="ibp") for eps in (0.0, 0.01, 0.05, 0.2)]
    for near, far in pairwise(radii):
        assert (near > far).all()
    with torch.no_grad():
        scores = net(x).double()
    lead = scores.gather(1, y[:, None])[:, 0] - scores.scatter(1, y[:, None], -np.inf).amax(1)
    assert radii[0].numpy() == pytest.approx(lead.numpy(), abs=1e-5)


def just_proven(model: TorchModel, x: Tensor, y: Tensor, method: str) -> np.ndarray:
    """The largest radius that is proven for each sample, by bisection; 0 where none is."""
    least, most = np.zeros(len(x)), np.full(len(x), 0.5)
    for _ in range(5):
        eps = (least + most) / 2
        proven = prove(model, x, y, Threat(region=Linf(eps)), method=method).proven
        least, most = np.where(proven, eps, least), np.where(proven, most, eps)
    return least


def contradicted(
    nets: range, samples: int = 20, activation: Callable[[], nn.Module] = nn.ReLU
) -> tuple[int, int]:
    """How many proven samples our attacks fool at just the radius that was proven, and of all."""
    fooled = proven = 0
    for seed in nets:
        torch.manual_seed(seed)
        shape: tuple[int, ...] = (6,)
        if seed % 5 == 4:
            net, shape = (
                nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 3)),
                (1, 6, 6),
            )
        elif seed % 5 == 3:
            net = mlp([6, 8, 8, 3], nn.Tanh)
        else:
            net = mlp([6, *[10] * (1 + seed % 3), 3], activation)
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.mul_(2)
        model, x = TorchModel(net), torch.rand(samples, *shape)
        y = model.labels(x)
        eps = just_proven(model, x, y, METHODS[seed % 4])
        rows = np.flatnonzero(eps)
        if not len(rows):
            continue
        threat = Threat(region=Linf(eps[rows]))
        for attack in (attacks.PGD(steps=15), attacks.APGD(loss="pma", steps=15)):
            found = attacks.run(attack, model, x[rows], y[rows], threat, seed=seed)
            fooled += int(np.asarray(found.success).sum())
        proven += len(rows)
    return fooled, proven


def test_no_attack_beats_a_certificate() -> None:
    fooled, proven = contradicted(range(20))
    assert fooled == 0
    assert proven > 300


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_no_attack_beats_a_certificate_of_500_networks() -> None:
    fooled, proven = contradicted(range(500))
    assert fooled == 0
    assert proven > 9000


def test_attacks_find_a_certificate_that_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = Rectifier.relax

    def too_low(self: Rectifier, box: Interval, found: Interval | None = None) -> Any:
        lines = sound(self, box, found)
        lines.above[1].mul_(0.5)
        return lines

    monkeypatch.setattr(Rectifier, "relax", too_low)
    fooled, _ = contradicted(range(3))
    assert fooled > 0


@pytest.mark.parametrize("curve", [SIGMOID, TANH])
def test_lines_hold_the_curve_between_them(curve: Any) -> None:
    ends = torch.linspace(-6, 6, 41, dtype=torch.float64)
    lower, upper = (grid.flatten() for grid in torch.meshgrid(ends, ends, indexing="ij"))
    keep = lower <= upper
    box = Interval(lower[keep], upper[keep])
    lines = curve.relax(box)
    points = box.lower + (box.upper - box.lower) * torch.linspace(0, 1, 101)[:, None].double()
    below = lines.below[0] * points + lines.below[1]
    above = lines.above[0] * points + lines.above[1]
    assert (below <= curve(points) + 1e-12).all()
    assert (above >= curve(points) - 1e-12).all()
    # Between lines that touch the curve, and not between constants.
    assert ((curve(points) - below).amin(0) < 2e-2).all()
    wide = (box.upper - box.lower) < 1
    assert ((above - below).amax(0)[wide] < 0.2).all()


def test_rounding_of_the_served_model_is_taken_off() -> None:
    net = mlp([50, 80, 80, 5])
    x = torch.rand(64, 50)
    graph = exact_graph(net, x[:1].double())
    with torch.no_grad():
        off = (net(x).double() - graph(x.double())).abs()
        allowed = graph.rounding(intervals(graph, reach(Linf(0.0), x)).boxes, 2.0**-24)
    assert (off <= allowed).all()
    assert (off > 0).any()
    assert float(allowed.max()) < 1e-3
    # A lead that float32 does not surely see.
    with torch.no_grad():
        net[4].weight[0], net[4].bias[0] = net[4].weight[1], net[4].bias[1] + 1e-6
        net[4].bias[2:] = -10
    threat, y = Threat(region=Linf(0.0)), torch.zeros(64, dtype=torch.long)
    assert prove(TorchModel(net), x, y, threat, arithmetic="real").proven.all()
    served = prove(TorchModel(net), x, y, threat)
    assert not served.proven.any()
    assert served.arithmetic == "float32"


def test_products_that_torch_may_round_further_are_taken_off() -> None:
    net, x = mlp([50, 80, 80, 5]), torch.rand(64, 50)
    graph = exact_graph(net, x[:1].double())
    boxes = intervals(graph, reach(Linf(0.0), x)).boxes
    with torch.no_grad():
        made = x
        for layer in net:
            if isinstance(layer, torch.nn.Linear):
                short, weight = (one.bfloat16().float() for one in (made, layer.weight))
                made = short @ weight.T + layer.bias
            else:
                made = layer(made)
        off = (made.double() - graph(x.double())).abs()
    assert (off <= graph.rounding(boxes, 2.0**-24, 2.0**-8)).all()
    assert (off > graph.rounding(boxes, 2.0**-24)).any()
    threat, y = Threat(region=Linf(0.0)), net(x).argmax(1)
    plain = prove(TorchModel(net), x, y, threat)
    try:
        torch.set_float32_matmul_precision("medium")
        coarse = prove(TorchModel(net), x, y, threat)
    finally:
        torch.set_float32_matmul_precision("highest")
    assert (plain.arithmetic, coarse.arithmetic) == ("float32", "bf16")
    assert (coarse.rounding > 10 * plain.rounding).all()


def test_rounding_of_every_operation_is_taken_off() -> None:
    for net, shape in zoo().values():
        x = 4 * torch.rand(32, *shape)
        graph = exact_graph(net.eval(), x[:1].double())
        with torch.no_grad():
            off = (net(x).double() - graph(x.double())).abs()
            allowed = graph.rounding(intervals(graph, reach(Linf(0.0), x)).boxes, 2.0**-24)
        assert (off <= allowed).all()
        assert (allowed < 1e-3).all()


def test_one_score_for_each_input_is_enough_for_a_regression() -> None:
    net = nn.Sequential(nn.Linear(4, 1), nn.Flatten(0))
    model, x = TorchModel(net), torch.rand(3, 4)
    y = model.scores(x)[:, 0]
    threat = Threat(region=Linf(0.01), goal=Regression(1.0))
    assert prove(model, x, y, threat).proven.all()


def test_cascade_stops_at_the_first_proof_of_each_sample() -> None:
    net, x = mlp([8, 30, 30, 3]), torch.rand(90, 8)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(2)
    model = TorchModel(net)
    y, told = model.labels(x), list[tuple[int, int]]()
    eps = np.geomspace(1e-3, 0.3, 90)
    proofs = prove(
        model, x, y, Threat(region=Linf(eps)), progress=lambda done, all_: told.append((done, all_))
    )
    assert set(proofs.method) >= {"ibp", "crown", "alpha-crown"}
    assert told == [(64, 90), (90, 90)]
    assert (proofs.proven == (proofs.margin > 0)).all()
    assert 0 < proofs.proven.sum() < 90
    assert proofs.certified_accuracy.value == proofs.proven.mean()
    assert (proofs.seconds > 0).all()
    # What a sample is told does not depend on its neighbours.
    alone = prove(model, x[70:80], y[70:80], Threat(region=Linf(eps[70:80])))
    assert alone.margin == pytest.approx(proofs.margin[70:80], abs=1e-9)
    cheap = prove(model, x, y, Threat(region=Linf(eps)), method="ibp")
    assert (proofs.proven >= cheap.proven).all()
    assert (proofs.proven > cheap.proven).any()


def test_pieces_do_not_change_the_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    net, shape = zoo()["residual"]
    x = torch.rand(3, *shape)
    whole = bounds(net.eval(), x, Linf(0.1), method="alpha-crown")
    monkeypatch.setattr(crown, "CHUNK", 300)
    pieces = bounds(net, x, Linf(0.1), method="alpha-crown")
    assert pieces.lower.numpy() == pytest.approx(whole.lower.numpy(), abs=1e-9)


def test_windows_give_what_whole_pictures_give(monkeypatch: pytest.MonkeyPatch) -> None:
    net = nn.Sequential(
        nn.Conv2d(2, 3, 3, stride=2, padding=1),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.Conv2d(3, 4, (2, 3), padding=(0, 1), bias=False),
        nn.LeakyReLU(0.1),
        nn.Conv2d(4, 3, 2),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(3 * 8 * 9, 3),
    )
    net(torch.rand(9, 2, 20, 20))
    x = torch.rand(2, 2, 20, 20)
    for region in (Linf(0.05) & Box(0, 1), L2(0.5), L1(1.0)):
        windows = bounds(net.eval(), x, region)
        with monkeypatch.context() as patch:
            patch.setattr(Windowed, "worth", False)
            pictures = bounds(net, x, region)
        assert windows.lower.numpy() == pytest.approx(pictures.lower.numpy(), abs=1e-9)


def test_regions_leave_fixed_features_alone() -> None:
    net, x = nn.Linear(4, 2), torch.rand(3, 4)
    y = torch.zeros(3, dtype=torch.long)
    lead = (net.weight[0] - net.weight[1]).detach().double()
    at = net.double()(x.double()).detach() @ torch.tensor([1.0, -1.0], dtype=torch.float64)
    free = np.array([True, False, True, False])
    eps = np.array([0.1, 0.2, 0.3])
    fall = torch.from_numpy(eps) * lead[[0, 2]].abs().sum()
    for region in (Linf(eps) & Frozen((1, 3)), Linf(eps) & Mask(free)):
        found = margins(net, x, y, region)
        assert found.numpy() == pytest.approx((at - fall).numpy(), abs=1e-9)
    for radius in (L2(np.inf), L1(np.inf)):
        boxed = margins(net, x, y, radius & Box(0, 1) & Frozen((1, 2, 3)))
        least = at - torch.maximum(lead[0] * x[:, 0], lead[0] * (x[:, 0] - 1))
        assert boxed.numpy() == pytest.approx(least.numpy(), abs=1e-7)
    with pytest.raises(ThreatError, match="no end"):
        margins(net, x, y, Linf(np.inf))
    with pytest.raises(ThreatError, match="outside the model's domain"):
        margins(TorchModel(net.float()), x + 2, y, Linf(0.1))


def test_goals_are_stated_as_their_margins() -> None:
    net, x = nn.Linear(4, 3), torch.rand(5, 4)
    model = TorchModel(net, domain=(-9, 9))
    scores = model.scores(x)
    many = torch.randint(0, 2, (5, 3))
    for goal, y in (
        (Targeted(1), torch.tensor([0, 2, 0, 2, 0])),
        (MultiLabel(flips=2), many),
    ):
        still = prove(model, x, y, Threat(region=Linf(0.0), goal=goal), arithmetic="real")
        assert still.margin == pytest.approx(goal.margin(scores, y).numpy(), abs=1e-6)
        moved = prove(model, x, y, Threat(region=Linf(0.3), goal=goal))
        assert (moved.margin < still.margin).all()
        for x_adv in corners(Linf(0.3), x, 200).unbind(1):
            assert (goal.margin(model.scores(x_adv), y).numpy() >= moved.margin).all()
    value = TorchModel(nn.Linear(4, 1), domain=(-9, 9))
    y = value.scores(x)[:, 0] + 0.1
    fall = 0.05 * float(value.net.weight.detach().abs().sum())
    for direction, error in (("up", -0.1), ("down", 0.1), ("any", 0.1)):
        goal = Regression(1.0, direction)
        found = prove(value, x, y, Threat(region=Linf(0.05), goal=goal), arithmetic="real")
        assert found.margin == pytest.approx(np.full(5, 1 - error - fall), abs=1e-6)


def test_models_are_read_with_the_steps_before_them_and_left_as_they_were() -> None:
    net = nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.5), nn.ReLU(), nn.Linear(6, 2)).train()
    x, y = torch.rand(4, 4) * 200, torch.tensor([0, 1, 0, 1])

    def scaled(x: Tensor) -> Tensor:
        return x / 255 - 0.5

    inside = TorchModel(net, domain=(0, 255), preprocess=scaled)
    before = Pipeline([scaled], TorchModel(net), domain=(0, 255))
    first, second = (margins(model, x, y, Linf(2.0)) for model in (inside, before))
    assert first.numpy() == pytest.approx(second.numpy(), abs=1e-9)
    with inside.held():
        expected = margins(net, scaled(x), y, Linf(2 / 255))
    assert first.numpy() == pytest.approx(expected.numpy(), abs=1e-6)
    assert net.training
    assert all(p.requires_grad and p.dtype == torch.float32 for p in net.parameters())


class Doubtful(nn.Module):
    def __init__(self, what: str) -> None:
        super().__init__()
        self.what, self.layer = what, nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer(x)
        if self.what == "softmax":
            return x.softmax(1)
        if self.what == "product":
            return x * x
        if self.what == "branch":
            return x if x.sum() > 0 else -x
        if self.what == "across":
            return x - x.mean(0, keepdim=True)
        if self.what == "ends":
            return x.clamp(max=x)
        if self.what == "endless":
            return x.clamp(0, np.inf)
        if self.what == "turned product":
            return self.layer.weight @ x
        return functional.softplus(x)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("softmax", "not pass through softmax, only through linear layers, .*smoothing"),
        ("curve", "not pass through softplus"),
        ("ends", "no finite constant"),
        ("endless", "no finite constant"),
        ("turned product", "x @ constant"),
        ("product", "product of two values"),
        ("branch", "cannot be traced"),
        ("across", "first axis must stay the samples'"),
    ],
)
def test_what_cannot_be_bounded_is_named(what: str, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        bounds(Doubtful(what), torch.rand(2, 4), Linf(0.1))
    assert len(str(caught.value)) < 260


def test_wrong_words_are_told() -> None:
    net, x, y = nn.Linear(4, 3), torch.rand(2, 4), torch.tensor([0, 1])
    with pytest.raises(ThreatError, match="method is 'exact'; it is one of ibp, crown-ibp"):
        bounds(net, x, Linf(0.1), method="exact")
    with pytest.raises(ModelError, match="not Function"):
        prove(FunctionModel(lambda x: x), x, y, Threat(region=Linf(0.1)))
    with pytest.raises(ThreatError, match="must be 0 to 2"):
        prove(TorchModel(net), x, y + 2, Threat(region=Linf(0.1)))
