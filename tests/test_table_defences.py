"""Defences of tables: augmentation, monotone constraints, training of networks, detectors."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from inferences import asked, named, refused
from processes import withstand
from serving import Running, serving
from torch import nn

from withstand import attacks, detect, harden
from withstand._errors import ConfigError, DataError, ModelError, ThreatError
from withstand.attacks import CAPGD, TableSearch
from withstand.config import TableConfig, load_config
from withstand.data import Dataset, from_arrays, table_of
from withstand.detect.evaluation import evaluate_detector
from withstand.detect.methods._table_rules import TableRules
from withstand.evaluate.calibration import calibrate_factor, read_factor
from withstand.guard.rules import Rows
from withstand.guard.serve._service import _read
from withstand.harden import Tabular, augment, directions
from withstand.harden._contract import Moment
from withstand.models import Ensemble, FunctionModel, Thresholded, TorchModel
from withstand.threat import Linf, Targeted, Threat

Array = np.ndarray[Any, Any]

TOLD = TableConfig.model_validate(
    {
        "features": {
            "amount": {"change": "decrease", "lower": 1, "upper": 1000, "step": 0.01, "cost": 1},
            "shown": {"integer": True, "lower": 0, "upper": 100, "cost": 0.1},
            "visits": {"change": "increase", "integer": True, "lower": 0, "upper": 50, "cost": 2},
            "before": {"change": "none", "integer": True, "lower": 0, "upper": 50},
            "all": {},
            "usual": {"change": "none", "lower": 1, "upper": 500},
            "ratio": {},
        },
        "derived": {"all": "visits + before", "ratio": "amount / max(usual, 1)"},
        "relations": ["visits + before <= 90"],
        "stake": "amount",
    }
)
TABLE = table_of(TOLD)
RULES = TOLD.model_dump_json(exclude_unset=True)
BUDGET = 20.0


def rows(count: int, seed: int) -> tuple[Array, Array]:
    """Frauds show more than 50, with few exceptions, and pay more than usual, with a few more."""
    draw = np.random.default_rng(seed)
    fraud = draw.random(count) < 0.3
    usual = np.round(draw.uniform(20, 100, count), 2)
    amount = np.round(usual * np.where(fraud, 2.5, 1) * draw.uniform(0.6, 1.7, count), 2)
    shown = np.where(fraud ^ (draw.random(count) < 0.005), 51, 0) + draw.integers(0, 50, count)
    visits, before = draw.integers(0, 20, (2, count))
    made = np.stack([amount, shown, visits, before, usual, usual, amount], 1).astype(np.float32)
    return TABLE.capability.derive(made).astype(np.float32), fraud.astype(np.int64)


def threat(access: Any = "scores") -> Threat:
    region = TABLE.limited(most_changed=None, most_cost=BUDGET).capability
    return Threat(region=region, goal=Targeted(0), access=access)


def logits(estimator: Any) -> FunctionModel:
    def scores(x: Array) -> Array:
        margin = np.log(np.maximum(estimator.predict_proba(x), 1e-30))
        return np.asarray(margin, np.float32)

    return FunctionModel(scores, domain=TABLE.domain)


def boosted(x: Array, y: Array, **settings: Any) -> FunctionModel:
    from sklearn.ensemble import GradientBoostingClassifier

    return logits(GradientBoostingClassifier(n_estimators=15, max_depth=3, **settings).fit(x, y))


def fooled(model: Any, x: Array, y: Array, attack: Any = None, access: Any = "scores") -> Any:
    frauds = y == 1
    return attacks.run(
        attack or TableSearch(generations=12, children=12),
        model,
        torch.from_numpy(x[frauds]),
        torch.from_numpy(y[frauds]),
        threat(access),
        seed=7,
        batch_size=500,
    )


def rate(found: Any) -> float:
    told = [one for one in found.status if one != "already wrong"]
    return float(np.mean([one == "fooled" for one in told]))


def area(model: Any, x: Array, y: Array) -> float:
    from sklearn.metrics import roc_auc_score

    scores = model.scores(torch.from_numpy(x))
    return float(roc_auc_score(y, (scores[:, 1] - scores[:, 0]).numpy()))


@pytest.fixture(scope="module")
def data() -> Dataset:
    return from_arrays(*rows(600, 0), table=TABLE)


@pytest.fixture(scope="module")
def held() -> tuple[Array, Array]:
    return rows(200, 1)


@pytest.fixture(scope="module")
def augmented(data: Dataset) -> harden.Augmented[FunctionModel]:
    return augment(
        boosted, data, threat(), rounds=2, attack=TableSearch(generations=8, children=12), limit=80
    )


def test_augmentation_halves_what_an_attack_on_the_new_model_fools(
    data: Dataset, held: tuple[Array, Array], augmented: harden.Augmented[FunctionModel]
) -> None:
    before = boosted(data.x, data.y)
    was, now = (rate(fooled(model, *held)) for model in (before, augmented.model))
    assert was > 0.6
    assert now <= was / 2
    assert area(augmented.model, *held) >= area(before, *held) - 0.01


def test_every_added_row_is_one_that_the_attacker_can_make_of_a_fraud(
    data: Dataset, augmented: harden.Augmented[FunctionModel]
) -> None:
    added = augmented.x[len(data) :]
    assert len(added) > 40
    assert (augmented.y[len(data) :] == 1).all()
    np.testing.assert_array_equal(augmented.x[: len(data)], data.x)
    region = threat().region
    frauds = data.x[data.y == 1]
    for row in added:
        origins = frauds[(frauds[:, 3] == row[3]) & (frauds[:, 5] == row[5])]
        assert region.contains(origins, np.repeat(row[None], len(origins), 0)).any()


def test_rounds_tell_what_the_attack_found(
    data: Dataset, augmented: harden.Augmented[FunctionModel]
) -> None:
    sizes = [one.rows for one in augmented.rounds]
    assert sizes == (len(data) + np.cumsum([one.fooled for one in augmented.rounds])).tolist()
    assert all(0 <= one.fooled <= one.attacked for one in augmented.rounds)
    assert augmented.rounds[0].attacked <= int((data.y == 1).sum())
    assert augmented.rounds[-1].fooling_rate < augmented.rounds[0].fooling_rate


def test_augmentation_ends_where_nothing_is_fooled(data: Dataset) -> None:
    def surely(x: Array, y: Array) -> FunctionModel:
        return FunctionModel(lambda rows: np.eye(2)[[1] * len(rows)], domain=TABLE.domain)

    found = augment(surely, data, threat(), rounds=5, attack=TableSearch(generations=1))
    assert len(found.rounds) == 1
    assert len(found.x) == len(data)


@pytest.mark.parametrize(
    ("told", "said", "kind"),
    [
        ({"rounds": 0}, "rounds is 0", ConfigError),
        ({"data": "calm"}, "no row is of a class", DataError),
        ({"fit": "estimator"}, "fit gave a dict", ModelError),
        ({"data": "values"}, "one class a row", DataError),
    ],
)
def test_what_cannot_be_augmented_is_said(
    data: Dataset, told: dict[str, Any], said: str, kind: type[Exception]
) -> None:
    calm = data.take(data.y == 0)
    values = from_arrays(data.x, data.x[:, 0], values=True)
    given = {"calm": calm, "values": values}.get(str(told.pop("data", "")), data)
    fit: Any = (lambda x, y: {}) if told.pop("fit", None) else boosted
    with pytest.raises(kind, match=said):
        augment(fit, given, threat(), **told)


def test_rows_that_break_a_rule_are_named_before_any_is_added(data: Dataset) -> None:
    x = data.x.copy()
    x[np.flatnonzero(data.y == 1)[3], 4] += 1

    def never(x: Array, y: Array) -> FunctionModel:
        raise AssertionError("it was fitted")

    with pytest.raises(DataError, match="row 3 breaks the rule 'all == visits"):
        augment(never, from_arrays(x, data.y, table=TABLE), threat())


def test_directions_follow_from_what_can_be_done() -> None:
    found = dict(zip(TABLE.columns, directions(TABLE.capability), strict=True))
    assert found == {
        "amount": -1, "shown": 0, "visits": 1, "before": 0, "all": 1, "usual": 0, "ratio": 0,
    }  # fmt: skip
    left = directions(TABLE.capability, leave=["visits", "amount"])
    assert left == (0,) * 7
    with pytest.raises(ThreatError, match="did you mean 'visits'"):
        directions(TABLE.capability, leave=["visit"])


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("visits - amount", 1),
        ("amount - visits", -1),
        ("visits + amount", 0),
        ("visits + shown", 0),
        ("3 * before", 0),
        ("visits + 3 * before", 1),
        ("visits * before", 0),
    ],
)
def test_what_is_derived_by_a_sum_has_the_direction_of_its_parts(text: str, wanted: int) -> None:
    raw = TOLD.model_dump(exclude_unset=True)
    raw["derived"] = {**raw["derived"], "all": text}
    table = table_of(TableConfig.model_validate(raw))
    assert directions(table.capability)[4] == wanted


def test_under_these_directions_the_features_of_one_way_are_no_way_in(
    data: Dataset, held: tuple[Array, Array]
) -> None:
    from sklearn.ensemble import HistGradientBoostingClassifier

    narrow = TABLE.capability
    signs = list(directions(narrow, leave=["amount"]))
    trees = HistGradientBoostingClassifier(max_iter=10, max_depth=3, monotonic_cst=signs)
    constrained = logits(trees.fit(data.x, data.y))
    x = held[0]
    more = x.copy()
    more[:, 2] = np.minimum(more[:, 2] + 9, 50)
    more = narrow.derive(more).astype(np.float32)
    before, after = (constrained.scores(torch.from_numpy(one)) for one in (x, more))
    margin = [(one[:, 1] - one[:, 0]).numpy() for one in (before, after)]
    assert (margin[1] >= margin[0] - 1e-6).all()


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(7, 16), nn.ReLU(), nn.Linear(16, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = x.new_tensor([100, 50, 10, 10, 20, 100, 1])
        return self.layers(x / scale)


def net() -> TorchModel:
    torch.manual_seed(0)
    return TorchModel(Net(), domain=TABLE.domain)


def trained(data: Dataset, recipe: Any, **told: Any) -> harden.Hardened:
    told = {"epochs": 25, "batch_size": 480, "held_out": 0.2, "optimizer": harden.adam(0.1)} | told
    return harden.harden(net(), data, recipe, **told)


@pytest.fixture(scope="module")
def tabular(data: Dataset) -> harden.Hardened:
    return trained(data, Tabular(threat=threat("gradients"), steps=2))


def test_training_on_rows_that_can_be_made_halves_what_is_fooled(
    data: Dataset, held: tuple[Array, Array], tabular: harden.Hardened
) -> None:
    plain = trained(data, harden.Standard())
    attack = CAPGD(steps=15, restarts=1)
    was, now = (rate(fooled(one.model, *held, attack, "gradients")) for one in (plain, tabular))
    assert was > 0.4
    assert now <= was / 2
    assert area(tabular.model, *held) >= area(plain.model, *held) - 0.01
    assert plain.robust is None
    assert tabular.robust is not None
    assert tabular.robust.value > 1 - was


def test_trained_points_are_rows_that_can_be_made_and_benign_ones_stay(data: Dataset) -> None:
    recipe = Tabular(threat=threat("gradients"), steps=4)
    x, y = (torch.from_numpy(one[:100]) for one in (data.x, data.y))
    at = Moment(done=0, scale=1, noise=torch.Generator().manual_seed(3), domain=TABLE.domain)
    model = net()
    points = recipe.craft(model.net, x, y, at)
    assert torch.equal(points[y == 0], x[y == 0])
    assert not torch.equal(points[y == 1], x[y == 1])
    region = threat().region
    assert region.contains(x.numpy(), points.numpy()).all()
    assert model.net.training
    assert all(one.requires_grad for one in model.net.parameters())


def test_the_loss_weighs_rows_and_their_points_as_told(data: Dataset) -> None:
    x, y = (torch.from_numpy(one[:60]) for one in (data.x, data.y))
    model = net().net.eval()

    def moment() -> Moment:
        noise = torch.Generator().manual_seed(3)
        return Moment(done=0, scale=1, noise=noise, domain=TABLE.domain)

    for clean in (0.0, 0.25):
        recipe = Tabular(threat=threat("gradients"), steps=3, clean=clean)
        points = recipe.craft(model, x, y, moment())
        lost = recipe.loss(model, x, y, moment())
        entropy = nn.functional.cross_entropy
        at, own = (entropy(model(one), y, reduction="none") for one in (points, x))
        wanted = torch.where(y == 1, (1 - clean) * at + clean * own, own).mean()
        torch.testing.assert_close(lost.loss, wanted)
        assert torch.equal(lost.scores, model(points))
    with pytest.raises(ConfigError, match="clean 1"):
        Tabular(threat=threat(), clean=1.0)


def test_an_ensemble_of_unlike_models_is_harder_to_fool_than_its_weaker_member(
    data: Dataset, held: tuple[Array, Array], tabular: harden.Hardened
) -> None:
    trees = boosted(data.x, data.y)
    both = Ensemble([trees, tabular.model])
    alone, together = (rate(fooled(model, *held)) for model in (trees, both))
    assert both.access == "scores"
    assert together < alone
    found = fooled(both, *held)
    frauds = held[0][held[1] == 1]
    assert threat().region.contains(frauds, found.x_adv.numpy()).all()


def test_a_threshold_stays_in_force_while_rows_are_added(data: Dataset) -> None:
    seen = []

    def fit(x: Array, y: Array) -> Thresholded:
        seen.append(len(x))
        return Thresholded(boosted(x, y), 0.99)

    brief = TableSearch(generations=1, children=4)
    found = augment(fit, data, threat(), rounds=1, attack=brief)
    strict = augment(boosted, data, threat(), rounds=1, attack=brief)
    assert seen[0] == len(data)
    assert found.rounds[0].attacked < strict.rounds[0].attacked


def rule_scores(x: Array) -> Array:
    benign = torch.from_numpy(rows(200, 5)[0])
    fitted = detect.fit(TableRules(rules=RULES), logits(None), benign)
    return fitted.score(torch.from_numpy(x)).numpy()


@pytest.mark.parametrize(
    ("column", "value"),
    [
        (0, 0.5),  # below its range
        (1, 3.5),  # no whole number
        (0, 99.999),  # off its grid
        (4, 0.0),  # not the sum that it is
        (6, 2.0),  # not the ratio that it is
    ],
)
def test_a_forged_row_scores_and_a_valid_one_does_not(column: int, value: float) -> None:
    valid = rows(50, 6)[0]
    assert (rule_scores(valid) == 0).all()
    forged = valid.copy()
    forged[:, column] = value
    assert (rule_scores(forged) >= 1).all()


def test_more_broken_rules_score_more_and_a_worse_one_a_little_more() -> None:
    row = rows(1, 6)[0]
    row[0, 2:4] = 46, 46
    row = TABLE.capability.derive(row).astype(np.float32)
    once = rule_scores(row)
    worse = row.copy()
    worse[0, 2:4] = 50, 50
    worse = TABLE.capability.derive(worse).astype(np.float32)
    twice = worse.copy()
    twice[0, 1] = 3.5
    scores = [float(one[0]) for one in (once, rule_scores(worse), rule_scores(twice))]
    assert 1 < scores[0] < scores[1] < 2 < scores[2] < 3


def test_an_attacker_who_keeps_the_rules_is_not_seen_and_a_naive_one_is(
    data: Dataset, held: tuple[Array, Array]
) -> None:
    model = boosted(data.x, data.y)
    detector = detect.fit(TableRules(rules=RULES), model, torch.from_numpy(data.x[data.y == 0]))
    detector = detector.calibrate(torch.from_numpy(rows(800, 9)[0]), fpr=0.01)
    adaptive = fooled(model, *held)
    assert adaptive.success.any()
    assert not detector.flags(adaptive.x_adv).any()
    frauds = torch.from_numpy(held[0][held[1] == 1])
    blind = attacks.run(
        attacks.Square(queries=50),
        model,
        frauds,
        torch.ones(len(frauds), dtype=torch.long),
        Threat(region=Linf(30.0), goal=Targeted(0), access="scores"),
        seed=0,
    )
    changed = (blind.x_adv != frauds).any(1)
    assert changed.sum() > 20
    assert detector.flags(blind.x_adv[changed]).all()


def test_rules_travel_with_the_detector_and_wrong_ones_are_refused(tmp_path: Path) -> None:
    model, benign = logits(None), torch.from_numpy(rows(200, 5)[0])
    kept = detect.fit(TableRules(rules=RULES), model, benign)
    kept.save(tmp_path)
    again = detect.load(tmp_path, model)
    forged = benign.clone()
    forged[:, 1] = 0.5
    assert torch.equal(again.score(forged), kept.score(forged))
    with pytest.raises(ValueError, match="features"):
        TableRules(rules=json.dumps({"feature": {}}))
    with pytest.raises(DataError, match="6 columns and the rules 7"):
        detect.fit(TableRules(rules=RULES), model, benign[:, :6])


def campaign(seed: int, factor: float) -> tuple[Array, Array, Array, Array]:
    """Cards with habits of their own, whose frauds cost so many times as much."""
    draw = np.random.default_rng(seed)
    usual = draw.uniform(5, 100, 60)
    own, bad = np.repeat(np.arange(60), 25), draw.integers(0, 60, 200)
    spent = [np.abs(draw.normal(usual[who], usual[who] / 3)) + 0.01 for who in (own, bad)]
    return spent[0], own, factor * spent[1], bad


def test_the_factor_is_found_and_the_control_is_one() -> None:
    hits = [
        (told.factor.low <= 5 <= told.factor.high, told.sound)
        for told in (calibrate_factor(*campaign(seed, 5.0), seed=seed) for seed in range(8))
    ]
    assert np.sum(hits, 0).min() >= 6
    one = calibrate_factor(*campaign(0, 5.0))
    assert 4.5 < one.factor.value < 5.5
    assert one.factor.high - one.factor.low < 1.2


def test_the_factor_follows_the_values_and_not_their_unit() -> None:
    own, who, bad, whose = campaign(3, 4.0)
    told = calibrate_factor(own, who, bad, whose)
    scaled = calibrate_factor(own * 7, who, bad * 7, whose)
    doubled = calibrate_factor(own, who, 2 * bad, whose)
    assert scaled.factor.value == pytest.approx(told.factor.value)
    assert doubled.factor.low == pytest.approx(2 * told.factor.low)
    assert doubled.control == told.control


def test_rows_of_one_account_do_not_count_as_many() -> None:
    own, who, bad, whose = campaign(4, 5.0)
    once = calibrate_factor(own, who, bad, whose)
    copied = calibrate_factor(own, who, np.repeat(bad, 20), np.repeat(whose, 20))
    width = [one.factor.high - one.factor.low for one in (once, copied)]
    assert width[1] > 0.8 * width[0]


def test_a_control_that_is_not_one_is_said() -> None:
    own, who, bad, whose = campaign(5, 5.0)
    assert calibrate_factor(own, who, bad, whose).notes == ()
    # The accounts themselves spend more from month to month.
    told = calibrate_factor(own * (1 + np.arange(len(own)) % 25 / 10), who, bad, whose)
    assert not told.sound
    assert any("the control is not 1" in note for note in told.notes)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((np.ones(60), np.arange(60) % 6, np.ones(6), np.arange(6)), "6 accounts"),
        ((np.ones(4), np.zeros(4), np.array([0.0]), np.zeros(1)), "value in row 0 is 0"),
        ((np.ones(4), np.zeros(3), np.ones(1), np.zeros(1)), "4 benign values for 3"),
        ((np.array(["a"]), np.zeros(1), np.ones(1), np.zeros(1)), "a factor is for numbers"),
    ],
)
def test_what_has_no_factor_is_said(given: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        calibrate_factor(*given)


def test_the_guard_lets_valid_rows_pass_and_refuses_others_without_the_rule() -> None:
    rule = Rows(capabilities={"x": TABLE.capability})
    x = rows(3, 6)[0]
    request = asked(named(x), named([[1.0]], "other"))
    assert rule(request) is request
    forged = x.copy()
    forged[1, 6] = 9
    with pytest.raises(Exception, match="row 1 of input 'x'") as caught:
        rule(asked(named(forged)))
    assert "ratio" not in str(caught.value)
    refused(rule, asked(named(x[:, :6])), "rows of 7 columns")
    refused(rule, asked(named(x[0])), "rows of 7 columns")
    exact = x.astype(np.float64)
    rule(asked(named(exact, datatype="FP64")))
    refused(Rows(capabilities={"": TABLE.capability}), asked(named(forged, "instances")), "row 1")


def test_a_guard_with_a_table_refuses_forged_rows_on_its_way(tmp_path: Path) -> None:
    (tmp_path / "table.yaml").write_text(RULES)
    x = {"name": "x", "datatype": "FP32", "shape": [-1, 7], "table": "table.yaml"}
    valid = rows(1, 6)[0].tolist()
    forged = [[*valid[0][:6], 9.0]]

    async def work(guard: Running) -> tuple[int, int, float]:
        first, second = await guard.infer(valid), await guard.infer(forged)
        return first.status, second.status, guard.refused("table")

    assert serving(tmp_path, work, models={"m": {"inputs": [x]}}) == (200, 400, 1.0)


def test_a_guards_policy_is_what_its_table_says_too(tmp_path: Path) -> None:
    table, config = tmp_path / "table.yaml", tmp_path / "withstand.yaml"
    config.write_text(
        "guard:\n  upstream: http://127.0.0.1:1\n  keys: keys.json\n  models:\n    m:\n"
        "      inputs: [{name: x, datatype: FP32, shape: [-1, 7], table: table.yaml}]\n"
    )
    told = []
    for rules in (RULES, RULES + "\n", json.dumps({**json.loads(RULES), "most_changed": 2})):
        table.write_text(rules)
        told.append(_read(config)[1])
    assert told[0] == told[1] != told[2]
    table.unlink()
    with pytest.raises(ConfigError, match=r"table\.yaml not found"):
        _read(config)


def test_a_detector_of_tables_meets_an_attack_that_knows_of_it_too(data: Dataset) -> None:
    model, benign = boosted(data.x, data.y), torch.from_numpy(rows(300, 5)[0])
    rare = detect.FeatureAnomaly()
    detector = detect.fit(rare, model, benign[:100]).calibrate(benign[100:], fpr=0.05)
    test = from_arrays(*rows(60, 11), table=TABLE)
    report = evaluate_detector(detector, test, threat(), preset="smoke", samples=60)
    unaware, aware = (report.at(7.0, knows=knows) for knows in (False, True))
    assert unaware is not None
    assert aware is not None
    assert aware.fooled.value > 0.2
    # Who knows of it is flagged no more often.
    assert aware.usr.value >= unaware.usr.value
    assert {one.name for one in report.rows} == {"TableSearch"}
    assert "tiny change" not in [one.check for one in report.trust.findings]


def test_the_command_line_finds_the_factor(tmp_path: Path) -> None:
    own, who, bad, whose = campaign(6, 5.0)
    for name, columns in (("own", (own, who)), ("leaked", (bad, whose))):
        lines = [f"{amount},{card}" for amount, card in zip(*columns, strict=True)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["amount,card", *lines]))
    files = ("--benign", "own.csv", "--suspected", "leaked.csv")
    told = withstand(
        "calibrate", *files, "--factor", "amount", "--by", "card", "--json", folder=tmp_path
    )
    assert told.returncode == 0, told.stderr
    found = json.loads(told.stdout)
    assert found["factor"]["low"] <= 5 <= found["factor"]["high"]
    assert found["sound"]
    for words, said in (
        (("--factor", "amount"), "--by is missing"),
        (("--factor", "amuont", "--by", "card"), "did you mean 'amount'"),
        (("--factor", "amount", "--by", "card", "--write"), "take the others out"),
    ):
        refused_ = withstand("calibrate", *files, *words, folder=tmp_path)
        assert refused_.returncode == 2
        assert said in " ".join(refused_.stderr.split())


def test_accounts_are_told_apart_as_they_are_written(tmp_path: Path) -> None:
    pandas: Any = pytest.importorskip("pandas")
    (tmp_path / "own.csv").write_text("amount,card\n1.5,007\n2,7\n3,1e3\n")
    pandas.DataFrame({"amount": [4.0, 5.0], "card": [7, 1000]}).to_parquet(tmp_path / "bad.parquet")
    files = tmp_path / "own.csv", tmp_path / "bad.parquet"
    own, who, bad, whose = read_factor(*files, "amount", "card")
    assert (own.tolist(), who.tolist()) == ([1.5, 2, 3], ["007", "7", "1e3"])
    assert (bad.tolist(), whose.tolist()) == ([4, 5], ["7", "1000"])
    (tmp_path / "own.csv").write_text("amount,card\n1.5,007\n2,\n")
    with pytest.raises(DataError, match=r"own\.csv has no card in row 1; fill it in"):
        read_factor(*files, "amount", "card")


def test_a_network_is_hardened_as_its_file_says(tmp_path: Path) -> None:
    (tmp_path / "table.yaml").write_text(RULES)
    x, fraud = rows(120, 8)
    columns = TABLE.decode(x)
    lines = [
        ",".join([*map(str, row), str(label)])
        for *row, label in zip(*columns.values(), fraud, strict=True)
    ]
    (tmp_path / "rows.csv").write_text("\n".join([",".join([*columns, "fraud"]), *lines]))
    (tmp_path / "net.py").write_text(
        "import torch\n\ndef build():\n    return torch.nn.Linear(7, 2)\n"
    )
    source = {"kind": "csv", "path": "rows.csv", "y": "fraud", "table": "table.yaml"}
    told = {
        "model": {"kind": "torch", "factory": "net.py:build"},
        "data": source,
        "threat": {"goal": "targeted", "target": 0, "region": {"most_cost": 20}},
        "harden": {"recipe": "tabular", "steps": 1, "epochs": 2, "held_out": 0.2, "data": source},
    }
    file = tmp_path / "withstand.yaml"
    file.write_text(json.dumps(told))
    done = harden.run_config(load_config(file), tmp_path, tmp_path, evaluated=False)[0]
    assert isinstance(done, harden.Hardened)
    assert done.robust is not None
    assert "Tabular" in done.recipe
    told["harden"] |= {"recipe": "pgd"}  # type: ignore[operator]
    file.write_text(json.dumps(told))
    with pytest.raises(ConfigError, match=r"harden.recipe is pgd and data has a table"):
        harden.from_config(load_config(file), tmp_path)
    told["harden"] |= {"recipe": "tabular"}  # type: ignore[operator]
    file.write_text(json.dumps(told))
    broken = (tmp_path / "rows.csv").read_text().splitlines()
    place = broken[0].split(",").index("all")
    cells = broken[5].split(",")
    broken[5] = ",".join([*cells[:place], "99", *cells[place + 1 :]])
    (tmp_path / "rows.csv").write_text("\n".join(broken))
    with pytest.raises(DataError, match=r"row 4 breaks the rule 'all == visits \+ before'"):
        harden.from_config(load_config(file), tmp_path)


def test_the_guard_looks_at_columns_in_the_tables_order_only() -> None:
    rule = Rows(capabilities={"x": TABLE.capability})
    x, names = rows(1, 6)[0], [one.name for one in TABLE.capability.features]
    there = named(x)
    fitting = replace(there, parameters={"columns": names})
    assert rule(asked(fitting))
    swapped = replace(there, parameters={"columns": names[::-1]})
    refused(rule, asked(swapped), "name the columns in order")


def test_a_probability_at_the_threshold_is_of_class_1() -> None:
    table = np.array([[0.7, 0.3], [0.69, 0.31], [0.71, 0.29]])
    model = FunctionModel(lambda x: np.log(table[: len(x)]), returns="scores")
    assert Thresholded(model, 0.3).labels(torch.zeros(3, 1)).tolist() == [1, 1, 0]
    half = FunctionModel(lambda x: np.log(np.full((len(x), 2), 0.5)), returns="scores")
    assert Thresholded(half, 0.5).labels(torch.zeros(2, 1)).tolist() == [1, 1]
