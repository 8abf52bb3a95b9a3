"""The trainer: what it counts, what it guards against, and what it tells."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from training import Collapse, Loader, images, linear, moment, same, small, weights

from withstand import WithstandError
from withstand._errors import ConfigError
from withstand.config import ModelConfig
from withstand.data import Dataset, from_arrays, load_sklearn
from withstand.harden import (
    AWP,
    FGSM,
    IBP,
    MTLIBP,
    NFGSM,
    PGD,
    RSLAD,
    Alternating,
    Recipe,
    Standard,
    Worst,
    _training,
    adam,
    cyclic,
    harden,
    restarted,
    sgd,
    withstood,
)
from withstand.harden import (
    _several as several,
)
from withstand.harden._average import Average
from withstand.harden._batches import Batches, held, judged
from withstand.harden._cost import Meter
from withstand.harden._guard import Guard, Look, watches
from withstand.harden._replay import Examples, Replay
from withstand.models import TorchModel, load_model
from withstand.threat import L0, L1, L2, Box, Frozen, Linf


@pytest.fixture(scope="module")
def few() -> Dataset:
    return load_sklearn("digits", limit=260)


@pytest.mark.parametrize(
    ("recipe", "passes"),
    [
        (Standard(), 1),
        (FGSM(region=Linf(0.1)), 2),
        (NFGSM(region=Linf(0.1)), 2),
        (PGD(region=L2(0.5), steps=5), 6),
    ],
)
def test_passes_are_counted_exactly(recipe: Recipe, passes: int) -> None:
    net, (x, y) = linear(), images()
    meter = Meter(net, sgd())
    with meter.counting(net):
        torch.autograd.backward(recipe.loss(net, x, y, moment()).loss)
        meter.step(x, y, 1, 100)
        with torch.no_grad():
            net(x)
    net(x)
    assert meter.cost.passes == passes
    assert meter.cost.forwards == (passes + 1) * len(x)


def test_standard_steps_are_timed_apart() -> None:
    net, (x, y) = linear(), images()
    meter = Meter(net, sgd())
    before = weights(net)
    with meter.counting(net):
        for place in range(8):
            meter.step(x, y, place, 8)
    assert meter.timed == 4
    assert meter.cost.standard_seconds == pytest.approx(2 * meter.standard + meter.fetching)
    assert meter.cost.seconds < meter.standard
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_the_schedule_goes_up_and_down() -> None:
    assert [cyclic(done) for done in (0.0, 0.2, 0.4, 0.7, 1.0)] == pytest.approx(
        [0, 0.5, 1, 0.5, 0]
    )
    twice = restarted(0.5)
    assert [twice(done) for done in (0.0, 0.2, 0.5, 0.7, 1.0)] == pytest.approx([0, 1, 0, 1, 0])


def test_an_average_of_equal_weights_is_equal_and_follows_its_decay() -> None:
    net = small(norm=True)
    average = Average(net, 0.5)
    average.update(net)
    assert same(average.net, net)
    with torch.no_grad():
        net[5].bias.add_(1.0)
        net[1].running_mean.add_(1.0)
        net[1].num_batches_tracked.add_(7)
    average.update(net)
    # 3 / 12 of the past at the second step, which is less than the decay.
    moved = average.net[5].bias - (net[5].bias - 1.0)
    assert torch.allclose(moved, torch.full_like(moved, 0.75))
    assert torch.allclose(average.net[1].running_mean, torch.full((8,), 0.75))
    assert int(average.net[1].num_batches_tracked) == 7


def test_batches_hold_each_sample_once_and_are_seeded(few: Dataset) -> None:
    batches = Batches(source=few, batch_size=64, seed=3)
    first, again, second = (list(batches.epoch(number)) for number in (0, 0, 1))
    assert [len(x) for x, _ in first] == [52] * 5
    rows = torch.cat([x for x, _ in first]).flatten(1)
    assert torch.equal(
        rows.sum(1).sort().values, torch.from_numpy(few.x).flatten(1).sum(1).sort().values
    )
    assert all(torch.equal(a[0], b[0]) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0][0], second[0][0])
    assert torch.equal(next(batches.epoch(0, 3))[0], first[3][0])


def test_samples_in_the_order_of_their_classes_are_judged_by_all_of_them() -> None:
    digits = load_sklearn("digits")
    ordered = digits.take(np.argsort(digits.y, kind="stable"))
    for source in (ordered, [(torch.from_numpy(ordered.x), torch.from_numpy(ordered.y))]):
        _, apart = held(digits, source, 0)
        x, y = judged(apart, source, 512, seed=0)
        assert y.bincount().min() > 30
        again, _ = judged(apart, source, 512, seed=0)
        assert len(x) == 512
        assert torch.equal(again, x)
    train, apart = held(digits, 0.4, 0)
    assert len(train) + len(apart) == len(digits)
    assert torch.equal(judged(apart, 0.4, 512, seed=0)[0], torch.from_numpy(apart.x[:512]))


@given(
    users=st.lists(st.integers(0, 9), min_size=4, max_size=60),
    share=st.floats(0.05, 0.6),
    seed=st.integers(0, 99),
)
def test_who_is_held_out_has_no_row_that_is_trained_on(
    users: list[int], share: float, seed: int
) -> None:
    data = from_arrays(
        np.arange(len(users), dtype="f4")[:, None], np.zeros(len(users), int), groups=users
    )
    try:
        train, apart = held(data, share, seed)
    except WithstandError:
        # One user's rows are all that would be left, or none are wanted.
        largest = max(users.count(user) for user in users)
        assert round(share * len(users)) in (0, len(users)) or largest > 0.3 * len(users)
        return
    assert sorted([*train.x[:, 0], *apart.x[:, 0]]) == list(range(len(users)))
    assert not set(train.groups.tolist()) & set(apart.groups.tolist())
    most = max(users.count(user) for user in users)
    assert 0 <= len(apart) - round(share * len(users)) < most


def test_the_callers_net_and_randomness_are_left_alone(few: Dataset) -> None:
    net = small(norm=True, drop=0.2)
    before, random = weights(net), torch.get_rng_state()
    made = harden(net, Loader(few), FGSM(region=Linf(0.1)), epochs=1, held_out=few.head(60))
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())
    assert not made.net.training
    assert not same(made.net, net)
    assert all(p.requires_grad and p.grad is None for p in net.parameters())


def test_a_seed_decides_everything(few: Dataset) -> None:
    def trained(seed: int) -> nn.Module:
        recipe = FGSM(region=Linf(0.1))
        return harden(small(drop=0.2), few, recipe, epochs=1, batch_size=64, seed=seed).net

    assert same(trained(0), trained(0))
    assert not same(trained(0), trained(1))


def test_hardened_digits_withstand_more_than_standard_ones() -> None:
    digits = load_sklearn("digits")
    train, test = digits.take(np.arange(1000)), digits.take(np.arange(1000, 1200))
    x, y = torch.from_numpy(test.x), torch.from_numpy(test.y)
    shares = []
    for recipe in (Standard(), FGSM(region=Linf(0.15))):
        made = harden(small(), train, recipe, epochs=5, batch_size=64, optimizer=adam(1e-2))
        seen = withstood(made.net, x, y, [Linf(0.15)], moment(), steps=20)
        shares.append([float(part.float().mean()) for part in (seen.clean, seen.multi)])
    (clean, attacked), (hardened, withstands) = shares
    assert clean > 0.8
    assert hardened > 0.8
    assert withstands > attacked + 0.1


def test_delay_growth_and_cost_are_told(few: Dataset) -> None:
    recipe = PGD(region=Linf(0.1), steps=4)
    made = harden(small(), few, recipe, epochs=4, batch_size=64, start=0.5, growth=0.25)
    assert [epoch.recipe for epoch in made.history] == ["Standard", "Standard", "PGD", "PGD"]
    assert [epoch.robust is None for epoch in made.history] == [True, True, False, False]
    scales = [epoch.scale for epoch in made.history]
    assert scales[:2] == [0, 0]
    assert 0.5 < scales[2] <= 1
    assert scales[3] == 1
    assert made.epoch > 2
    whole = harden(small(), few, recipe, epochs=4, batch_size=64, guard=False)
    assert whole.cost.samples == made.cost.samples == 4 * 247
    assert 5 < whole.cost.passes < 7
    assert 1 < made.cost.passes < whole.cost.passes
    assert whole.cost.factor > 1


def test_label_smoothing_and_other_options_are_recorded(few: Dataset) -> None:
    made = harden(small(), few, Standard(), epochs=1, smoothing=0.1, ema=0, held_out=few.head(50))
    told = json.loads(json.dumps(made.to_dict(), allow_nan=False))
    assert told["provenance"]["settings"]["smoothing"] == 0.1
    assert told["provenance"]["settings"]["optimizer"].startswith("Adam(lr=0.002")
    assert told["held_out"]["clean_accuracy"]["n"] == 50
    assert told["held_out"]["robust_accuracy_at_most"] is None
    assert told["chosen"]["weights"] == "last"
    assert made.cost.samples == 260


def test_overfitting_is_noticed_rolled_back_and_trained_away() -> None:
    digits, recipe = load_sklearn("digits", limit=1000), Collapse(region=Linf(0.1), after=0.5)
    settings: dict[str, Any] = {"epochs": 6, "batch_size": 50, "held_out": 0.2}
    made = harden(small(), digits, recipe, optimizer=adam(5e-3), **settings)
    first, second = made.alarms
    assert 3 < first.epoch <= 3.5
    assert (first.back, first.steps, first.until) == (3, 2, first.epoch + 1)
    assert "epoch 3.5" in str(first)
    assert "PGD-2 to epoch 4.5" in str(first)
    # Tried again after an epoch of PGD, it overfits again, and PGD stays for twice as long.
    assert second.epoch == first.until + 0.5
    assert second.back == first.until
    assert second.until == 6
    assert made.history[-1].recipe == "PGD"
    assert made.history[-1].robust > made.history[2].robust - 0.05
    alone = harden(small(), digits, recipe, optimizer=adam(5e-3), guard=False, **settings)
    assert alone.alarms == ()
    assert alone.history[-1].robust < 0.5 * made.history[-1].robust


def test_a_recipe_that_overfits_again_is_not_tried_a_third_time() -> None:
    digits, recipe = load_sklearn("digits", limit=600), Collapse(region=Linf(0.1), after=0.25)
    made = harden(
        small(), digits, recipe, epochs=8, batch_size=50, held_out=0.2, optimizer=adam(5e-3)
    )
    assert len(made.alarms) == 2
    assert made.alarms[-1].until == 8
    assert [epoch.recipe for epoch in made.history[-3:]] == ["PGD"] * 3


def look(**changes: float) -> Look:
    told = {"clean": 0.95, "single": 0.8, "multi": 0.7, "own": 0.75, "scale": 1.0}
    return Look(**{**told, **changes})


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (look(), None),
        (look(multi=0.5, single=0.82), "down from 70%"),
        (look(multi=0.5, single=0.6), None),
        (look(multi=0.56), None),
        (look(own=0.99, clean=0.9), "90% as they are"),
        (look(own=0.95, multi=0.2, single=0.3), "withstand the step that is trained on"),
        (look(own=0.3, multi=0.1, single=0.2, clean=0.4), None),
        (look(multi=0.5, single=0.82, scale=0.8), None),
    ],
)
def test_the_guard_tells_overfitting_from_learning(seen: Look, words: str | None) -> None:
    guard = Guard(torch.zeros(1), torch.zeros(1), ())
    assert guard.wrong(look()) is None
    why = guard.wrong(seen)
    assert why is None if words is None else words in (why or "")


NONE = Examples(x=torch.zeros(0, 2), y=torch.zeros(0, dtype=torch.long), originals=())


@pytest.mark.parametrize(
    ("recipe", "one_region"),
    [
        (FGSM(region=Linf(0.1)), True),
        (AWP(recipe=PGD(region=Linf(0.1) & Frozen((0,)))), True),
        (Alternating(recipes=[PGD(region=Linf(0.1)), PGD(region=L1(2.0))]), False),
        (AWP(recipe=Alternating(recipes=[PGD(region=Linf(0.1)), Standard()])), False),
        (IBP(region=Linf(0.1)), False),
        (Replay(recipe=MTLIBP(region=Linf(0.1)), kept=NONE), False),
        (Standard(), False),
    ],
)
def test_the_guard_watches_points_of_one_region(recipe: Recipe, one_region: bool) -> None:
    assert watches(recipe) is one_region


def test_several_norms_and_bounds_are_not_taken_for_overfitting() -> None:
    digits = load_sklearn("digits", limit=800)
    settings: dict[str, Any] = {"batch_size": 32, "optimizer": adam(1e-2), "held_out": 0.2}
    begun = harden(small(), digits, Standard(), epochs=4, **settings).net
    # What is drawn nearly always is withstood, and says nothing about the other norm.
    recipes = [PGD(region=Linf(0.001), steps=4), PGD(region=L2(3.0), steps=4)]
    several = Alternating(recipes=recipes, shares=[9, 1])
    made = harden(begun, digits, several, epochs=3, **settings)
    assert made.alarms == ()
    assert {epoch.recipe for epoch in made.history} == {"Alternating"}
    watched = harden(begun, digits, several, epochs=3, guard=True, **settings)
    assert watched.alarms
    asked = [one.provenance["settings"]["guard"] for one in (made, watched)]
    assert asked == [False, True]
    assert harden(small(), digits, IBP(region=Linf(0.02)), epochs=2, **settings).alarms == ()


def test_the_training_ends_when_nothing_better_comes(few: Dataset) -> None:
    still: dict[str, Any] = {"optimizer": sgd(1e-12), "held_out": 0.3, "patience": 2}
    assert len(harden(small(), few, Standard(), epochs=9, **still).history) == 3
    # Epochs without the attacker, or before it has its full radius, are not counted.
    recipe = PGD(region=Linf(0.001), steps=1)
    made = harden(small(), few, recipe, epochs=10, start=0.3, growth=0.2, ema=0, **still)
    assert [epoch.scale < 1 for epoch in made.history] == [True] * 5 + [False] * 3


@pytest.mark.parametrize(
    ("recipe", "nets"), [(Standard(), 2), (PGD(region=Linf(0.01), steps=1), 1)]
)
def test_the_last_weights_are_judged_in_the_middle_where_that_is_cheap(
    few: Dataset, monkeypatch: pytest.MonkeyPatch, recipe: Recipe, nets: int
) -> None:
    looks: list[int] = []

    def counted(*given: Any, **settings: Any) -> Any:
        looks.append(1)
        return withstood(*given, **settings)

    monkeypatch.setattr(_training, "withstood", counted)
    harden(small(), few, recipe, epochs=3, held_out=0.4)
    assert len(looks) == 2 * nets + 2


def test_each_epoch_tells_the_cost_so_far(few: Dataset) -> None:
    made = harden(small(), few, PGD(region=Linf(0.1), steps=6), epochs=2, guard=False)
    first, last = (epoch.factor for epoch in made.history)
    assert first > 1
    assert last == pytest.approx(made.cost.factor, rel=0.2)


def test_a_callback_sees_each_epoch_and_may_end_it(few: Dataset) -> None:
    seen = []

    def callback(epoch: Any, net: nn.Module) -> bool:
        seen.append((epoch.number, isinstance(net, nn.Module)))
        return epoch.number == 2

    made = harden(small(), few, Standard(), epochs=5, callbacks=[callback])
    assert seen == [(1, True), (2, True)]
    assert len(made.history) == 2


def test_tables_signals_and_preprocessing(few: Dataset) -> None:
    draw = np.random.default_rng(0)
    table = from_arrays(draw.normal(5, 3, (300, 6)).astype("f4"), draw.integers(0, 2, 300))
    region = Linf(0.5) & Frozen((0, 1))
    net = nn.Sequential(nn.Linear(6, 2))
    wide = Box(-20.0, 30.0)
    made = harden(net, table, FGSM(region=region), epochs=1, domain=wide)
    assert made.model.domain is wide
    signals = from_arrays(draw.uniform(size=(100, 1, 32)).astype("f4"), draw.integers(0, 3, 100))
    wave = nn.Sequential(nn.Conv1d(1, 4, 5), nn.ReLU(), nn.Flatten(), nn.Linear(112, 3))
    harden(wave, signals, PGD(region=L2(0.3), steps=2), epochs=1)

    centre = nn.BatchNorm1d(6, affine=True).eval()
    model = TorchModel(net, domain=wide, preprocess=centre)
    before = weights(centre)
    made = harden(model, table, PGD(region=region, steps=2), epochs=1)
    assert made.preprocess is centre
    assert set(made.net.state_dict()) == set(net.state_dict())
    assert all(torch.equal(before[name], value) for name, value in centre.state_dict().items())
    x = torch.from_numpy(table.x[:5])
    assert torch.equal(made.model.scores(x), made.net(centre(x)).detach())


def test_weights_are_saved_as_they_are_loaded(few: Dataset, tmp_path: Path) -> None:
    made = harden(small(norm=True), few, Standard(), epochs=1)
    files = made.save(tmp_path / "out")
    assert sorted(file.name for file in files) == ["harden.json", "weights.safetensors"]
    (tmp_path / "model.py").write_text(
        "from torch import nn\n\n\ndef build():\n    return nn.Sequential(nn.Conv2d(1, 8, 3, "
        "stride=2, padding=1), nn.BatchNorm2d(8),\n        nn.ReLU(), nn.Flatten(), "
        "nn.Dropout(0.0), nn.Linear(128, 10))\n"
    )
    spec = ModelConfig(kind="torch", factory="model.py:build", weights="out/weights.safetensors")
    x = torch.from_numpy(few.x[:7])
    loaded = load_model(spec, tmp_path)
    assert isinstance(loaded, TorchModel)
    with loaded.held():
        assert torch.equal(loaded.scores(x), made.model.scores(x))
    told = json.loads((tmp_path / "out" / "harden.json").read_text())
    assert told["provenance"]["after"]["digest"] != told["provenance"]["before"]["digest"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epochs": 0}, "epochs is 0; give at least 1"),
        ({"epochs": 1.5}, "epochs is 1.5; give a whole number"),
        ({"ema": float("nan")}, "ema is nan; give from 0 to below 1"),
        ({"recipe": PGD}, r"recipe is the class PGD; give one, PGD\(...\)"),
        ({"recipe": nn.ReLU()}, "recipe is a ReLU, without loss and regions"),
        ({"recipe": RSLAD, "smoothing": 0.1}, "a teacher's answers are the labels here"),
        ({"held_out": TensorDataset(torch.rand(4, 8), torch.zeros(4).long())}, "one sample of"),
        (
            {
                "net": nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 10)),
                "batch_size": 1,
            },
            "batch 1 has 1 sample, of which batch norm takes no spread",
        ),
        ({"patience": 0}, "patience is 0; give at least 1"),
        ({"start": 1.0}, "start is 1.0; give from 0 to below 1"),
        ({"start": 0.6, "growth": 0.5}, "the radius is never reached"),
        ({"held_out": 0.0}, "held_out is 0.0 of 260 samples"),
        ({"domain": (0.0, 0.5)}, "outside the domain"),
        ({"data": Loader}, "cannot be split"),
        ({"data": iter, "held_out": None}, "no length"),
        ({"net": nn.Flatten()}, "no parameters"),
        ({"net": nn.Sequential(nn.Flatten(), nn.Linear(64, 1))}, "at least 2 classes"),
        ({"net": nn.Sequential(nn.Flatten(), nn.Linear(64, 7))}, "the model has 7 classes"),
        ({"net": nn.Linear(3, 10)}, "the model failed on an input"),
        ({"recipe": PGD(region=L0(2)), "domain": Box(-np.inf, np.inf)}, "finite domain"),
        ({"optimizer": sgd(1e9)}, "the loss is"),
    ],
)
def test_mistakes_are_told_in_one_line(few: Dataset, changes: dict[str, Any], words: str) -> None:
    given = {"net": small(), "data": few, "recipe": Standard(), "epochs": 1, "batch_size": 16}
    given |= changes
    if given["recipe"] is RSLAD:
        given["recipe"] = RSLAD(region=Linf(0.1), teacher=small())
    if callable(changes.get("data")):
        given["data"] = changes["data"](few if changes["data"] is Loader else [1])
    if "held_out" in changes and changes["held_out"] is None:
        given["held_out"] = few
    with pytest.raises(WithstandError, match=words) as caught:
        harden(given.pop("net"), given.pop("data"), given.pop("recipe"), **given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: PGD(region=Linf(0.1), steps=0), "steps is 0; give a whole number of at least 1"),
        (lambda: PGD(region=Linf(0.1), steps=2.5), "steps is 2.5"),  # type: ignore[arg-type]
        (lambda: PGD(region=Linf(0.1), step_size=-1.0), "step_size is -1.0"),
        (lambda: FGSM(region=Linf(0.1), step_size=-1.0), "give a share of the radius above 0"),
        (lambda: NFGSM(region=Linf(0.1), noise=-1.0), "noise is -1.0"),
        (lambda: AWP(recipe=PGD(region=Linf(0.1)), start=2.0), "start is 2.0; give a share"),
        (lambda: AWP(recipe=IBP(region=Linf(0.1))), "AWP cannot move the weights of IBP"),
        (lambda: Worst(recipes=[PGD(region=Linf(0.1)), Standard()]), "Standard crafts none"),
        (lambda: several.Average(recipes=[PGD, Standard()]), "recipe is the class PGD"),
    ],
)
def test_a_recipe_that_leads_nowhere_is_told_when_it_is_made(
    make: Callable[[], object], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        make()


@pytest.mark.parametrize("net_in", [torch.float32, torch.float64])
@pytest.mark.parametrize("data_in", [torch.float32, torch.float64])
def test_data_and_net_of_either_precision_train(
    few: Dataset, net_in: torch.dtype, data_in: torch.dtype
) -> None:
    x, y = torch.from_numpy(few.x).to(data_in), torch.from_numpy(few.y)
    loader = DataLoader(TensorDataset(x, y), batch_size=65)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).to(net_in)
    made = harden(net, loader, PGD(region=Linf(0.05), steps=2), epochs=1, held_out=few)
    assert {p.dtype for p in made.net.parameters()} == {net_in}


def test_classes_are_wanted() -> None:
    values = from_arrays(np.zeros((4, 2)), [0.5, 1.5, 2.5, 3.25])
    with pytest.raises(WithstandError, match="one class for each row"):
        harden(nn.Linear(2, 2), values, Standard(), held_out=0.5)
