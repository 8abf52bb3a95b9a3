"""What is observed of a model, what a threshold promises, and a detector's way to disk."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
import torch
from scipy.spatial.distance import mahalanobis
from torch import Tensor, nn

from withstand import attacks, detect
from withstand._errors import ConfigError, DataError, ModelError
from withstand.data import from_arrays
from withstand.models import Declared, Defence, Detecting, FunctionModel, Pipeline, TorchModel
from withstand.threat import Evading, Linf, Threat, Untargeted


def convolutional() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Flatten(),
            nn.Linear(96, 12), nn.ReLU(), nn.Dropout(0.5), nn.Linear(12, 3),
        )  # fmt: skip


def images(n: int, seed: int = 0) -> Tensor:
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("n", "fpr", "confidence", "most"),
    [
        (298, 0.01, 0.95, -1),
        (299, 0.01, 0.95, 0),
        (500, 0.01, 0.95, 1),
        (1000, 0.01, 0.95, 4),
        (2000, 0.01, 0.95, 12),
        (5000, 0.01, 0.95, 38),
        (50_000, 0.01, 0.95, 463),
        (459, 0.01, 0.99, 0),
        (10_000, 0.01, 0.99, 77),
        (5000, 0.001, 0.95, 1),
    ],
)
def test_so_many_benign_inputs_may_be_flagged(
    n: int, fpr: float, confidence: float, most: int
) -> None:
    assert detect.most_flagged(n, fpr=fpr, confidence=confidence) == most


def test_a_threshold_is_the_lowest_that_keeps_its_promise() -> None:
    scores = np.random.default_rng(0).permutation(np.arange(1000.0))
    found = detect.threshold(scores)
    assert (found.value, found.flagged, found.n) == (995.0, 4, 1000)
    assert found.bound <= 0.01 < detect.threshold(scores[:299], fpr=0.02).bound


def test_too_few_benign_inputs_are_refused_with_the_number_that_is_needed() -> None:
    with pytest.raises(DataError, match=r"298 held-out.* give at least 299"):
        detect.threshold(np.arange(298))
    assert detect.threshold(np.arange(299)).flagged == 0
    with pytest.raises(DataError, match="2 of 400 benign scores are not finite"):
        detect.threshold([*range(398), np.nan, np.inf])


def test_one_forward_shows_all_layers_and_leaves_no_hook() -> None:
    net = convolutional().eval()
    asked = []
    net.register_forward_hook(lambda *_: asked.append(1))
    model = TorchModel(net)
    assert detect.layer_names(model, images(1)) == tuple("01234567")
    assert detect.default_layers(model, images(1)) == ("1", "3", "6")
    asked.clear()
    x = images(5)
    seen = detect.Observer(model=model, needs="activations", layers=("1", "6"))(x)
    assert asked == [1]
    assert torch.equal(seen.scores, net(x))
    assert torch.equal(seen.activations["1"], net[:2](x).mean((2, 3)))
    assert torch.equal(seen.activations["6"], net[:7](x))
    assert not any(module._forward_hooks for module in net)


def test_a_forward_that_fails_leaves_no_hook_but_those_of_others() -> None:
    net, told = convolutional().eval(), []
    net[1].register_forward_hook(lambda *_: told.append(1))
    look = detect.Observer(model=TorchModel(net), needs="activations", layers=("1", "6"))
    with pytest.raises(ModelError, match="failed on an input"):
        look(torch.rand(1, 7))
    assert [len(module._forward_hooks) for module in net] == [0, 1, 0, 0, 0, 0, 0, 0, 0]
    gone = detect.Observer(model=TorchModel(net), needs="activations", layers=("1", "12"))
    with pytest.raises(AttributeError):
        gone(images(1))
    look(images(1))
    assert told == [1]
    assert [len(module._forward_hooks) for module in net] == [0, 1, 0, 0, 0, 0, 0, 0, 0]


def test_signals_are_averaged_over_time_and_tokens_over_their_places() -> None:
    signal = nn.Sequential(nn.Conv1d(2, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(30, 2)).eval()
    tokens = nn.Sequential(nn.Linear(4, 7), nn.ReLU(), nn.Flatten(), nn.Linear(42, 2)).eval()
    for net, x, axis in ((signal, torch.rand(3, 2, 8), 2), (tokens, torch.rand(3, 6, 4), 1)):
        seen = detect.Observer(model=TorchModel(net), needs="activations", layers=("1",))(x)
        assert torch.equal(seen.activations["1"], net[:2](x).mean(axis))


def test_a_graph_leads_back_through_steps_and_declarations() -> None:
    net = convolutional().eval()
    inner = Declared(TorchModel(net), Defence(name="none"))
    model = Pipeline([lambda x: x / 2], inner)
    x = images(2).requires_grad_()
    observer = detect.Observer(model=model, needs="activations", layers=("1",))
    seen = observer(x)
    (through,) = torch.autograd.grad(seen.activations["1"].sum() + seen.scores.sum(), x)
    (wanted,) = torch.autograd.grad(net[:2](x / 2).mean((2, 3)).sum() + net(x / 2).sum(), x)
    torch.testing.assert_close(through, wanted)


@pytest.mark.parametrize("scores", [[[2.0, 0.0, -1.0]], [[0.5]]])
def test_confidence_in_its_closed_forms(scores: list[list[float]]) -> None:
    net = nn.Linear(1, len(scores[0]), bias=False).eval()
    with torch.no_grad():
        net.weight.copy_(torch.tensor(scores).T)
    x = torch.ones(1, 1)
    full = [0.0, *scores[0]] if len(scores[0]) == 1 else scores[0]
    whole = np.exp(full).sum()
    top = sorted(full)
    wanted = {
        "probability": 1 - np.exp(top[-1]) / whole,
        "margin": top[-2] - top[-1],
        "energy": -np.log(whole),
    }
    for of, value in wanted.items():
        found = detect.fit(detect.Confidence(of=of), TorchModel(net), x).score(x)  # type: ignore[arg-type]
        assert found.item() == pytest.approx(value, rel=1e-5)


def test_the_least_doubt_of_a_sure_model_is_not_rounded_away() -> None:
    net = nn.Linear(1, 2, bias=False).eval()
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[30.0], [0.0]]))
    detector = detect.fit(detect.Confidence(), TorchModel(net), torch.ones(1, 1))
    assert detector.score(torch.ones(1, 1)).item() == pytest.approx(np.exp(-30), rel=1e-4)


def clusters(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Two Gaussian clouds that share a skewed covariance."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    x = rng.multivariate_normal([0, 0], [[1.0, 0.9], [0.9, 1.0]], n) + 6 * y[:, None]
    return torch.from_numpy(x).float(), torch.from_numpy(y)


def test_mahalanobis_ranks_as_the_closed_form_does() -> None:
    net = nn.Sequential(nn.Identity(), nn.Linear(2, 2)).eval()
    x, y = clusters(4000, 0)
    detector = detect.fit(detect.Mahalanobis(layers=("0",)), TorchModel(net), x, y)
    points = clusters(200, 1)[0] + 3 * torch.randn(
        200, 2, generator=torch.Generator().manual_seed(1)
    )
    inverse = np.linalg.inv([[1.0, 0.9], [0.9, 1.0]])
    exact = [min(mahalanobis(p, [c, c], inverse) for c in (0, 6)) for p in points.numpy()]
    scores = detector.score(points).numpy()
    far = np.asarray(exact) > 1
    assert np.corrcoef(np.argsort(np.argsort(scores)), np.argsort(np.argsort(exact)))[0, 1] > 0.99
    assert np.corrcoef(scores[far], np.asarray(exact)[far])[0, 1] > 0.9


def test_a_held_out_rate_is_kept_and_far_points_are_flagged() -> None:
    net = nn.Sequential(nn.Identity(), nn.Linear(2, 2)).eval()
    detector = detect.fit(detect.Mahalanobis(layers=("0",)), TorchModel(net), *clusters(2000, 0))
    detector = detector.calibrate(clusters(4000, 1)[0])
    assert detector.flags(clusters(20_000, 2)[0]).float().mean() < 0.013
    across = torch.tensor([[2.0, -2.0], [-2.0, 2.0], [3.0, 3.0]])
    assert detector.flags(across).tolist() == [True, True, False]


def test_rarity_is_the_conformal_p_value_and_never_ties() -> None:
    benign = torch.randn(5000, generator=torch.Generator().manual_seed(0))
    knots = detect.methods._tails.tails(benign)
    points = torch.linspace(-6, 60, 400)
    found = detect.methods._tails.rarity(knots, points)
    assert (found.diff() > 0).all()
    inside = points.abs() < 2.5
    share = ((benign[None] >= points[:, None]).sum(1) + 1) / 5001
    torch.testing.assert_close(found[inside], -share.log()[inside], atol=0.1, rtol=0.02)
    assert found[-1] > 20


def test_several_scores_have_the_rarities_of_each() -> None:
    benign = torch.randn(3, 500, generator=torch.Generator().manual_seed(0))
    benign[1] = benign[1].round()
    knots = detect.methods._tails.several_tails(benign.T)
    beyond = torch.tensor([-torch.inf, -9.0, 9.0]).expand(3, -1)
    points = torch.cat((beyond, benign[:, :40], knots[0]), 1)
    alone = [
        detect.methods._tails.rarity(*pair) for pair in zip(knots.unbind(1), points, strict=True)
    ]
    assert torch.equal(detect.methods._tails.rarities(knots, points), torch.stack(alone))


def test_one_input_is_as_rare_as_in_a_batch() -> None:
    benign = torch.randn(500, 3, generator=torch.Generator().manual_seed(0))
    benign[:, 1] = benign[:, 1].round()
    knots = detect.methods._tails.several_tails(benign)
    points = torch.cat((knots[0].T, benign[:40], benign.new_tensor([[-9.0, 0, 9], [9, 9, 30]])))
    together = detect.methods._tails.rarities(knots, points.T.contiguous())
    alone = [detect.methods._tails.rarest(knots, row) for row in points.tolist()]
    torch.testing.assert_close(torch.tensor(alone), together.amax(0))
    one = [detect.methods._tails.rarity(knots[:, 1], row[1:2]) for row in points]
    torch.testing.assert_close(torch.cat(one), together[1])
    for at in range(3):
        row = [torch.nan if i == at else 1.0 for i in range(3)]
        assert np.isnan(detect.methods._tails.rarest(knots, row))


def test_threads_see_their_own_inputs_in_one_network() -> None:
    class Meeting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            meet.wait()
            return x

    # Both have hooked the layers before either passes them, and both have passed them before either
    # takes its hooks off.
    meet = Barrier(2, timeout=10)
    net = nn.Sequential(Meeting(), nn.Linear(3, 4), Meeting()).eval()
    look = detect.Observer(model=TorchModel(net), needs="activations", layers=("1",))
    inputs = torch.rand(2, 1, 3)
    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(look, inputs))
    for x, seen in zip(inputs, found, strict=True):
        assert torch.equal(seen.activations["1"], net[1](x))


def test_layers_of_any_width_are_measured_as_if_alone() -> None:
    model = TorchModel(convolutional())
    detector = detect.fit(detect.Mahalanobis(), model, images(400))
    seen = detector.observer(images(20, seed=1))
    widths = [part.shape[1] for part in seen.activations.values()]
    assert len(set(widths)) > 1
    distances = []
    blocks = detector.state["whitening"].tensor_split(len(widths), 1)
    for i, (width, part) in enumerate(zip(widths, seen.activations.values(), strict=True)):
        whitening = blocks[i].split(widths)[i][:, :width]
        gaps = (part @ whitening)[:, None] - detector.state["means"][i, :, :width]
        distances.append(gaps.square().sum(2).sqrt().amin(1))
    rare = detect.methods._tails.rarities(detector.state["scales"], torch.stack(distances))
    torch.testing.assert_close(detector.score_seen(seen), rare.amax(0), rtol=1e-3, atol=1e-4)


def test_what_was_looked_at_is_told_while_it_is_fitted() -> None:
    told: dict[str, list[tuple[int, int]]] = {"fit": [], "calibrate": []}
    detector = detect.fit(
        detect.Confidence(),
        TorchModel(convolutional()),
        images(7),
        batch_size=3,
        progress=lambda *now: told["fit"].append(now),
    )
    detector.calibrate(images(400), progress=lambda *now: told["calibrate"].append(now))
    assert told == {"fit": [(3, 7), (6, 7), (7, 7)], "calibrate": [(256, 400), (400, 400)]}


def test_rows_do_not_know_each_other() -> None:
    model = TorchModel(convolutional())
    detector = detect.fit(detect.Mahalanobis(), model, images(400))
    x = images(30, seed=1)
    whole = detector.score(x)
    alone = torch.cat([detector.score(row[None]) for row in x])
    for other in (alone, detector.score(x.flip(0)).flip(0), detector.score(x, batch_size=7)):
        # The network's own kernels round by the batch, and steep tails show that.
        torch.testing.assert_close(other, whole, rtol=1e-3, atol=1e-3)


def test_a_detector_holds_a_model_that_is_still_training() -> None:
    net = convolutional().train()
    detector = detect.fit(detect.Mahalanobis(), TorchModel(net), images(400))
    first = detector.score(images(9, seed=1))
    assert torch.equal(first, detector.score(images(9, seed=1)))
    assert net.training


@pytest.mark.parametrize("layers", [None, ("6",)])
def test_saved_and_loaded_it_says_the_same(layers: tuple[str, ...] | None, tmp_path: Path) -> None:
    model = TorchModel(convolutional())
    method = detect.Mahalanobis(components=5, layers=layers)
    detector = detect.fit(method, model, images(400))
    detector = detector.calibrate(images(400, seed=1))
    assert sorted(path.name for path in detector.save(tmp_path)) == [
        "detector.json", "state.safetensors",
    ]  # fmt: skip
    again = detect.load(tmp_path, model)
    assert again.method == detector.method
    assert again.threshold == detector.threshold
    assert torch.equal(again.score(images(9)), detector.score(images(9)))


def test_a_detector_belongs_to_one_model(tmp_path: Path) -> None:
    net = convolutional()
    detect.fit(detect.Confidence(), TorchModel(net), images(5)).save(tmp_path)
    with torch.no_grad():
        net[0].weight[0, 0, 0, 0] += 1e-3
    with pytest.raises(DataError, match="fitted to another model"):
        detect.load(tmp_path, TorchModel(net))


def test_damaged_files_are_told_in_one_line(tmp_path: Path) -> None:
    model = TorchModel(convolutional())
    with pytest.raises(DataError, match="fit a detector first"):
        detect.load(tmp_path / "nowhere", model)
    detect.fit(detect.Confidence(), model, images(5)).save(tmp_path)
    told = json.loads((tmp_path / "detector.json").read_text())
    older = json.dumps({**told, "schema": "urn:withstand:detector:1"})
    for content in ("{", json.dumps({**told, "threshold": 3}), "[]", older):
        (tmp_path / "detector.json").write_text(content)
        with pytest.raises(DataError, match="cannot be read"):
            detect.load(tmp_path, model)
    (tmp_path / "detector.json").write_text(json.dumps({**told, "method": "Confidance"}))
    with pytest.raises(ConfigError, match="did you mean 'Confidence'"):
        detect.load(tmp_path, model)


def test_what_cannot_be_seen_is_told() -> None:
    model = TorchModel(convolutional())
    with pytest.raises(ModelError, match="layer '33' is not in the network"):
        detect.fit(detect.Mahalanobis(layers=("33",)), model, images(20))
    closed = FunctionModel(lambda x: np.zeros(len(x), int), returns="labels")
    with pytest.raises(ModelError, match="needs scores and the model gives labels"):
        detect.fit(detect.Confidence(), closed, images(20))
    open_ = FunctionModel(lambda x: np.zeros((len(x), 3)))
    with pytest.raises(ModelError, match="no layers to look into"):
        detect.fit(detect.Mahalanobis(), open_, images(20))
    with pytest.raises(DataError, match="no threshold yet"):
        detect.fit(detect.Confidence(), model, images(5)).flags(images(2))
    with pytest.raises(DataError, match="0 benign inputs"):
        detect.fit(detect.Confidence(), model, images(0))


def test_an_attacker_who_knows_the_detector_goes_around_it() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    with torch.no_grad():
        net[1].weight.copy_(torch.ones(2, 64) * torch.tensor([[1.0], [-1.0]]))
        net[1].bias.copy_(torch.tensor([-32.0, 32.0]))
    model, x = TorchModel(net), images(40)
    detector = detect.fit(detect.Confidence(of="margin"), model, images(400))
    detector = detector.calibrate(images(400, seed=2))
    y = model.labels(x)
    beside = Detecting(model, detector.suspicion, threshold=0.0)
    threat = Threat(region=Linf(0.3), goal=Evading(Untargeted()))
    with model.held():
        found = attacks.run(attacks.OrthogonalPGD(steps=20), beside, x, y, threat)
        assert found.success.any()
        assert not detector.flags(found.x_adv[found.success]).any()
        assert (model.labels(found.x_adv)[found.success] != y[found.success]).all()


def test_a_data_set_brings_its_labels() -> None:
    net = nn.Sequential(nn.Identity(), nn.Linear(2, 2)).eval()
    x, y = clusters(600, 0)
    given = detect.fit(detect.Mahalanobis(layers=("0",)), TorchModel(net), x, y)
    data = from_arrays(x.numpy(), y.numpy())
    assert torch.equal(
        detect.fit(detect.Mahalanobis(layers=("0",)), TorchModel(net), data).score(x),
        given.score(x),
    )


def test_a_network_of_one_layer_has_none_to_look_into() -> None:
    with pytest.raises(ModelError, match="no layers to look into"):
        detect.fit(detect.Mahalanobis(), TorchModel(nn.Linear(4, 2)), torch.rand(40, 4))
