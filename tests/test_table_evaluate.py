"""An evaluation of a model of tables: what is tried at which access, and what comes out of it."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from tables import capability, linear, plain, rows
from torch import nn

from withstand import WithstandError
from withstand.data import from_arrays
from withstand.evaluate import Report, check_clean, evaluate
from withstand.models import FunctionModel, TorchModel, trees_model
from withstand.threat import Box, Linf, Region, Threat, Untargeted

X = rows(24)
WEIGHTS = np.array([-0.01, -0.05, 0.3, -0.02, 0.5, -0.5, -0.01, 0.0])
WEIGHTS[-1] = -np.median(X @ WEIGHTS[:-1])
ON_IMAGES = {"RandomNoise", "FGSM", "PGD", "APGD", "APGDT", "FAB", "SigmaZero", "Square", "RayS"}


@cache
def network() -> TorchModel:
    """The linear model as a network, over features from 1 to 1,000."""
    net = nn.Linear(7, 2)
    with torch.no_grad():
        net.weight.copy_(torch.from_numpy(np.stack([0 * WEIGHTS[:-1], WEIGHTS[:-1]])))
        net.bias.copy_(torch.tensor([0.0, WEIGHTS[-1]]))
    return TorchModel(net, domain=(-1e6, 1e6))


def evaluated(model: Any, region: Region, access: str = "gradients", **told: Any) -> Report:
    y = linear(WEIGHTS).labels(torch.from_numpy(X)).numpy()
    threat = Threat(region=region, access=access, queries=told.pop("queries", None))
    return evaluate(model, from_arrays(X, y), threat, preset="smoke", **told)


def checked(report: Report, asked: Any) -> list[str]:
    """The stages' names; every example is what the rules allow, in plain Python."""
    fooled = np.array([one == "fooled" for one in report.samples.status])
    assert fooled.sum() >= 5
    for before, after in zip(X[fooled], report.x_adv[fooled], strict=True):
        assert plain(before, after, asked.most_changed, asked.most_cost)
    np.testing.assert_array_equal(report.x_adv[~fooled], X[~fooled])
    names = [stage.name for stage in report.attacks]
    assert not ON_IMAGES & set(names)
    assert report.curve == ()
    return names


def test_with_gradients_come_first_and_then_scores_and_what_fools_becomes_cheaper() -> None:
    asked = capability(most_changed=2, most_cost=6.0)
    report = evaluated(network(), asked)
    names = checked(report, asked)
    assert names[:2] == ["CAPGD", "TableSearch"]
    assert names[-1] == "TableWalk"
    verdicts = {one.check: one.verdict for one in report.trust.findings}
    # Moves are in each feature's own units: 10 of 1,000 are little, and 10 of 1 are not.
    assert verdicts["gradient fidelity"] == "green"
    assert "unstable loss" not in verdicts
    assert verdicts["zero gradients"] == verdicts["outside the region"] == "green"
    fooled = np.array([one == "fooled" for one in report.samples.status])
    wide = [one[fooled].astype(float) for one in (X, report.x_adv)]
    for place in range(4):
        back = wide[1].copy()
        back[:, place] = wide[0][:, place]
        back = asked.derive(back.astype(np.float32)).astype(np.float32)
        moved = wide[1][:, place] != wide[0][:, place]
        others = (wide[1][:, :6] != wide[0][:, :6]).sum(1) > 1
        possible = asked.contains(wide[0], back) & moved & others
        answer = network().labels(torch.from_numpy(back[possible])).numpy()
        label = report.samples.label[fooled][possible]
        assert (answer == label).all(), "a feature was changed for nothing"


def test_a_ball_beside_the_rules_changes_neither_attacks_nor_findings() -> None:
    asked = capability()
    report = evaluated(network(), Linf(300.0) & asked)
    names = checked(report, asked)
    assert names[0] == "CAPGD"
    told = {one.check for one in report.trust.findings}
    assert not {"implausible robustness", "boundary distortion", "curve plateau"} & told


@pytest.mark.parametrize("access", ["scores", "labels", "none"])
def test_less_access_leaves_what_it_allows(access: str) -> None:
    asked = capability()
    victim = linear(WEIGHTS)
    report = evaluated(victim, asked, access, surrogates=[network()], queries=400)
    names = checked(report, asked)
    assert report.attacks[0].source == "Linear"
    assert report.attacks[0].fooled > 0
    known = [stage.settings["cuts"] for stage in report.attacks if "cuts" in stage.settings]
    assert known == [None] * len(known)
    wanted = {
        "scores": ["CAPGD", "TableSearch", "TableSearch", "TableWalk"],
        "labels": ["CAPGD", "TableWalk", "TableWalk"],
        "none": ["CAPGD"],
    }
    assert [name.rpartition("(")[2].rstrip(")") for name in names] == wanted[access]
    assert int(report.samples.forwards.max()) <= 400


@pytest.mark.slow
def test_whoever_sees_all_of_a_forest_knows_its_cuts() -> None:
    library = pytest.importorskip("xgboost")
    y = linear(WEIGHTS).labels(torch.from_numpy(X)).numpy()
    trees = library.XGBClassifier(n_estimators=8, max_depth=3, n_jobs=1).fit(X, y)
    model = trees_model(trees, domain=Box(-1e6, 1e6))
    asked = capability()
    report = evaluated(model, asked)
    checked(report, asked)
    assert report.attacks[0].settings["cuts"].startswith("Cuts(")
    assert report.attacks[0].settings["donors"].startswith("Donors(24 rows, ")
    assert len(report.to_json()) < 60_000


def test_the_same_call_goes_on_after_an_interruption(tmp_path: Any) -> None:
    asked, calls = capability(), [0]

    def scores(rows: Any) -> Any:
        calls[0] += 1
        if calls[0] == limit:
            raise KeyboardInterrupt
        return linear(WEIGHTS).function(rows)

    limit = -1
    whole = evaluated(FunctionModel(scores, domain=Box(-1e6, 1e6)), asked, "scores")
    total = calls[0]
    for limit in (total // 2, total - 3):
        calls[0], path = 0, tmp_path / str(limit)
        with pytest.raises(KeyboardInterrupt):
            evaluated(
                FunctionModel(scores, domain=Box(-1e6, 1e6)), asked, "scores", checkpoint=path
            )
        calls[0], limit = 0, -1
        again = evaluated(
            FunctionModel(scores, domain=Box(-1e6, 1e6)), asked, "scores", checkpoint=path
        )
        np.testing.assert_array_equal(again.x_adv, whole.x_adv)
        assert again.samples.forwards.tolist() == whole.samples.forwards.tolist()


def test_of_one_class_alone_few_may_be_found() -> None:
    answers = torch.tensor([1] * 30 + [0] * 70)
    scores = torch.nn.functional.one_hot(answers, 2).float()
    check_clean(Untargeted(), scores, answers, torch.ones(100, dtype=torch.long), 2)
    for labels in (1 - answers, torch.arange(100) % 2):
        with pytest.raises(WithstandError, match=r"chance is 50\.0 %"):
            check_clean(Untargeted(), scores, answers, labels, 2)
