"""Defences side by side: what each adds to one model, and what it costs."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from withstand import WithstandError, workflows
from withstand.attacks import Spatial
from withstand.certify import Bounds, Smoothing, certify
from withstand.cli._main import app
from withstand.config import load_config
from withstand.data import from_arrays
from withstand.evaluate import evaluate
from withstand.models import Defended, TorchModel, describe, input_transform
from withstand.stats import Interval, paired_difference
from withstand.testing import planted
from withstand.threat import L0, L1, L2, Box, Linf, Threat
from withstand.workflows import (
    Comparison,
    Entry,
    compare,
    compare_setup,
    comparison_page,
    diversity,
    save_comparison,
    show_comparison,
    unseen_by,
)

THREAT = Threat(region=Linf(0.1))
CONFIG = """
model: {kind: torch, factory: model.py:build, weights: weights.pt, domain: [0, 1]}
data: {kind: sklearn, name: digits, limit: 4}
threat: {region: {norm: linf, eps: 0.1}}
evaluate: {preset: smoke}
compare:
  - {name: squeezed, defences: [{name: bit_depth, bits: 4}]}
"""
MODEL = """
from torch import nn

def build():
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(128, 10)
    )
"""


@pytest.fixture(scope="module")
def entries(digits: Any) -> dict[str, Entry]:
    step = input_transform("bit_depth", {"bits": 4})
    squeezed = Defended(members=digits.model, transforms={"bits": step}).model
    return {
        "[bold]undefended": Entry(model=digits.model, training_cost=1.0),
        "squeezed": Entry(model=squeezed, training_cost=1.0),
    }


@pytest.fixture(scope="module")
def found(digits: Any, entries: dict[str, Entry]) -> Comparison:
    columns = unseen_by(THREAT, digits.data, Box(0.0, 1.0))
    few = {
        "L2 <= 0.2": columns["L2 <= 0.2"],
        "spatial": replace(columns["spatial"], attack=Spatial(angles=3, shifts=3)),
    }
    return compare(entries, digits.data.head(12), THREAT, preset="smoke", unseen=few)


def test_each_entry_has_the_figures_of_its_own_evaluation(
    digits: Any, entries: dict[str, Entry], found: Comparison
) -> None:
    first, squeezed = found.rows
    data = digits.data.head(12)
    alone = evaluate(entries["squeezed"].model, data, THREAT, preset="smoke")
    assert squeezed.report.robust_accuracy == alone.robust_accuracy
    assert (first.adaptive, squeezed.adaptive) == (None, True)
    assert (first.masking, squeezed.masking) == (False, True)
    assert first.clean_gain is None
    assert (first.inference_cost, first.training_cost) == (1.0, 1.0)
    assert squeezed.inference_cost is not None
    assert squeezed.inference_cost > 0
    robust = [
        np.isin(row.report.samples.status, ("withstood", "budget spent")) for row in found.rows
    ]
    more, fewer = int((robust[1] & ~robust[0]).sum()), int((robust[0] & ~robust[1]).sum())
    assert squeezed.robust_gain == paired_difference(more, fewer, 12, 0.95)


def test_unseen_attacks_are_another_norm_and_other_families(digits: Any, found: Comparison) -> None:
    row = found.rows[0]
    under = evaluate(
        digits.model, digits.data.head(12), Threat(region=L2(0.2)), preset="smoke"
    ).robust_accuracy
    assert row.unseen["L2 <= 0.2"] == under
    turned = row.unseen["spatial"]
    assert turned is not None
    assert turned.n == 12
    assert turned.value < row.report.clean_accuracy.value


@pytest.mark.parametrize(
    ("region", "shape", "columns"),
    [
        (Linf(0.3), (1, 28, 28), ["L2 <= 2.1", "spatial", "patch"]),
        (Linf(8 / 255), (3, 32, 32), ["L2 <= 0.43", "spatial", "patch"]),
        (L2(2), (1, 28, 28), ["Linf <= 0.29", "spatial", "patch"]),
        (L1(10), (1, 28, 28), ["L2 <= 2", "spatial", "patch"]),
        (L0(16), (20,), ["L2 <= 1"]),
        (Linf(np.inf), (20,), []),
    ],
)
def test_radii_of_the_other_norm_are_the_usual_ones(
    region: Any, shape: tuple[int, ...], columns: list[str]
) -> None:
    data = from_arrays(np.zeros((2, *shape), np.float32), np.arange(2))
    assert list(unseen_by(Threat(region=region), data, Box(0.0, 1.0))) == columns


def test_the_page_and_the_console_say_it(found: Comparison, tmp_path: Path) -> None:
    text = io.StringIO()
    show_comparison(found, Console(file=text, width=150))
    html = comparison_page(found)
    for told in (text.getvalue(), html):
        assert "[bold]undefended" in told
        assert "masking" in told
        assert "upper bound" in told
        assert "spatial: turns of up to 30 degrees" in told
        assert "no entry is shown to withstand more" in told or "withstands most" in told
    assert "certified, at least" not in html
    assert "://" not in html
    assert "<script" not in html
    assert html.count("<circle") == 4 + 2 * (html.count("<svg") - 2)
    files = save_comparison(found, tmp_path)
    told = json.loads(files[0].read_text())
    assert told["schema"] == "urn:withstand:comparison:1"
    assert told["entries"][0]["robust_gain"] is None
    assert told["entries"][1]["masking"] is True
    assert told["entries"][1]["certified_accuracy"] is None
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "comparison.html",
        "comparison.json",
    ]


@pytest.mark.parametrize("width", [60, 80])
def test_nothing_is_cut_on_a_narrow_console(found: Comparison, width: int) -> None:
    proven = Interval(value=0.25, low=0.1, high=0.4, n=12)
    first, other = (
        replace(row, report=replace(row.report, certified_accuracy=proven)) for row in found.rows
    )
    text = io.StringIO()
    shown = replace(found, rows=(first, replace(other, name="squeezed as far as it goes")))
    show_comparison(shown, Console(file=text, width=width))
    table, _, _ = text.getvalue().partition("\nOn 12 inputs")
    assert "…" not in table
    for word in ("clean", "robust,", "points", "certified,", "trust", "training", "inference"):
        assert word in table.split()
    assert table.split().count("unseen:") == 2
    assert "L2 <= 0.2" in table
    assert max(len(line) for line in text.getvalue().splitlines()) <= width
    assert table.count("[bold]undefended") >= 2


def test_what_was_not_adaptively_evaluated_is_no_claim(
    digits: Any, entries: dict[str, Entry]
) -> None:
    data, black = digits.data.head(3), replace(THREAT, access="scores")
    found = compare(entries, data, black, preset="smoke", unseen={})
    assert found.rows[1].adaptive is False
    text = io.StringIO()
    show_comparison(found, Console(file=text, width=150))
    assert "squeezed was not adaptively evaluated" in text.getvalue()
    assert "withstands most" not in text.getvalue()
    assert 'stroke-dasharray="3 3"' in comparison_page(found)


def test_a_headline_of_what_masks_says_that_it_masks(found: Comparison) -> None:
    first, other = found.rows
    gain = Interval(value=0.2, low=0.1, high=0.3, n=12)
    text = io.StringIO()
    shown = replace(found, rows=(first, replace(other, robust_gain=gain)))
    show_comparison(shown, Console(file=text, width=200))
    headline = text.getvalue().splitlines()[0]
    assert "squeezed withstands most" in headline
    assert headline.endswith("It masks the gradient, so that more may fall to stronger attacks.")


def test_certified_accuracy_has_a_column_and_is_none_where_nothing_is(found: Comparison) -> None:
    first, other = found.rows
    proven = Interval(value=0.25, low=0.1, high=0.4, n=12)
    certified = replace(first, report=replace(first.report, certified_accuracy=proven))
    shown = replace(found, rows=(certified, other))
    told = shown.to_dict()["entries"]
    assert told[0]["certified_accuracy"]["value"] == 0.25
    assert told[1]["certified_accuracy"] is None
    assert "25.0" in comparison_page(shown)


def test_entries_are_certified_where_that_is_asked_for(
    digits: Any, entries: dict[str, Entry], tmp_path: Path
) -> None:
    data, small = digits.data.head(6), Threat(region=Linf(0.01))
    given: dict[str, Any] = {"preset": "smoke", "unseen": {}, "checkpoint": tmp_path / "done"}
    given["method"] = Bounds(bound="ibp")
    first, squeezed = compare(entries, data, small, **given).rows
    proven = certify(digits.model, data, small, given["method"]).certified_accuracy
    assert first.report.certified_accuracy == proven
    assert proven.value > 0
    assert first.not_certified is None
    told = squeezed.to_dict()
    assert told["certified_accuracy"] is None
    assert "cannot be traced" in told["not_certified"]
    given["method"] = Smoothing(sigma=0.25, draws=500)
    shown = compare(entries, data, small, **given)
    assert ["SmoothedClassifier" in str(row.not_certified) for row in shown.rows] == [True, True]
    assert "squeezed was not certified: smoothing" in comparison_page(shown)
    assert "certified, at least" in comparison_page(shown)


def test_it_goes_on_behind_what_was_done(
    digits: Any,
    entries: dict[str, Entry],
    found: Comparison,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, done = tmp_path / "done", []
    known = {
        id(entry.model): row.report for entry, row in zip(entries.values(), found.rows, strict=True)
    }

    def counted(model: Any, *args: Any, **kwargs: Any) -> Any:
        done.append(kwargs["checkpoint"])
        if len(done) == 2:
            raise KeyboardInterrupt
        return known[id(model)]

    monkeypatch.setattr("withstand.workflows._compare.evaluate", counted)
    given: dict[str, Any] = {"preset": "smoke", "unseen": {}, "checkpoint": folder}
    data = digits.data.head(12)
    with pytest.raises(KeyboardInterrupt):
        compare(entries, data, THREAT, **given)
    assert len(list(folder.iterdir())) == 1
    resumed = compare(entries, data, THREAT, **given)
    # The one that was interrupted had a file of its own to go on from.
    assert done[1] == done[2] != done[0]
    assert not folder.exists()
    for again, once in zip(resumed.rows, found.rows, strict=True):
        assert again.report.to_dict() == once.report.to_dict()
        assert again.robust_gain == once.robust_gain


def test_reports_of_other_data_are_not_compared(digits: Any, found: Comparison) -> None:
    provenance = {**found.first.provenance, "data": {"digest": "another"}}
    other = replace(found.first, provenance=provenance)
    with pytest.raises(WithstandError, match="other data"):
        Comparison.of({"one": found.first, "two": other})
    with pytest.raises(WithstandError, match="0 entries"):
        compare({}, digits.data, THREAT)


def test_the_command_writes_both_files(
    digits: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("withstand.workflows._compare.unseen_by", lambda *args: {})
    (tmp_path / "model.py").write_text(MODEL)
    torch.save(digits.net.state_dict(), tmp_path / "weights.pt")
    config = tmp_path / "withstand.yaml"
    config.write_text(CONFIG + "certify: {method: bounds}\n")
    done = CliRunner().invoke(app, ["compare", "--config", str(config), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["entries"][0]["certified_accuracy"]["n"] == 4
    told = json.loads(done.stdout)
    assert [entry["name"] for entry in told["entries"]] == ["undefended", "squeezed"]
    names = sorted(file.name for file in (tmp_path / "withstand-compare").iterdir())
    assert names == ["comparison.html", "comparison.json"]
    assert "written" in done.stderr
    assert told["transfer"] is None
    words = ["compare", "--config", str(config), "--transfer", "--no-unseen"]
    asked = CliRunner().invoke(app, words)
    assert asked.exit_code == 0, asked.output
    assert "shown to squeezed" in asked.stdout
    told = json.loads((tmp_path / "withstand-compare" / "comparison.json").read_text())
    assert set(told["transfer"]["rates"]) == {"undefended", "squeezed"}
    assert "Who fools whom" in (tmp_path / "withstand-compare" / "comparison.html").read_text()


def test_entries_are_models_ensembles_and_defences(digits: Any, tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(MODEL)
    torch.save(digits.net.state_dict(), tmp_path / "weights.pt")
    config, model = tmp_path / "withstand.yaml", "{kind: torch, factory: model.py:build}"
    config.write_text(
        CONFIG
        + f"""
  - {{model: {model}, training_cost: 2.1}}
  - {{members: [{model}, {model}], combine: vote}}
  - {{defences: [{{name: median}}, {{name: jpeg, quality: 90}}]}}
  - {{defences: [{{name: median}}, {{name: jpeg, quality: 90}}]}}
"""
    )
    found = compare_setup(load_config(config), tmp_path).entries
    assert list(found) == [
        "undefended",
        "squeezed",
        "model.py:build",
        "vote of 2",
        "median + jpeg 90",
        "median + jpeg 90 (2)",
    ]
    assert [entry.training_cost for entry in found.values()] == [None, None, 2.1] + 3 * [None]
    cost = {"factor": 3.5, "seconds": 7.0, "standard_seconds": 2.0, "passes": 4.0}
    content = {"provenance": {"after": describe(digits.model)}, "cost": cost}
    (tmp_path / "harden.json").write_text(json.dumps(content))
    weighed = "{kind: torch, factory: model.py:build, weights: weights.pt}"
    config.write_text(
        CONFIG
        + f"""
  - {{model: {weighed}}}
  - {{members: [{weighed}, {weighed}]}}
  - {{members: [{weighed}, {model}]}}
  - {{model: {model}}}
"""
    )
    entries = compare_setup(load_config(config), tmp_path).entries
    assert {name: entry.training_cost for name, entry in entries.items()} == {
        "hardened": 3.5,
        "squeezed": 3.5,
        "weights.pt": 3.5,
        "probabilities of 2": 7.0,
        "probabilities of 2 (2)": None,
        "model.py:build": None,
    }
    # Of other weights it says nothing.
    content["provenance"]["after"]["digest"] = "0" * 64
    (tmp_path / "harden.json").write_text(json.dumps(content))
    entries = compare_setup(load_config(config), tmp_path).entries
    assert {entry.training_cost for entry in entries.values()} == {None}
    assert "undefended" in entries
    config.write_text(CONFIG.partition("compare:")[0])
    with pytest.raises(WithstandError, match="compare has 0 entries"):
        compare_setup(load_config(config), tmp_path)
    for wrong, words in (
        (f"{{model: {model}, members: [{model}]}}", "both given"),
        ("{name: nothing}", "give at least one"),
        ("{defences: [{name: jpeg, bits: 4}]}", "bits is only for bit_depth"),
    ):
        config.write_text(CONFIG + f"  - {wrong}\n")
        with pytest.raises(WithstandError, match=words):
            load_config(config)


ESTIMATORS = """
import numpy as np
from sklearn.linear_model import LogisticRegression

rng = np.random.default_rng(0)
Y = rng.choice([1, 2, 4], 90)
X = (rng.random((90, 2)) + Y[:, None]) / 5


def build():
    return LogisticRegression(C=100).fit(X, Y)


def places():
    return LogisticRegression(C=100).fit(X, np.searchsorted([1, 2, 4], Y))


def fewer():
    return LogisticRegression(C=100).fit(X[Y < 4], Y[Y < 4])
"""


def _of_estimators(folder: Path, *factories: str) -> Path:
    """A configuration whose labels are 1, 2 and 4; the first factory makes the file's model."""
    (folder / "estimators.py").write_text(ESTIMATORS)
    space: dict[str, Any] = {}
    exec(ESTIMATORS, space)
    np.savez(folder / "rows.npz", x=space["X"].astype(np.float32), y=space["Y"])
    model, *others = (f"{{kind: sklearn, factory: estimators.py:{name}}}" for name in factories)
    lines = "".join(f"  - {{model: {other}}}\n" for other in others)
    config = folder / "withstand.yaml"
    config.write_text(
        f"model: {model}\ndata: {{kind: npz, path: rows.npz, x: x, y: y}}\n"
        "threat: {region: {norm: linf, eps: 0.1}}\n"
        f"compare:\n  - {{members: [{model}, {model}]}}\n{lines}"
    )
    return config


def test_labels_are_those_of_the_classes_that_the_model_was_fitted_to(tmp_path: Path) -> None:
    config = load_config(_of_estimators(tmp_path, "build", "build"))
    entries, data, _ = compare_setup(config, tmp_path)
    assert data.classes == ("1", "2", "4")
    assert set(data.y.tolist()) == {0, 1, 2}
    assert len(entries) == 3
    for entry in entries.values():
        right = entry.model.labels(torch.from_numpy(data.x)).numpy() == data.y
        assert right.mean() > 0.9


@pytest.mark.parametrize(
    "factories", [("build", "places"), ("build", "fewer"), ("places", "build"), ("fewer", "build")]
)
def test_an_entry_to_whom_the_labels_mean_other_classes_is_refused(
    tmp_path: Path, factories: tuple[str, str]
) -> None:
    config = load_config(_of_estimators(tmp_path, *factories))
    with pytest.raises(WithstandError, match=r"compare\[1\]: its classes are .* same classes") as e:
        compare_setup(config, tmp_path)
    assert "\n" not in str(e.value)


def test_whoever_sees_less_of_the_model_attacks_with_less(tmp_path: Path) -> None:
    config = _of_estimators(tmp_path, "build")
    config.write_text(config.read_text().replace("sklearn,", "sklearn, access: labels,", 1))
    assert compare_setup(load_config(config), tmp_path).threat.access == "labels"


def test_the_schema_of_a_row_is_what_the_documentation_lists(found: Comparison) -> None:
    page = (Path(__file__).parents[1] / "docs/how-to/defend-and-compare.md").read_text()
    assert all(f"`{key}`" in page for key in found.rows[1].to_dict())


def test_alike_models_are_told_from_unlike_ones(digits: Any) -> None:
    other = TorchModel(planted.distilled(digits.net, torch.from_numpy(digits.data.x), steps=300))
    models = {"one": digits.model, "same": digits.model, "other": other}
    found = diversity(models, digits.data.head(30), THREAT)
    assert found.cosine["one", "same"].value == pytest.approx(1)
    assert found.cosine["one", "other"].value < 0.9
    assert found.disagreement["one", "same"].value == 0
    wrong = (digits.model.labels(torch.from_numpy(digits.data.x[:30]))
             != other.labels(torch.from_numpy(digits.data.x[:30]))).float().mean()  # fmt: skip
    assert found.disagreement["one", "other"].value == pytest.approx(float(wrong))
    assert found.transfer.rates["one"]["same"].value > found.transfer.rates["one"]["other"].value
    assert json.loads(json.dumps(found.to_dict()))["cosine"][0]["pair"] == ["one", "same"]
    assert workflows.diversity is diversity
