"""Detection methods on inputs and on a model's answers, and the suite that every method passes."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from scipy.ndimage import median_filter
from scipy.signal import convolve2d
from scipy.special import ndtr
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from withstand._errors import ConfigError, DataError, ModelError
from withstand.detect import (
    MODALITIES,
    Confidence,
    Detector,
    Disagreement,
    FeatureSqueezing,
    GradientNorm,
    Method,
    NoiseStability,
    Observation,
    ReconstructedAnswer,
    Reconstruction,
    Residual,
    State,
    fit,
    made,
    registry,
)
from withstand.detect.methods._answers import divergence, l1
from withstand.detect.methods._mixture import mixture, rareness
from withstand.detect.methods._residual import _residual
from withstand.detect.methods._squeezing import _median_of_two, _non_local_means
from withstand.models import Ensemble, FunctionModel, TorchModel
from withstand.testing import check_detector
from withstand.testing.planted._attacks import climbed
from withstand.testing.planted._surgery import trained

DATA = Path(os.environ.get("WITHSTAND_DATA", Path(__file__).parents[2] / "shared" / "data"))
FAST: dict[str, dict[str, Any]] = {
    "IsolationForest": {"trees": 10},
    "Learned": {"steps": 2, "examples": 60, "radii": (0.3,)},
    "NoiseStability": {"sigma": 0.05},
    "ReconstructedAnswer": {"steps": 60, "width": 4},
    "Reconstruction": {"steps": 30, "width": 2},
}


@pytest.mark.parametrize("name", registry())
def test_every_method_conforms(name: str) -> None:
    check_detector(made(name, FAST.get(name)))


def test_the_reference_lists_every_method() -> None:
    page = Path(__file__).parents[1] / "docs" / "reference" / "detectors.md"
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in page.read_text().split("\n")
    ]
    told = {row[0].strip("`"): (row[1], row[2], row[3], row[5]) for row in rows if len(row) == 6}
    words = {"image": "images", "tabular": "tables", "signal": "signals", "text": "text"}
    for name in registry():
        method = made(name)
        known = method.modalities
        used = "all" if known == MODALITIES else ", ".join(words[modality] for modality in known)
        assert told[name] == (method.needs, f"{method.passes:g}", used, method.reference)


@dataclass(frozen=True, kw_only=True)
class Far(Method):
    """Distance to the benign mean: sound, and what the planted defects are made of."""

    needs: ClassVar = "input"
    modalities: ClassVar = ("tabular",)

    def fit(self, seen: Observation) -> State:
        return {"mean": seen.x.mean(0)}

    def score(self, state: State, seen: Observation) -> Tensor:
        return (seen.x - state["mean"]).square().sum(1)


class Batch(Far):
    def score(self, state: State, seen: Observation) -> Tensor:
        return (seen.x - seen.x.mean(0)).square().sum(1)


class Drawing(Far):
    def score(self, state: State, seen: Observation) -> Tensor:
        return super().score(state, seen) + torch.rand(len(seen.x))


class DrawnOnce(Far):
    def fit(self, seen: Observation) -> State:
        return {"mean": seen.x.mean(0) + 1e-4 * torch.rand(seen.x.shape[1])}


class InPlace(Far):
    def fit(self, seen: Observation) -> State:
        seen.x.mul_(0.5)
        return super().fit(seen)


class Column(Far):
    def score(self, state: State, seen: Observation) -> Tensor:
        return super().score(state, seen)[:, None]


class Infinite(Far):
    def score(self, state: State, seen: Observation) -> Tensor:
        return super().score(state, seen) / (state["mean"] * 0).sum()


class Plain(Far):
    def fit(self, seen: Observation) -> State:
        return {"mean": 0.5}  # type: ignore[dict-item]


class Beyond(Far):
    @property
    def highest(self) -> float:
        return 0.1


class Costly(Far):
    needs: ClassVar = "scores"

    def score(self, state: State, seen: Observation) -> Tensor:
        return super().score(state, seen) + 0 * seen.ask(seen.x + 1).sum(1)


class CutOff(Far):
    def score(self, state: State, seen: Observation) -> Tensor:
        return super().score(state, seen).detach()


class Secret(Far):
    differentiable: ClassVar = False


class Near(Far):
    def score(self, state: State, seen: Observation) -> Tensor:
        return -super().score(state, seen)


class Fragile(Far):
    def fit(self, seen: Observation) -> State:
        return {"mean": seen.x[3:5].mean(0) + 0 * seen.x[100]}


class Seeding(Far):
    def fit(self, seen: Observation) -> State:
        np.random.seed(0)
        return super().fit(seen)


class Wordy(Far):
    def fit(self, seen: Observation) -> State:
        if len(seen.x) < 10:
            raise DataError("too few\nso give more")
        return super().fit(seen)


class Growing(Far):
    def score(self, state: State, seen: Observation) -> Tensor:
        out = super().score(state, seen)
        state["mean"] += 1e-7
        return out


class Squeezed(Far):
    """Wrong for one input only, as `squeeze` without an axis makes it."""

    def score(self, state: State, seen: Observation) -> Tensor:
        out = super().score(state, seen)
        return out * 2 if len(out) == 1 else out


def test_the_suite_is_silent_on_a_sound_method() -> None:
    check_detector(Far())


@pytest.mark.parametrize(
    ("method", "told"),
    [
        (Batch, "other rows change"),
        (Drawing, "when repeated"),
        (DrawnOnce, "fitting twice gives two values of mean"),
        (InPlace, "fitting twice gives two values"),
        (Column, r"shape \(60, 1\)"),
        (Infinite, "not finite"),
        (Plain, "fit fails with AttributeError: 'float' object"),
        (Beyond, "highest says 0.1"),
        (Costly, "120 inputs asked of the model, passes says at most 60"),
        (CutOff, "cut off from the input"),
        (Secret, "the scores have a graph"),
        (Near, "nothing scores higher"),
        (Fragile, "1 benign inputs raise IndexError"),
        (Seeding, "random state changed"),
        (Wordy, "not one line"),
        (Growing, "repeated|scoring changes"),
        (Squeezed, "by itself"),
    ],
)
def test_the_suite_sees_planted_defects(method: type[Method], told: str) -> None:
    with pytest.raises(AssertionError, match=told):
        check_detector(method())


@pytest.mark.parametrize(
    ("method", "settings", "told"),
    [
        ("FeatureSqueezing", {"bits": None, "median": None}, "at least one"),
        ("FeatureSqueezing", {"bits": 0}, "1 to 16"),
        ("FeatureSqueezing", {"median": 4}, "give 2, 3, 5 or 7"),
        ("FeatureSqueezing", {"smoothing": 0.0}, "more than 0"),
        ("NoiseStability", {"sigma": 0.0}, "more than 0"),
        ("NoiseStability", {"draws": 0}, "at least 1"),
        ("NoiseStability", {"seed": 2**63}, "63 bits"),
        ("GradientNorm", {"norm": "l3"}, "l1 or l2"),
        ("Reconstruction", {"width": 0}, "at least 1"),
        ("Reconstruction", {"noise": -0.1}, "0 or more"),
        ("ReconstructedAnswer", {"temperature": 0.0}, "more than 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    method: str, settings: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        made(method, settings)


def linear(*weights: float, factor: float = 1.0) -> TorchModel:
    """Two classes; the first leads by the product of weights and input, times a factor."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(len(weights), 2, bias=False))
    with torch.no_grad():
        net[1].weight.copy_(factor * torch.tensor([weights, [0.0] * len(weights)]))
    return TorchModel(net)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def above(detector: Detector, benign: Tensor, other: Tensor) -> float:
    """The share of others that score above 99 % of benign inputs."""
    limit = detector.score(benign).quantile(0.99)
    return float((detector.score(other) > limit).float().mean())


# What a model answers


def test_divergence_is_nothing_between_equals_and_log_m_between_opposites() -> None:
    sure = torch.tensor([[200.0, -200.0], [-200.0, 200.0]])
    assert torch.equal(divergence(torch.stack((sure, sure))), torch.zeros(2))
    torch.testing.assert_close(
        divergence(torch.stack((sure, sure.flip(1)))), torch.full((2,), math.log(2))
    )
    p, q = torch.tensor([[0.8, 0.2]]), torch.tensor([[0.4, 0.6]])
    mean = (p + q) / 2
    by_hand = ((p * (p / mean).log()).sum(1) + (q * (q / mean).log()).sum(1)) / 2
    torch.testing.assert_close(divergence(torch.stack((p.log(), q.log()))), by_hand)
    torch.testing.assert_close(l1(p, q), torch.tensor([0.8]))


# Feature squeezing


def test_one_bit_moves_a_linear_answer_by_what_it_moves_the_input() -> None:
    model = linear(3.0, 0.0, factor=2.0)
    x = torch.tensor([0.6, 0.3, 0.0]).reshape(3, 1, 1).expand(3, 1, 2).contiguous()
    found = fit(FeatureSqueezing(bits=1, median=None), model, x).score(x)
    before, after = torch.sigmoid(6 * x[:, 0, 0]), torch.sigmoid(torch.tensor([6.0, 0.0, 0.0]))
    torch.testing.assert_close(found, 2 * (before - after).abs())


@pytest.mark.parametrize("shape", [(2, 3, 7, 6), (2, 3, 9)])
def test_the_median_of_two_is_that_of_the_authors(shape: tuple[int, ...]) -> None:
    x = drawn(*shape)
    size = (1, 1, *(2,) * (len(shape) - 2))
    wanted = median_filter(x.numpy(), size=size, mode="nearest")
    assert np.array_equal(_median_of_two(x).numpy(), wanted)


@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 7)])
def test_non_local_means_are_those_of_every_pair_of_places(shape: tuple[int, ...]) -> None:
    x, strength = drawn(1, *shape), 0.2
    images = x.numpy().reshape(1, 2, -1, shape[-1])
    _, channels, height, width = images.shape
    found = np.empty_like(images)
    rows = 5 if height > 1 else 0

    def value(image: Any, down: int, across: int) -> Any:
        return image[:, min(max(down, 0), height - 1), min(max(across, 0), width - 1)]

    for place in np.ndindex(1, height, width):
        image, (i, j) = images[place[0]], place[1:]
        total, weights = np.zeros(channels), 0.0
        for down, across in np.ndindex(2 * rows + 1, 11):
            move = (down - rows, across - 5)
            # Patches continue at their edges, as the differences do.
            around = [
                (min(max(i + a, 0), height - 1), min(max(j + b, 0), width - 1))
                for a, b in np.ndindex(3, 3)
                for a, b in [(a - 1, b - 1)]
            ]
            gaps = [value(image, a + move[0], b + move[1]) - image[:, a, b] for a, b in around]
            weight = np.exp(-np.square(gaps).mean() / strength**2)
            total += weight * value(image, i + move[0], j + move[1])
            weights += weight
        found[place[0], :, i, j] = total / weights
    np.testing.assert_allclose(_non_local_means(x, strength), found.reshape(x.shape), rtol=1e-4)


def test_smoothing_undoes_noise_and_keeps_edges() -> None:
    edge = torch.zeros(1, 1, 16, 16)
    edge[..., 8:] = 1.0
    noisy = edge + 0.05 * (2 * drawn(1, 1, 16, 16) - 1)
    smooth = _non_local_means(noisy, 0.1)
    assert (smooth - edge).square().mean() < 0.2 * (noisy - edge).square().mean()


def test_squeezing_takes_the_largest_and_knows_the_range() -> None:
    model = linear(*np.linspace(-2, 2, 16), factor=5)
    x = drawn(20, 1, 4, 4)
    parts = [FeatureSqueezing(bits=2, median=None), FeatureSqueezing(bits=None, median=3)]
    scores = [fit(part, model, x).score(x) for part in parts]
    both = fit(FeatureSqueezing(bits=2, median=3), model, x)
    assert torch.equal(both.score(x), torch.maximum(*scores))
    wide = TorchModel(nn.Sequential(nn.Flatten(), nn.Linear(16, 2)), domain=(0, 255))
    with torch.no_grad():
        wide.net[1].weight.copy_(model.net[1].weight / 255)
        wide.net[1].bias.zero_()
    x[0, 0, 0, 0] = 1
    again = fit(FeatureSqueezing(bits=2, median=3), wide, 255 * x)
    torch.testing.assert_close(again.score(255 * x), both.score(x), atol=1e-5, rtol=1e-4)


class Sure(nn.Module):
    """Ten times as sure; where levels are given, by the grey levels only."""

    def __init__(self, net: nn.Module, levels: int | None = None) -> None:
        super().__init__()
        self.net, self.levels = net, levels

    def forward(self, x: Tensor) -> Tensor:
        if self.levels is not None:
            x = (self.levels * x).round() / self.levels
        out: Tensor = 10 * self.net(x)
        return out


def stripes(n: int, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Smooth pictures (n, 3, 16, 16) that are lit from the left or from above, and which (n,)."""
    rng = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 2
    ramp = torch.linspace(0.3, 0.7, 16)
    light = torch.where(y[:, None, None] == 0, ramp[:, None].expand(16, 16), ramp.expand(16, 16))
    angle = 2 * torch.pi * torch.rand(n, 1, 1, generator=rng)
    shade = 0.05 * torch.sin(torch.linspace(0, 3, 16) + angle)
    tint = 0.1 * torch.rand(n, 3, 1, 1, generator=rng)
    noise = 0.01 * torch.randn(n, 1, 16, 16, generator=rng)
    noise = noise + 0.004 * torch.randn(n, 3, 16, 16, generator=rng)
    return ((light + shade)[:, None] + tint + noise).clamp(0, 1), y


def learned(net: nn.Module, x: Tensor, y: Tensor, *, steps: int = 150) -> None:
    def loss(rows: Tensor) -> Tensor:
        return cross_entropy(net(x[rows]), y[rows])

    trained(net, len(x), loss, steps=steps, rate=3e-3, seed=0)


@pytest.fixture(scope="module")
def lit() -> nn.Module:
    """A network that tells how pictures are lit."""
    x, y = stripes(400)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(392, 2)
        )
    learned(net, x, y)
    return net.eval()


def attacked(net: nn.Module, eps: float, *, steps: int = 20) -> Tensor:
    """Successful examples from unseen pictures, within eps in Linf."""
    x, y = stripes(100, seed=3)
    found = climbed(net, x, y, eps=eps, size=eps / 8, steps=steps)
    with torch.no_grad():
        fooled = net(found).argmax(1) != y
    assert int(fooled.sum()) >= 50
    return found[fooled]


def test_squeezing_sees_what_it_undoes_and_nothing_of_a_model_that_squeezes_too(
    lit: nn.Module,
) -> None:
    benign, _ = stripes(200, seed=1)
    method = FeatureSqueezing(bits=4, median=None)
    detector = fit(method, TorchModel(Sure(lit)), benign)
    x, y = stripes(100, seed=3)
    # Just across the boundary, where a change of the grey levels leads back.
    near, far = x, climbed(lit, x, y, eps=0.3, size=0.03, steps=20)
    for _ in range(10):
        middle = (near + far) / 2
        same = (lit(middle).argmax(1) == y)[:, None, None, None]
        near, far = torch.where(same, middle, near), torch.where(same, far, middle)
    assert above(detector, benign, far) >= 0.95
    behind = fit(method, TorchModel(Sure(lit, levels=15)), benign)
    assert above(behind, benign, far) <= 0.05


def test_squeezing_needs_neighbours() -> None:
    with pytest.raises(DataError, match="no neighbours"):
        fit(FeatureSqueezing(), linear(1.0, 2.0), drawn(10, 2))


# Noise stability


def test_noise_moves_a_steep_linear_answer_by_the_share_beyond_the_boundary() -> None:
    # Scores so steep that each noisy copy votes: the mean is the normal distribution's share.
    x = torch.tensor([[0.5, 0.1], [0.1, 0.2], [1.0, 0.0]])
    method = NoiseStability(sigma=0.5, draws=1000)
    found = fit(method, linear(3.0, -4.0, factor=1e6), x).score(x)
    lead = x @ torch.tensor([3.0, -4.0])
    wanted = 2 * ndtr(-lead.abs().numpy() / (0.5 * 5))
    # Four standard errors of a mean of 1,000 votes.
    assert np.abs(found.numpy() - wanted).max() < 2 * 4 * 0.5 / math.sqrt(1000)


def test_noise_belongs_to_the_content_and_the_seed() -> None:
    model, x = linear(3.0, -4.0, factor=3.0), drawn(6, 2)
    x[3] = x[0]
    x[4, 0], x[5] = 0.0, x[4]
    x[5, 0] = -0.0
    scores = fit(NoiseStability(), model, x).score(x)
    assert scores[0] == scores[3]
    assert scores[4] == scores[5]
    assert len(scores.unique()) == 4
    swapped = x.clone()
    swapped[1] = x[2]
    assert torch.equal(fit(NoiseStability(), model, x).score(swapped)[1], scores[2])
    assert not torch.equal(fit(NoiseStability(seed=1), model, x).score(x), scores)


def test_noise_that_the_model_never_saw_leaves_no_threshold_to_lie_above() -> None:
    """The threshold is at the end of the range, and the strongest attack stays below."""
    model, x = linear(3.0, -4.0, factor=1e4), drawn(700, 2)
    detector = fit(NoiseStability(sigma=5.0), model, x[:100]).calibrate(x[100:600])
    assert detector.threshold is not None
    assert detector.threshold.value >= 0.8 * (detector.method.highest or 0)
    assert not bool(detector.flags(x[600:]).any())


# Input-gradient norm


@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize("factor", [1.0, 1e3])
def test_the_gradient_norm_of_a_linear_model(norm: str, factor: float) -> None:
    """log of sigmoid(-lead) times the weights' norm, also where that is too small for a float."""
    model, x = linear(3.0, -4.0, factor=factor), drawn(8, 2)
    found = fit(GradientNorm(norm=norm), model, x).score(x)  # type: ignore[arg-type]
    lead = factor * (x.double() @ torch.tensor([3.0, -4.0], dtype=torch.float64)).abs()
    length = factor * (7 if norm == "l1" else 5)
    wanted = nn.functional.logsigmoid(-lead) + math.log(length)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-4)


def test_the_gradient_norm_has_the_gradient_that_differences_show() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    x = drawn(5, 4).double()
    detector = fit(GradientNorm(), TorchModel(net), x)
    assert torch.autograd.gradcheck(detector.score, (x.requires_grad_(),))


def test_a_model_without_a_gradient_is_refused_in_one_line() -> None:
    silent = FunctionModel(lambda x: np.asarray(x).reshape(len(x), -1)[:, :2], returns="scores")
    with pytest.raises(ModelError, match="needs scores only"):
        fit(GradientNorm(), silent, drawn(5, 3))


# Disagreement


def test_members_that_contradict_each_other_disagree_wholly() -> None:
    x = drawn(6, 2) + torch.tensor([1.0, 0.0])
    opposite = Ensemble([linear(300.0, -100.0), linear(-300.0, 100.0)])
    torch.testing.assert_close(fit(Disagreement(), opposite, x).score(x), torch.ones(6))
    alike = Ensemble([linear(3.0, -1.0)] * 3)
    torch.testing.assert_close(fit(Disagreement(), alike, x).score(x), torch.zeros(6))


def test_an_attack_on_one_member_divides_the_others(lit: nn.Module) -> None:
    benign, _ = stripes(200, seed=1)
    x, y = stripes(400)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        other = nn.Sequential(nn.Flatten(), nn.Linear(768, 8), nn.Tanh(), nn.Linear(8, 2))
    learned(other, x, y)
    found = attacked(lit, 0.08)
    apart = fit(Disagreement(), Ensemble([TorchModel(lit), TorchModel(other)]), benign)
    assert above(apart, benign, found) >= 0.9
    alike = fit(Disagreement(), Ensemble([TorchModel(lit)] * 2), benign)
    assert float(alike.score(found).max()) < 1e-6


def test_one_model_cannot_disagree_with_itself() -> None:
    with pytest.raises(ModelError, match="at least 2 members, the model has 0"):
        fit(Disagreement(), linear(1.0, 2.0), drawn(5, 2))


# Input residual


def test_the_residual_sees_noise_and_nothing_that_is_smooth(lit: nn.Module) -> None:
    benign, _ = stripes(600, seed=1)
    fitted, held = benign[:400], benign[400:]
    detector = fit(Residual(), TorchModel(lit), fitted)
    noisy = held + 0.05 * torch.randn(held.shape, generator=torch.Generator().manual_seed(0))
    assert above(detector, held, noisy) == 1
    found = attacked(lit, 0.1)
    assert above(detector, held, found) >= 0.95
    # A detector that only knows the grid of the benign files would stop here.
    assert above(detector, held, (255 * found).round() / 255) >= 0.95
    # Light that changes evenly has no second difference, however much there is of it.
    slope = torch.linspace(0, 1, 16)
    tilted = held + 0.3 * slope[:, None] - 0.2 * slope
    torch.testing.assert_close(detector.score(tilted), detector.score(held), rtol=1e-2, atol=1e-2)


def test_the_residual_has_no_unit(lit: nn.Module) -> None:
    x, _ = stripes(300)
    ours = fit(Residual(), TorchModel(lit), x).score(x)
    theirs = fit(Residual(), TorchModel(lit), 255 * x).score(255 * x)
    torch.testing.assert_close(theirs, ours, rtol=1e-3, atol=1e-3)


def test_the_residual_is_the_second_difference_along_both_axes() -> None:
    x = drawn(4, 2, 7, 9)
    kernel = np.outer([1, -2, 1], [1, -2, 1])
    wanted = [[convolve2d(plane, kernel, mode="valid").ravel() for plane in row] for row in x]
    torch.testing.assert_close(_residual(x), torch.tensor(np.array(wanted)).float())
    assert torch.equal(_residual(x[:, 0])[:, 0, :3], x[:, 0, 0].diff(n=2)[:, :3])


def test_the_density_of_one_normal_distribution_is_exact() -> None:
    """Twice the negated logarithm less its least value is the squared Mahalanobis distance, whose
    mean is the number of statistics."""
    x = torch.randn(2000, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    detector = fit(Residual(components=1), linear(1.0, 2.0), x[:1000])
    squares = 2 * (detector.score(x[1000:]) + detector.state["weights"][0])
    assert 0.95 <= float(squares.mean()) / (3 * 3 + 3) <= 1.05
    assert (squares > 0).all()


def test_between_two_sources_of_benign_inputs_it_is_empty() -> None:
    rows = drawn(800, 2)
    rows[400:] += 8
    middle = torch.tensor([[4.0, 4.0]])
    one, two = (mixture(rows, components) for components in (1, 2))
    assert rareness(one, middle) < rareness(one, rows).median()
    assert rareness(two, middle) > 5 + rareness(two, rows).max()
    # A density: over the plane it is 1 in all.
    axis = torch.linspace(-8, 16, 241)
    plane = torch.cartesian_prod(axis, axis)
    for state in (one, two):
        assert float((-rareness(state, plane)).exp().sum() * 0.1**2) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("shape", [(50, 5), (50, 3, 2, 9), (50, 1, 2)])
def test_inputs_without_a_residual_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="leave no residual"):
        fit(Residual(), linear(1.0, 2.0), drawn(*shape))


# Reconstruction


def test_a_reconstruction_sees_what_leaves_the_surface_and_not_what_slides_along_it() -> None:
    # Eight columns of which three are free.
    mixing = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    free = drawn(600, 3, seed=1)
    x = free @ mixing
    detector = fit(Reconstruction(steps=400), linear(*[1.0] * 8), x[:400])
    benign = x[400:]
    along = torch.linalg.svd(mixing)[2]
    off = benign + 0.5 * x.std() * along[-1]
    slid = (0.8 * free[400:] + 0.1) @ mixing
    assert above(detector, benign, off) >= 0.95
    assert above(detector, benign, slid) <= 0.05


def test_a_reconstructed_answer_sees_what_the_autoencoder_undoes(lit: nn.Module) -> None:
    benign, _ = stripes(500, seed=1)
    method = ReconstructedAnswer(steps=150, width=8, temperature=2.0)
    detector = fit(method, TorchModel(lit), benign[:300])
    found = attacked(lit, 0.1)
    assert above(detector, benign[300:], found) >= 0.9
    assert float(detector.score(found).max()) <= math.log(2) + 1e-6
    # One that gives back whatever it is given cannot.
    with torch.no_grad():
        whole = Detector(method=method, model=detector.model, layers=(), state={**detector.state})
        for name in ("0.weight", "1.weight", "2.weight", "3.weight"):
            whole.state[name] = detector.state[name] * 0
    assert above(whole, benign[300:], found) <= 0.05


def test_too_few_inputs_for_an_autoencoder_are_refused() -> None:
    with pytest.raises(DataError, match="49 benign inputs are too few"):
        fit(Reconstruction(), linear(1.0, 2.0), drawn(49, 2))


# Real pictures


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_on_photographs_the_residual_sees_gradient_attacks_after_rounding() -> None:
    path = DATA / "cifar10.npz"
    if not path.exists():
        pytest.skip(f"no cifar10.npz in {DATA}; set WITHSTAND_DATA")
    with np.load(path) as file:
        known, y = (torch.from_numpy(file[name][:6000]) for name in ("x_train", "y_train"))
        unseen, answers = (torch.from_numpy(file[name][:6300]) for name in ("x_test", "y_test"))
    known, unseen = (x.permute(0, 3, 1, 2).float() / 255 for x in (known, unseen))
    y, answers = y.long(), answers.long()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(3, 16, 3, stride=2), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2), nn.ReLU(),
            nn.Flatten(), nn.Linear(1568, 10),
        )  # fmt: skip
    learned(net, known, y, steps=600)
    detector = fit(Residual(), TorchModel(net), known[:5000]).calibrate(unseen[1300:])
    flagged = detector.flags(unseen[300:1300])
    assert int(flagged.sum()) <= 20
    x, y = unseen[:300], answers[:300]
    right = net(x).argmax(1) == y
    for eps, least in ((8 / 255, 0.97), (4 / 255, 0.85)):
        found = climbed(net, x[right], y[right], eps=eps, size=eps / 8, steps=20)
        found = (255 * found).round() / 255
        fooled = net(found).argmax(1) != y[right]
        assert int(fooled.sum()) >= 100
        assert float(detector.flags(found[fooled]).float().mean()) >= least
    # It sees noise, not attacks: random changes of the same size are flagged as well.
    rng = torch.Generator().manual_seed(0)
    moved = unseen[300:600] + (2 * torch.rand(300, 3, 32, 32, generator=rng) - 1) * 8 / 255
    assert float(detector.flags(moved.clamp(0, 1)).float().mean()) >= 0.95


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("method", "least", "most"),
    [
        (FeatureSqueezing(bits=1, median=None), 0.65, 1.0),
        (Residual(), 0.97, 1.0),
        (ReconstructedAnswer(steps=400, width=8), 0.85, 1.0),
        (Confidence(), 0.0, 0.1),
    ],
)
def test_on_digits_strong_attacks_are_seen_by_some_and_leave_the_model_sure(
    sound: Any, method: Method, least: float, most: float
) -> None:
    base = sound("mnist")
    x, y = torch.from_numpy(base.unseen.x), torch.from_numpy(base.unseen.y)
    found = climbed(base.net, x[:200], y[:200], eps=0.3, size=0.03, steps=40)
    fooled = base.net(found).argmax(1) != y[:200]
    assert int(fooled.sum()) >= 150
    detector = fit(method, TorchModel(base.net), base.x[:1000]).calibrate(x[200:])
    assert least <= float(detector.flags(found[fooled]).float().mean()) <= most
