"""Randomised smoothing: exact statistics, validity at every look, closed forms, and replays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import ndtr
from scipy.stats import beta, binomtest, kstest
from torch import Tensor, nn

from withstand import WithstandError
from withstand.attacks import PGD, run
from withstand.certify import Bounds, Certificates, SmoothedClassifier, Smoothing, certify
from withstand.certify._noise import draw_keys, gaussian
from withstand.certify._smoothing import Rule
from withstand.data import Dataset, from_arrays
from withstand.harden import Moment, NoiseAugmented
from withstand.models import FunctionModel, TorchModel
from withstand.stats import binomial_test, fewest, log_wealth, lower_bound, lower_sequence
from withstand.threat import L0, L1, L2, Evading, Linf, Regression, Threat, Untargeted

# Statistics


def test_clopper_pearson_is_scipys() -> None:
    n = np.repeat([1, 10, 100, 1000, 100_000], 7)
    k = np.round(n * np.tile([0, 0.01, 0.3, 0.5, 0.77, 0.999, 1], 5)).astype(int)
    for alpha in (0.05, 0.001, 1e-6):
        expected = np.where(k == 0, 0.0, beta.ppf(alpha, np.maximum(k, 1), n - k + 1))
        assert np.abs(lower_bound(k, n, alpha) - expected).max() <= 1e-12


def test_the_two_sided_test_is_scipys() -> None:
    pairs = [(0, 5), (3, 10), (5, 10), (60, 100), (11, 11), (500, 900)]
    for k, n in pairs:
        assert binomial_test(k, n) == pytest.approx(binomtest(k, n).pvalue, abs=1e-12)
    assert binomial_test(0, 0) == 1


def test_wealth_is_the_mean_likelihood_ratio_over_larger_shares() -> None:
    p, k, n = 0.6, 30, 40
    q = p + (1 - p) * (np.arange(200_000) + 0.5) / 200_000
    ratio = (q / p) ** k * ((1 - q) / (1 - p)) ** (n - k)
    assert log_wealth(k, n, p) == pytest.approx(np.log(ratio.mean()), abs=1e-6)


def test_wealth_falls_with_the_share_so_that_one_end_says_all() -> None:
    shares = np.linspace(0.01, 0.99, 99)
    for k, n in ((0, 5), (30, 40), (999, 1000)):
        assert (np.diff(log_wealth(k, n, shares)) < 1e-9).all()
        low = float(lower_sequence(k, n, 0.001))
        assert low == 0 or log_wealth(k, n, low) >= np.log(1000)
        assert log_wealth(k, n, low + 1e-9) < np.log(1000)


@pytest.mark.parametrize("sequential", [False, True])
def test_fewest_is_the_first_that_suffices(sequential: bool) -> None:
    for share in (0.5, 0.84, 0.977):
        least = fewest(share, 0.001, sequential=sequential)
        for n, enough in ((least, True), (least - 1, False)):
            shown = lower_sequence(n, n, 0.001) if sequential else lower_bound(n, n, 0.001)
            assert bool(shown >= share) == enough


def simulated(p: Any, settings: Smoothing, radius: float, seed: int = 0) -> tuple[Any, Any]:
    """The radii proven and the draws taken for inputs whose votes are right with shares p."""
    random, rows = np.random.default_rng(seed), np.arange(len(p))
    rule = Rule(settings=settings, radii=np.full((len(p), 1), radius), length=1.0)
    n, votes, done = np.zeros(len(p), int), np.zeros(len(p), int), np.zeros(len(p), bool)
    while not done.all():
        at = rows[~done]
        look = rule.next_look(n[at])
        votes[at] += random.binomial(look - n[at], np.asarray(p)[at])
        n[at] = look
        # All have the same radii: each pair of votes and draws is judged once.
        pairs, place = np.unique(np.stack((votes[at], look)), axis=1, return_inverse=True)
        done[at] = rule.settled(rows[: pairs.shape[1]], *pairs)[place]
    pairs, place = np.unique(np.stack((votes, n)), axis=1, return_inverse=True)
    return rule.radius(rows[: pairs.shape[1]], *pairs)[place], n


@pytest.mark.parametrize("sequential", [False, True])
def test_wrong_certificates_are_as_rare_as_promised(sequential: bool) -> None:
    runs, alpha = 20_000, 0.01
    settings = Smoothing(sigma=0.5, alpha=alpha, draws=1000, sequential=sequential)
    radii, _ = simulated(np.full(runs, ndtr(0.5)), settings, 0.25)
    wrong = (radii >= 0.25).mean()
    assert wrong <= alpha + 3 * np.sqrt(alpha * (1 - alpha) / runs)
    # Not so rare that nothing could be certified: a rule that never certifies is no rule.
    assert wrong >= alpha / 10


def test_sequential_needs_a_fifteenth_of_the_draws_at_equal_certified_accuracy() -> None:
    random = np.random.default_rng(0)
    ratios = random.normal(1.2, 1.0, 1000)
    fixed, _ = simulated(ndtr(ratios), Smoothing(sigma=0.25, sequential=False), 0.25)
    adaptive, draws = simulated(ndtr(ratios), Smoothing(sigma=0.25), 0.25, seed=1)
    assert abs((fixed >= 0.25).mean() - (adaptive >= 0.25).mean()) <= 0.005
    assert 100_000 / draws.mean() >= 15


def test_a_tolerance_narrows_the_radius() -> None:
    p = ndtr(np.full(40, 1.5))
    settings = Smoothing(sigma=1.0, radii=(0.1, 3.0), tolerance=0.2)
    rule = Rule(settings=settings, radii=np.tile([0.1, 3.0], (40, 1)), length=1.0)
    random, n, votes, done = np.random.default_rng(0), np.zeros(40, int), np.zeros(40, int), False
    while not done:
        look = rule.next_look(n)
        votes, n = votes + random.binomial(look - n, p), look
        done = bool(rule.settled(np.arange(40), votes, n).all())
    radii = rule.radius(np.arange(40), votes, n)
    assert ((radii <= 1.5) & (radii >= 1.3)).all()
    assert n[0] < 20_000


# Noise


def test_noise_is_gaussian_and_without_memory() -> None:
    keys = draw_keys(torch.zeros(4000, dtype=torch.long), torch.arange(4000), 0)
    z = gaussian(keys, 51).double()
    assert kstest(z.flatten().numpy(), "norm").pvalue > 1e-3
    assert (z.square().mean() - 1).abs() < 0.01
    near = [(z[1:] * z[:-1]).mean(), (z[:, 1:] * z[:, :-1]).mean(), (z[:, :25] * z[:, 26:]).mean()]
    assert max(abs(float(value)) for value in near) < 0.01


def test_noise_depends_on_nothing_but_seed_input_and_draw() -> None:
    draws = torch.arange(300)
    whole = gaussian(draw_keys(torch.full((300,), 7), draws, 3), 1000)
    some = gaussian(draw_keys(torch.full((5,), 7), draws[100:105], 3), 1000)
    assert torch.equal(whole[100:105], some)
    for keys, seed in ((torch.full((300,), 8), 3), (torch.full((300,), 7), 4)):
        assert not torch.isclose(whole, gaussian(draw_keys(keys, draws, seed), 1000)).any(1).all()


# Certificates of a model whose smoothed classifier is known


def linear(features: int = 20, seed: int = 0) -> TorchModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Flatten(), nn.Linear(features, 2))
    return TorchModel(net, domain=(-10, 10))


def around(model: TorchModel, n: int, spread: float = 0.5) -> tuple[Dataset, Any]:
    """Inputs with the model's own labels, and their distances from its boundary."""
    weight, bias = model.net[1].weight, model.net[1].bias
    normal = (weight[0] - weight[1]).detach()
    x = spread * torch.randn(n, len(normal), generator=torch.Generator().manual_seed(1))
    gap = (x @ normal + (bias[0] - bias[1]).detach()) / normal.norm()
    return from_arrays(x.numpy(), (gap < 0).long().numpy()), gap.abs().numpy()


def radii(found: Certificates) -> Any:
    return np.asarray([c.radius for c in found.certificates])


def test_a_linear_radius_is_never_exceeded() -> None:
    model = linear()
    data, true = around(model, 40)
    threat = Threat(region=L2(0.2))
    for settings in (Smoothing(sigma=0.5, draws=2000, radii=(0.1, 0.4)), Smoothing(
        sigma=0.5, draws=1000, sequential=False
    )):  # fmt: skip
        found = certify(model, data, threat, settings)
        assert (radii(found) <= true).all()
        assert (found.certified == (radii(found) >= 0.2)).all()
        assert found.certified.sum() >= 0.8 * (true >= 0.2).sum()


@pytest.mark.slow
def test_a_linear_radius_is_reached_within_two_percent() -> None:
    model = linear()
    data, true = around(model, 30)
    rows = (true > 0.3) & (true < 1.0)
    settings = Smoothing(sigma=0.5, sequential=False)
    found = certify(model, data.take(rows), Threat(region=L2(0.1)), settings)
    ratio = radii(found) / true[rows]
    assert ratio.max() <= 1
    assert np.median(ratio) >= 0.98
    assert ratio.min() >= 0.96


def test_all_is_the_same_whatever_the_batch_and_the_other_inputs() -> None:
    model = linear()
    data, _ = around(model, 12)
    threat = Threat(region=L2(0.2))
    whole = certify(model, data, threat, Smoothing(sigma=0.5, draws=2000))
    other = certify(model, data, threat, Smoothing(sigma=0.5, draws=2000, batch=97))
    assert whole.certificates == other.certificates
    reverse = certify(
        model, data.take(np.arange(12)[::-1]), threat, Smoothing(sigma=0.5, draws=2000)
    )
    assert whole.certificates == reverse.certificates[::-1]
    reseeded = certify(model, data, threat, Smoothing(sigma=0.5, draws=2000, seed=1))
    assert whole.certificates != reseeded.certificates


def test_the_draws_that_choose_do_not_judge() -> None:
    model = linear()
    data, _ = around(model, 5)
    settings = Smoothing(sigma=0.5, draws=300, sequential=False)
    for c in certify(model, data, Threat(region=L2(0.01)), settings).certificates:
        assert c.votes is not None
        assert c.first is not None
        assert sum(c.first.values()) == 100
        assert sum(c.votes.values()) == c.draws == 300


def test_a_radius_is_in_raw_units_whatever_the_model_does_inside() -> None:
    """A network that normalises gets the noise that the raw input has."""
    model = linear()
    data, true = around(model, 30)

    class Raw(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            scores: Tensor = model.net((x / 255 - 0.5) / 0.1)
            return scores

    raw = from_arrays((data.x * 0.1 + 0.5) * 255, data.y)
    settings = Smoothing(sigma=0.5 * 25.5, draws=2000)
    found = certify(
        TorchModel(Raw(), domain=(-500, 500)), raw, Threat(region=L2(0.2 * 25.5)), settings
    )
    assert (radii(found) <= 25.5 * true).all()
    assert found.certified.sum() >= 0.7 * (true >= 0.2).sum()


@pytest.mark.parametrize(("region", "length"), [(L1, 1.0), (Linf, 20**0.5)])
def test_other_norms_are_certified_by_the_l2_ball_around_theirs(region: Any, length: float) -> None:
    model = linear()
    data, true = around(model, 40)
    eps = 0.2 / length
    found = certify(model, data, Threat(region=region(eps)), Smoothing(sigma=0.5, draws=2000))
    same = certify(model, data, Threat(region=L2(0.2)), Smoothing(sigma=0.5, draws=2000))
    assert (found.certified == same.certified).all()
    assert (radii(found) * length <= true + 1e-9).all()


def test_black_boxes_and_crashes_are_counted() -> None:
    def answers(x: Any) -> Any:
        scores = np.stack((x.sum(1), -x.sum(1)), 1)
        scores[x[:, 0] > 1] = np.nan
        return scores

    model = FunctionModel(answers, returns="scores", domain=(-10, 10))
    x = np.full((3, 4), [[0.3], [0.5], [-0.4]], np.float32)
    data = from_arrays(x, [0, 0, 1])
    settings = Smoothing(sigma=0.5, draws=500, sequential=False)
    found = certify(model, data, Threat(region=L2(0.05)), settings)
    for c in found.certificates:
        assert c.votes is not None
        # Crashes vote for nobody, and still count as draws.
        assert sum(c.votes.values()) < 500
    by_labels = FunctionModel(
        lambda x: (x.sum(1) < 0).astype(int), returns="labels", domain=(-10, 10)
    )
    assert certify(by_labels, data, Threat(region=L2(0.05)), settings).certified.all()


@pytest.mark.parametrize(
    ("settings", "threat", "words"),
    [
        ({"draws": 10, "sequential": False}, Threat(region=L2(0.01)), "at least 11"),
        ({"draws": 50}, Threat(region=L2(0.5)), "at least 53"),
        ({"sigma": 0.0}, Threat(region=L2(0.5)), "above 0"),
        ({"alpha": 0.7}, Threat(region=L2(0.5)), "less than 0.5"),
        ({}, Threat(region=L0(3)), "use l2"),
        ({}, Threat(region=L2(np.inf)), "finite"),
        ({}, Threat(region=L2(100.0)), "ask for less"),
        ({}, Threat(region=L2(0.5), goal=Regression(0.1)), "one class"),
        ({}, Threat(region=L2(0.5), goal=Evading(Untargeted())), "one class"),
    ],
)
def test_what_can_prove_nothing_is_refused(
    settings: dict[str, Any], threat: Threat, words: str
) -> None:
    model = linear()
    with pytest.raises(WithstandError, match=words) as caught:
        certify(model, around(model, 2)[0], threat, Smoothing(**{"sigma": 0.5, **settings}))
    assert "\n" not in str(caught.value)


def test_inputs_outside_the_domain_are_not_in_the_units_of_sigma() -> None:
    model = TorchModel(nn.Linear(4, 2))
    data = from_arrays(np.full((2, 4), 128.0, np.float32), [0, 1])
    with pytest.raises(WithstandError, match="outside the model's domain"):
        certify(model, data, Threat(region=L2(0.1)), Smoothing(sigma=0.5))


# The smoothed classifier as a model


def test_its_answer_is_the_majority_and_predict_abstains_in_between() -> None:
    model = linear()
    data, true = around(model, 40)
    smoothed = SmoothedClassifier(model, sigma=0.5, draws=200)
    x = torch.from_numpy(data.x)
    sure = true > 0.15
    assert (smoothed.labels(x).numpy() == data.y)[sure].all()
    predicted = smoothed.predict(x, draws=2000)
    assert (predicted.answer == data.y)[sure].all()
    assert set(predicted.answer[true < 0.002]) <= {-1}
    with pytest.raises(WithstandError, match="at least 11"):
        smoothed.predict(x, draws=10)


def test_its_gradient_is_that_of_the_mean_over_its_draws() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    smoothed = SmoothedClassifier(TorchModel(net), sigma=0.3, draws=16)
    x = torch.rand(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    seen = smoothed.gradient(x, lambda scores: scores[:, 1])
    step = 1e-6
    for column in range(6):
        moved = x.clone()
        moved[:, column] += step
        after = smoothed.gradient(moved, lambda scores: scores[:, 1])
        slope = (after.values - seen.values) / step
        assert torch.allclose(slope, seen.gradient[:, column], atol=1e-4)
    scores, gradients = smoothed.jacobian(x, torch.tensor([[1, 0]]).expand(4, 2))
    assert torch.allclose(gradients[:, 0], seen.gradient)
    assert torch.equal(scores, seen.scores)


def test_no_attack_beats_a_certificate_of_the_smoothed_classifier() -> None:
    model = linear()
    data, _ = around(model, 40)
    threat = Threat(region=L2(0.3))
    proven = certify(model, data, threat, Smoothing(sigma=0.5, draws=5000)).certified
    smoothed = SmoothedClassifier(model, sigma=0.5, draws=64)
    result = run(
        PGD(steps=10), smoothed, torch.from_numpy(data.x), torch.from_numpy(data.y), threat
    )
    fooled = result.success.numpy() & proven
    answers = smoothed.predict(result.x_adv, draws=2000).answer
    assert not (fooled & (answers >= 0) & (answers != data.y)).any()
    assert result.success.any()


def test_only_its_own_noise_certifies_a_smoothed_classifier() -> None:
    smoothed = SmoothedClassifier(linear(), sigma=0.5)
    data, _ = around(linear(), 4)
    found = certify(smoothed, data, Threat(region=L2(0.1)), Smoothing(sigma=0.5, draws=500))
    assert found.model["kind"] == "TorchModel"
    for method in (Smoothing(sigma=0.25), Bounds()):
        with pytest.raises(WithstandError, match="same sigma"):
            certify(smoothed, data, Threat(region=L2(0.1)), method)


def test_training_under_noise_sees_noise_of_that_size() -> None:
    seen = []

    class Looking(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x)
            return x[:, :2]

    noise = torch.Generator().manual_seed(0)
    recipe = NoiseAugmented(sigma=0.5)
    lost = recipe.loss(
        Looking(), torch.zeros(100, 50), torch.zeros(100, dtype=torch.long),
        Moment(done=0, scale=1, noise=noise),
    )  # fmt: skip
    assert seen[0].std() == pytest.approx(0.5, rel=0.03)
    assert lost.scores.shape == (100, 2)
    assert recipe.regions == ()
    with pytest.raises(WithstandError, match="above 0"):
        NoiseAugmented(sigma=0)
