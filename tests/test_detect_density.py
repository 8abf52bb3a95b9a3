"""Detectors by density, by rules of tables and text, learned ones, and several as one."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from sklearn.covariance import MinCovDet
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import KernelDensity, LocalOutlierFactor, NearestNeighbors
from torch import Tensor, nn

from withstand import attacks, detect
from withstand._errors import ConfigError, DataError, ModelError
from withstand.detect import Method, Observation, State, fit
from withstand.detect.methods import _isolation_forest as forest_walks
from withstand.detect.methods._near import _smallest
from withstand.models import FunctionModel, TorchModel
from withstand.threat import Linf, Threat

MODEL = TorchModel(nn.Identity(), domain=(-100, 100))


def drawn(n: int, features: int = 4, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, features, generator=generator) * torch.arange(1, features + 1)


def two_layers(classes: int = 2) -> TorchModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh())
        return TorchModel(net.append(nn.Linear(5, classes)), domain=(-100, 100))


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_the_distance_to_the_kth_neighbour_is_scikit_learns(metric: Any) -> None:
    known, x = drawn(300) + 5, drawn(50, seed=1) + 5
    method = detect.NearestNeighbours(of="input", metric=metric, k=7)
    detector = detect.fit(method, MODEL, known)
    their, places = NearestNeighbors(n_neighbors=7, metric=metric).fit(known).kneighbors(x)
    # The distance at length 1 is the root of twice the cosine distance.
    wanted = their[:, -1] if metric == "euclidean" else np.sqrt(2 * their[:, -1])
    np.testing.assert_allclose(detector.score(x), wanted, rtol=2e-4)
    assert (method.neighbours(detector.state, x).numpy() == places).all()


def test_the_slope_of_a_distance_leads_towards_the_neighbour() -> None:
    known, x = drawn(300), drawn(5, seed=1).requires_grad_()
    method = detect.NearestNeighbours(of="input", metric="euclidean", k=3)
    detector = detect.fit(method, MODEL, known)
    (slope,) = torch.autograd.grad(detector.score(x).sum(), x)
    third = known[method.neighbours(detector.state, x.detach())[:, -1]]
    torch.testing.assert_close(
        slope, nn.functional.normalize(x.detach() - third), rtol=1e-3, atol=1e-4
    )


def test_references_are_spread_over_all_benign_inputs() -> None:
    method = detect.NearestNeighbours(of="input", metric="euclidean", k=1, references=100)
    known = torch.arange(1000.0)[:, None]
    detector = detect.fit(method, MODEL, known)
    assert detector.state["0.references"].shape == (100, 1)
    assert float(detector.score(known).max()) == pytest.approx(9)
    with pytest.raises(ConfigError, match="references is 60000; give 1 to 50000"):
        detect.NearestNeighbours(references=60_000)


def test_what_is_odd_in_one_layer_only_is_odd() -> None:
    names, model = ("1", "3"), two_layers()
    seen = detect.Observer(model=model, needs="activations", layers=names).over(
        drawn(500), None, 99
    )
    for method in (
        detect.NearestNeighbours(metric="euclidean"),
        detect.KernelDensity(),
        detect.PCAReconstruction(variance=0.7),
        detect.IsolationForest(),
    ):
        state = method.fit(seen)
        plain = method.score(state, seen)
        for name in names:
            moved = {n: a + 5.0 * (n == name) for n, a in seen.activations.items()}
            odd = Observation(x=seen.x, scores=seen.scores, ask=seen.ask, activations=moved)
            assert float((method.score(state, odd) > plain.quantile(0.99)).float().mean()) > 0.9


def test_credibility_is_that_of_the_neighbours_classes() -> None:
    centres = torch.tensor([[6.0, 0.0], [0.0, 6.0]])
    y = torch.arange(400) % 2
    x = centres[y] + 0.3 * drawn(400, 2)
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        net[0].weight.copy_(torch.eye(2))
        net[2].weight.copy_(torch.eye(2))
    method = detect.DeepKNN(layers=("1",), k=20)
    detector = detect.fit(method, TorchModel(net, domain=(-9, 9)), x, y)
    lone = Observation(x=x, scores=net(x).detach(), ask=net, activations={"1": net[:2](x).detach()})
    agreeing = method.score(detector.state, lone)
    swapped = Observation(
        x=x, scores=-net(x).detach(), ask=net, activations={"1": net[:2](x).detach()}
    )
    doubted = method.score(detector.state, swapped)
    # 80 were held out: nothing is less credible than one of 81, and agreement is credible.
    assert float(doubted.min()) >= np.log(81)
    assert float(agreeing.median()) < np.log(3)
    assert torch.equal(detector.score(x), agreeing)


def test_density_is_scikit_learns_with_the_class_or_without() -> None:
    known, x = drawn(300, 3), drawn(40, 3, seed=1)
    width, constant = 0.7, 1.5 * np.log(2 * np.pi * 0.7**2)
    method = detect.KernelDensity(of="input", per_class=False, bandwidth=width)
    detector = detect.fit(method, MODEL, known)
    theirs = KernelDensity(bandwidth=width).fit(known).score_samples(x)
    np.testing.assert_allclose(detector.score(x), -theirs - constant, rtol=1e-4, atol=1e-4)

    of_class = detect.KernelDensity(of="input", bandwidth=width)
    detector = detect.fit(of_class, MODEL, known)
    for label in range(3):
        rows = x.argmax(1) == label
        theirs = KernelDensity(bandwidth=width).fit(known[known.argmax(1) == label])
        wanted = -theirs.score_samples(x[rows]) - constant
        np.testing.assert_allclose(detector.score(x[rows]), wanted, rtol=1e-4, atol=1e-4)


def test_a_class_that_no_benign_input_has_gets_the_density_of_all() -> None:
    known = drawn(200, 3)
    known[:, 2] = -9
    detector = detect.fit(detect.KernelDensity(of="input"), MODEL, known)
    scores = detector.score(torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]]))
    assert scores.isfinite().all()


def test_the_rule_of_scott_sets_the_bandwidth() -> None:
    known = 3 * torch.randn(1000, 2, generator=torch.Generator().manual_seed(0))
    method = detect.KernelDensity(of="input", per_class=False)
    found = detect.fit(method, MODEL, known).state["0.width"]
    assert float(found) == pytest.approx(3 * 1000 ** (-1 / 6), rel=0.05)


def test_distances_are_those_of_probabilistic_pca() -> None:
    known, x = drawn(400, 6) @ torch.linalg.qr(drawn(6, 6))[0], drawn(30, 6, seed=1)
    theirs = PCA(n_components=0.9, svd_solver="full").fit(known.double())
    scores = {
        name: detect.fit(
            detect.PCAReconstruction(of="input", variance=0.9, distance=name), MODEL, known
        ).score(x)
        for name in ("residual", "subspace", "both")
    }
    lost = x.numpy() - theirs.inverse_transform(theirs.transform(x))
    np.testing.assert_allclose(
        scores["residual"], (lost**2).sum(1) / theirs.noise_variance_, rtol=1e-3
    )
    np.testing.assert_allclose(
        scores["subspace"],
        (theirs.transform(x) ** 2 / theirs.explained_variance_).sum(1),
        rtol=1e-3,
    )
    likelihood = -2 * theirs.score_samples(x)
    np.testing.assert_allclose(
        scores["both"] - scores["both"][0], likelihood - likelihood[0], rtol=1e-2, atol=1e-2
    )


def test_a_forest_of_tensors_scores_as_scikit_learns(tmp_path: Path) -> None:
    known, x = drawn(500), 2 * drawn(300, seed=1)
    method = detect.IsolationForest(of="input", trees=20, seed=3)
    detector = detect.fit(method, MODEL, known)
    forest = IsolationForest(n_estimators=20, max_samples=256, random_state=3).fit(known.numpy())
    # Also at the very places where a tree splits, and one step of float32 to either side.
    trees = [estimator.tree_ for estimator in forest.estimators_]
    splits = [
        (int(f), t)
        for tree in trees
        for f, t in zip(tree.feature, tree.threshold, strict=True)
        if f >= 0
    ]
    for feature, place in splits[:300]:
        nearest = np.float32(place)
        for value in (np.nextafter(nearest, -np.inf), nearest, np.nextafter(nearest, np.inf)):
            row = known[:1].clone()
            row[0, feature] = float(value)
            x = torch.cat((x, row))
    np.testing.assert_allclose(detector.score(x), -forest.score_samples(x.numpy()), atol=2e-6)
    detector.save(tmp_path)
    assert torch.equal(detect.load(tmp_path, MODEL).score(x), detector.score(x))


def test_a_forest_walks_alike_in_numpy_and_in_torch() -> None:
    known, x = drawn(300), 2 * drawn(50, seed=1)
    state = fit(detect.IsolationForest(of="input", trees=7, samples=60), MODEL, known).state
    state = {name.removeprefix("0."): value for name, value in state.items()}
    # A value that is not one goes to the same side in both.
    x[0, 0], x[1, 1], x[2, 2] = torch.nan, torch.inf, -torch.inf
    assert torch.equal(forest_walks._lengths(state, x), forest_walks._lengths_by_numpy(state, x))


@pytest.mark.parametrize(("n", "k"), [(15, 3), (160, 10), (1003, 7), (1000, 1)])
def test_the_nearest_are_found_among_groups_as_among_all(n: int, k: int) -> None:
    values = drawn(40, n, seed=n)
    values[:5] = values[:5].round()
    places = _smallest(values, k)
    assert all(len(set(row.tolist())) == k for row in places)
    found = values.gather(1, places).sort(1).values
    assert torch.equal(found, values.sort(1).values[:, :k])


def test_local_outlier_factors_are_scikit_learns() -> None:
    # Two clusters of unlike density, so that a distance that is usual in one is odd in the other.
    known = torch.cat((drawn(150), 0.1 * drawn(150, seed=1) + 6))
    x = torch.cat((2 * drawn(60, seed=2), 0.3 * drawn(60, seed=3) + 6))
    found = fit(detect.LocalOutlierFactor(of="input", k=12), MODEL, known).score(x)
    theirs = LocalOutlierFactor(n_neighbors=12, novelty=True).fit(known.numpy())
    np.testing.assert_allclose(found, -theirs.score_samples(x.numpy()), rtol=2e-4)
    again = fit(detect.LocalOutlierFactor(of="input", k=12, references=150), MODEL, known)
    assert len(again.state["0.references"]) == 150
    with pytest.raises(DataError, match="13 benign inputs are too few"):
        fit(detect.LocalOutlierFactor(of="input", k=12), MODEL, known[:13])
    with pytest.raises(ConfigError, match="references is 12 and k 12"):
        fit(detect.LocalOutlierFactor(of="input", k=12, references=12), MODEL, known)


def test_equal_inputs_are_no_outliers_and_others_are() -> None:
    known = drawn(1).repeat(60, 1)
    detector = fit(detect.LocalOutlierFactor(of="input"), MODEL, known)
    assert detector.score(known[:3]).tolist() == pytest.approx([1, 1, 1])
    assert detector.score(known[:1] + 0.1).item() > 1e4


def test_robust_distances_are_scikit_learns_and_do_not_follow_what_is_mixed_in() -> None:
    known, x = drawn(300), 3 * drawn(80, seed=1)
    found = fit(detect.RobustCovariance(of="input"), MODEL, known).score(x)
    theirs = MinCovDet(random_state=0).fit(known.numpy()).mahalanobis(x.numpy())
    np.testing.assert_allclose(found, theirs, rtol=1e-3)
    mixed = known.clone()
    mixed[::5] = 8 + 0.1 * drawn(60, seed=2)
    odd = torch.full((1, known.shape[1]), 8.0)
    robust, plain = (
        fit(method, MODEL, mixed)
        for method in (detect.RobustCovariance(of="input"), detect.PCAReconstruction(of="input"))
    )
    assert robust.score(odd) > 5 * robust.score(known).quantile(0.99)
    assert plain.score(odd) < plain.score(known).quantile(0.99)


def test_where_benign_features_never_vary_any_move_is_far_off() -> None:
    known = drawn(200)
    known[:, 1], known[:, 2] = known[:, 0], 3.0
    detector = fit(detect.RobustCovariance(of="input"), MODEL, known)
    usual = float(detector.score(known).max())
    for move in ([0, 0, 0.1, 0], [0.1, -0.1, 0, 0]):
        assert detector.score(known[:5] + torch.tensor(move)).min() > 100 * usual
    still = fit(detect.RobustCovariance(of="input"), MODEL, torch.ones(50, 4))
    assert still.score(torch.ones(1, 4)).item() == 0
    assert still.score(torch.ones(1, 4) + 0.1).item() > 1e6


def table(n: int = 400, seed: int = 0) -> Tensor:
    """Amount, fee, total (their sum), tries, successes (fewer), and a one-hot group of three."""
    rng = np.random.default_rng(seed)
    amount, fee = rng.gamma(2, 50, n), rng.gamma(2, 5, n)
    tries = rng.integers(1, 9, n)
    successes = rng.binomial(tries, 0.5)
    group = np.eye(3)[rng.integers(0, 3, n)]
    columns = np.c_[amount, fee, amount + fee, tries, successes, group]
    return torch.from_numpy(columns).float()


BREACHES: dict[str, tuple[dict[int, float], str]] = {
    "too large": ({0: 5000.0, 2: 5000.0}, "bounds"),
    "half a try": ({3: 4.5}, "integers"),
    "a sum that is none": ({2: 50.0}, "equations"),
    "two of one group": ({5: 1.0, 6: 1.0, 7: 0.0}, "equations"),
    "none of a group": ({5: 0.0, 6: 0.0, 7: 0.0}, "equations"),
    "more successes than tries": ({3: 2.0, 4: 3.0}, "orders"),
}


@pytest.mark.parametrize("breach", BREACHES)
@pytest.mark.parametrize("declared", [False, True], ids=["learned", "declared"])
def test_each_breach_of_a_table_is_seen_as_what_it_is(breach: str, declared: bool) -> None:
    given = detect.Constraints(
        lower=(0.0,) * 8, upper=(1000.0, 200.0, 1200.0, 8.0, 8.0, 1.0, 1.0, 1.0), integers=(3, 4),
        one_hot=((5, 6, 7),), sums=(((0, 1), 2),), at_most=((4, 3),),
    )  # fmt: skip
    method = given if declared else detect.Constraints()
    detector = detect.fit(method, MODEL, table())
    fine = table()[:1] * 0 + torch.tensor([60.0, 9, 69, 4, 2, 0, 1, 0])
    assert float(detector.score(fine)) == 0
    changes, kind = BREACHES[breach]
    bad = fine.clone()
    for column, value in changes.items():
        bad[0, column] = value
    broken = method.broken(detector.state, bad)
    assert float(broken[kind]) > 0.1
    assert float(detector.score(bad)) == pytest.approx(sum(float(v) for v in broken.values()))


def test_benign_rows_break_nothing_and_chance_is_no_rule() -> None:
    detector = detect.fit(detect.Constraints(), MODEL, table())
    assert float(detector.score(table()).max()) == 0
    assert float((detector.score(table(2000, 1)) > 0).float().mean()) < 0.03
    pairs = detector.state["pairs"].tolist()
    assert [4, 3] in pairs
    # No fee is above any total, yet no shuffling would put it there: bounds say it already.
    assert all(pair[0] not in (5, 6, 7) for pair in pairs)
    # Two equations: a sum, and one of the group.
    assert len(detector.state["equations"]) == 2


def test_the_pull_on_a_broken_row_mends_it() -> None:
    detector = detect.fit(detect.Constraints(), MODEL, table())
    x = table()[:3].clone()
    x[:, 2] += 100
    x.requires_grad_()
    (slope,) = torch.autograd.grad(detector.score(x).sum(), x)
    # Less in all, or more of the parts.
    assert (slope[:, 2] > 0).all()
    assert (slope[:, :2] < 0).all()


def test_declared_constraints_must_fit_the_table() -> None:
    with pytest.raises(ConfigError, match="column 1 is bounded by 3 and 2; swap them"):
        detect.Constraints(lower=(0.0, 3.0), upper=(1.0, 2.0))
    with pytest.raises(DataError, match="column 9 is named; there are 0 to 7"):
        detect.fit(detect.Constraints(integers=(9,)), MODEL, table())
    with pytest.raises(DataError, match="2 lower bounds for 8 columns"):
        detect.fit(detect.Constraints(lower=(0.0, 0.0)), MODEL, table())


def test_rarity_of_features_is_the_share_that_is_as_far_out() -> None:
    known = torch.arange(999.0)[:, None].repeat(1, 2)
    method = detect.FeatureAnomaly()
    detector = detect.fit(method, MODEL, known)
    x = torch.tensor([[899.0, 499.0], [99.0, 499.0], [5000.0, 499.0]])
    rare = method.by_feature(detector.state, x)
    # 100 of 999 are as high as 899, and 100 as low as 99.
    torch.testing.assert_close(
        rare[:2, 0], torch.full((2,), -np.log(101 / 1000)).float(), rtol=0, atol=0.05
    )
    assert float(rare[2, 0]) > 10
    assert (rare[:, 1] < 0.75).all()
    torch.testing.assert_close(detector.score(x), rare.sum(1))
    by_most = detect.fit(detect.FeatureAnomaly(by="max"), MODEL, known)
    torch.testing.assert_close(by_most.score(x), rare.amax(1))


def test_the_planted_feature_is_named() -> None:
    known = drawn(1000, 6)
    method = detect.FeatureAnomaly()
    detector = detect.fit(method, MODEL, known).calibrate(drawn(1000, 6, seed=1))
    x = drawn(50, 6, seed=2)
    x[:, 3] = -80
    assert (method.by_feature(detector.state, x).argmax(1) == 3).all()
    assert detector.flags(x).all()


SENTENCES = [f"Your parcel no. {i} arrives at {i % 12}:30, naïve café" for i in range(50)]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("free\u200b money", "invisible"),
        ("fr\u00adee money", "invisible"),
        ("\u202emoney eerf", "direction"),
        ("free\x00 money", "control"),
        ("free\x1b[8m money", "control"),
        ("fr\ufffdee money", "undefined"),
        ("fr\ue000ee money", "undefined"),
        ("\uff46ree money", "compatibility"),
        ("fr\u0336ee money", "mark"),
        ("fr\u0435e money", "foreign"),
        ("p\u03b1y now", "foreign"),
    ],
)
def test_what_a_reader_does_not_see_is_counted(text: str, kind: str) -> None:
    method = detect.EncodingAnomaly()
    x = detect.code_points([text, text.replace(" ", "")])
    place = detect.methods._encoding.KINDS.index(kind)
    counts = method.counts(x)
    assert counts[:, place].tolist() == [1, 1]
    assert int(counts[:, 1:].sum()) == 2
    detector = detect.fit(method, MODEL, detect.code_points(SENTENCES))
    assert float(detector.score(x).min()) > float(
        detector.score(detect.code_points(SENTENCES)).max()
    )


HONEST = [
    "naïve café",
    "Привет, мир",
    "東京タワーへようこそ",
    "Ελλάδα, Αθήνα",
    "a\tb\r\n",
    "😀",
    "",
]


@pytest.mark.parametrize("text", HONEST)
def test_honest_text_in_any_script_costs_nothing(text: str) -> None:
    x = detect.code_points([text], length=40)
    assert int(detect.EncodingAnomaly().counts(x)[:, 1:].sum()) == 0


def test_what_is_usual_in_benign_text_is_cheap() -> None:
    family = [f"family {i} \U0001f468\u200d\U0001f469" for i in range(50)]
    fitted = [
        detect.fit(detect.EncodingAnomaly(), MODEL, detect.code_points(texts))
        for texts in (SENTENCES, family)
    ]
    strict, used = (float(d.score(detect.code_points(family[:1]))) for d in fitted)
    assert 0 < used < strict


@pytest.fixture(scope="module")
def victim(sound: Any) -> tuple[TorchModel, Tensor, Tensor]:
    """A model of digits, benign digits, and digits that PGD made."""
    found = sound("digits")
    model, benign = TorchModel(found.net), torch.from_numpy(found.unseen.x)
    x, y = benign[500:], torch.from_numpy(found.unseen.y)[500:]
    made = attacks.run(attacks.PGD(steps=10), model, x, y, Threat(region=Linf(0.25)), seed=7)
    return model, benign[:500], made.x_adv[made.success]


def auroc(benign: Tensor, bad: Tensor) -> float:
    return float(
        (bad[:, None] > benign).float().mean() + (bad[:, None] == benign).float().mean() / 2
    )


@pytest.mark.parametrize("hidden", [0, 8])
def test_a_learned_detector_knows_the_attack_that_it_made(
    victim: tuple[TorchModel, Tensor, Tensor], hidden: int
) -> None:
    model, benign, bad = victim
    method = detect.Learned(radii=(0.15, 0.3), steps=5, examples=100, hidden=hidden)
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    detector = detect.fit(method, model, benign[:300])
    again = detect.fit(method, model, benign[:300])
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()
    assert all(torch.equal(value, again.state[name]) for name, value in detector.state.items())
    assert auroc(detector.score(benign[300:]), detector.score(bad)) > 0.85
    assert method.attack_aware
    assert detect.Fused(parts=(method,)).attack_aware
    assert not detect.Mahalanobis().attack_aware


def test_nothing_is_learned_from_a_model_that_is_not_fooled() -> None:
    steady = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    with torch.no_grad():
        steady[2].weight.zero_()
        steady[2].bias.copy_(torch.tensor([9.0, 0.0]))
    with pytest.raises(
        DataError, match=r"PGD fools the model with 0 of 180 examples.*larger radii"
    ):
        detect.fit(detect.Learned(examples=30, steps=1), TorchModel(steady), drawn(40))


@dataclass(frozen=True, kw_only=True)
class Column(Method):
    """One column of the input, as it is."""

    at_: int = 0
    needs: ClassVar[Any] = "input"

    def fit(self, seen: Observation) -> State:
        return {}

    def score(self, state: State, seen: Observation) -> Tensor:
        return seen.x[:, self.at_]


@pytest.mark.parametrize("by", ["fisher", "max", "harmonic"])
def test_several_methods_keep_one_false_positive_rate(by: Any) -> None:
    parts = tuple(Column(at_=i) for i in range(5))
    generator = torch.Generator().manual_seed(0)
    together, any_of_them = [], []
    for _ in range(20):
        known, held, fresh = torch.randn(3, 800, 5, generator=generator)
        fused = detect.fit(detect.Fused(parts=parts, by=by), MODEL, known).calibrate(held)
        together.append(fused.flags(fresh).float().mean())
        flags = [detect.fit(p, MODEL, known).calibrate(held).flags(fresh) for p in parts]
        any_of_them.append(torch.stack(flags).any(0).float().mean())
    # Of 800 held-out inputs 3 may be flagged: about 0.5 % are, with each part alone too.
    assert 0.003 < float(torch.stack(together).mean()) < 0.01
    assert float(torch.stack(any_of_them).mean()) > 0.018


@pytest.mark.parametrize(("by", "least"), [("fisher", 0.55), ("max", 0.75), ("harmonic", 0.75)])
def test_a_part_without_power_does_not_spoil_the_others(by: Any, least: float) -> None:
    generator = torch.Generator().manual_seed(1)
    known = torch.randn(8000, 4, generator=generator)
    held, fresh = torch.randn(2, 2000, 4, generator=generator)
    parts = tuple(Column(at_=i) for i in range(4))
    fused = detect.fit(detect.Fused(parts=parts, by=by), MODEL, known).calibrate(held)
    fresh[:, 2] += 4
    assert float(fused.flags(fresh).float().mean()) > least


@pytest.mark.parametrize("by", ["fisher", "max", "harmonic"])
def test_a_part_that_is_silent_on_most_inputs_speaks_when_it_does(by: Any) -> None:
    generator = torch.Generator().manual_seed(2)
    known = torch.randn(4000, 3, generator=generator)
    held, fresh = torch.randn(2, 2000, 3, generator=generator)
    for x in (known, held, fresh):
        # Zero, but for one input in two hundred, as broken constraints are.
        x[:, 0] = (x[:, 0] - 2.6).clamp_min(0)
    fused = detect.Fused(parts=tuple(Column(at_=i) for i in range(3)), by=by)
    detector = detect.fit(fused, MODEL, known).calibrate(held)
    assert float(detector.flags(fresh).float().mean()) < 0.015
    fresh[:, 0] = 1.5
    assert float(detector.flags(fresh).float().mean()) > 0.9


def test_no_part_can_be_bought_off_and_extremes_do_not_tie() -> None:
    parts = (Column(at_=0), Column(at_=1))
    known = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
    for by in ("fisher", "max", "harmonic"):
        detector = detect.fit(detect.Fused(parts=parts, by=by), MODEL, known)
        low, lower = detector.score(torch.tensor([[6.0, -3.0], [6.0, -1000.0]]))
        assert float(low - lower) < 0.02
        far = detector.score(torch.tensor([[20.0, 0.0], [30.0, 0.0], [300.0, 0.0]]))
        assert (far.diff() > 0).all()


def test_parts_see_their_own_layers_of_one_forward() -> None:
    model, x = two_layers(), drawn(400)
    near = detect.NearestNeighbours(layers=("1",), metric="euclidean")
    pca = detect.PCAReconstruction(layers=("3",))
    fused = detect.Fused(parts=(near, pca, detect.IsolationForest(of="input")))
    assert fused.layers == ("1", "3")
    assert (fused.needs, fused.passes) == ("activations", 0)
    counted = []
    model.net.register_forward_hook(lambda *_: counted.append(1))
    detector = detect.fit(fused, model, x)
    counted.clear()
    detector.score(x[:9])
    assert counted == [1]
    seen = detector.observer(x[:9])
    rare = fused.by_part(detector.state, seen)
    # Each part as it is alone, fitted to the same three fourths.
    alone = detect.fit(near, model, x[torch.arange(400) % 4 != 3])
    assert torch.equal(rare[:, 0].argsort(), alone.score(x[:9]).argsort())


def test_default_layers_join_the_named_ones(tmp_path: Path) -> None:
    model, x = two_layers(), drawn(400)
    fused = detect.Fused(parts=(detect.Mahalanobis(), detect.NearestNeighbours(layers=("0",))))
    assert fused.layers is None
    detector = detect.fit(fused, model, x)
    assert detector.layers == (*detect.default_layers(model, x[:1]), "0")
    detector.save(tmp_path)
    again = detect.load(tmp_path, model)
    assert again.method == detector.method
    assert torch.equal(again.score(x), detector.score(x))


def test_fusion_carries_what_its_parts_cost() -> None:
    squeezing = detect.FeatureSqueezing()
    fused = detect.Fused(parts=(detect.Confidence(), squeezing), by="max")
    assert (fused.passes, fused.needs) == (squeezing.passes, "scores")
    assert fused.modalities == squeezing.modalities
    assert detect.made("Fused", detect.settings_of(fused)) == fused
    with pytest.raises(ConfigError, match="there are no parts"):
        detect.Fused(parts=())
    with pytest.raises(ConfigError, match="by is 'mean'"):
        detect.Fused(by="mean")  # type: ignore[arg-type]


EXPORTED = (
    detect.Confidence(),
    detect.Mahalanobis(),
    detect.DeepKNN(k=5),
    detect.KernelDensity(of="input"),
    detect.IsolationForest(of="input", trees=5),
    detect.Fused(parts=(detect.Mahalanobis(), detect.NearestNeighbours(), detect.FeatureAnomaly())),
)


@pytest.mark.parametrize("method", EXPORTED, ids=lambda m: type(m).__name__)
def test_an_exported_detector_answers_as_it_does_here(method: Method, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    model, x = two_layers(3), drawn(400)
    detector = detect.fit(method, model, x).calibrate(drawn(400, seed=1))
    path = detect.export(detector, tmp_path / "guard.onnx", x[:6])
    session = runtime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    for batch in (1, 7):
        inputs = 3 * drawn(batch, seed=2)
        scores, suspicion = session.run(None, {"x": inputs.numpy()})
        np.testing.assert_allclose(scores, model.scores(inputs), atol=1e-4)
        np.testing.assert_allclose(suspicion, detector.suspicion(inputs), atol=1e-4, rtol=1e-4)


def test_what_cannot_be_exported_says_so_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    model, x = two_layers(), drawn(400)
    gradients = detect.fit(detect.GradientNorm(), model, x).calibrate(drawn(400, seed=1))
    with pytest.raises(ModelError, match="GradientNorm on this model cannot be written as ONNX"):
        detect.export(gradients, tmp_path / "guard.onnx", x[:4])
    asked = FunctionModel(lambda x: x, returns="scores", domain=(-9, 9))
    other = detect.fit(detect.Confidence(), asked, x).calibrate(drawn(400, seed=1))
    with pytest.raises(ModelError, match="a FunctionModel is no torch network"):
        detect.export(other, tmp_path / "guard.onnx", x[:4])
    loose = detect.fit(detect.Confidence(), model, x)
    with pytest.raises(DataError, match="no threshold yet"):
        detect.export(loose, tmp_path / "guard.onnx", x[:4])
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ModelError, match=r"onnxruntime.*pip install 'withstand\[onnx\]'"):
        detect.export(loose, tmp_path / "guard.onnx", x[:4])
    assert not list(tmp_path.iterdir())
