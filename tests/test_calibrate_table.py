"""The largest changes that a table's file allows, against what was observed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from processes import withstand

from withstand._errors import ConfigError, DataError
from withstand.data import load_table
from withstand.evaluate.calibration import (
    calibrate_pairs,
    calibrate_samples,
    judge_columns,
    read_samples,
    set_most,
)

TABLE = """\
# what can be done: größe
features:
  amount: {lower: 0, upper: 500, step: 0.01}  # money
  count:
    lower: 0   # from here
    upper: 1000
    integer: true
    most: 2    # too few
  country: {values: [de, fr]}
  code: {change: none}
  age: {change: none}
  sum:
derived: {sum: amount + count}
"""
CONFIG = """\
model: {kind: python, factory: "model.py:f"}
data: {kind: csv, path: benign.csv, table: table.yaml, y: country}
threat: {access: scores}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COLUMNS", "200")
    rng = np.random.default_rng(9)
    for name, factor in (("benign", 1), ("suspected", 4)):
        lines = ["amount,count,country,code,age,sum"]
        for _ in range(160):
            amount, count = factor * rng.lognormal(), rng.poisson(5 * factor)
            age = round(rng.normal(40 + 5 * factor, 9))
            code = rng.integers(7, 10)
            lines.append(f"{amount:.2f},{count},de,{code},{age},{amount + count:.2f}")
        (tmp_path / f"{name}.csv").write_text("\n".join(lines))
    (tmp_path / "table.yaml").write_text(TABLE)
    (tmp_path / "withstand.yaml").write_text(CONFIG)
    return tmp_path


def test_each_column_is_judged_by_what_the_file_allows(project: Path) -> None:
    samples = read_samples(project / "benign.csv", project / "suspected.csv")
    options: Any = {"names": samples.names, "kinds": samples.kinds}
    found = calibrate_samples(samples.first, samples.second, **options)
    fits = {one.name: one for one in judge_columns(found, load_table(project / "table.yaml"))}
    # What follows from others, categories, and what does not move are not there.
    assert list(fits) == ["amount", "count", "age"]
    assert [one.fit for one in fits.values()] == ["too loose", "too tight", "too tight"]
    amount, count, age = fits.values()
    assert amount.advised is not None
    assert amount.observed.value <= amount.advised <= 1.01 * amount.observed.value
    assert count.advised == round(count.observed.value)
    assert (count.most, age.advised) == (2, None)
    assert "nobody changes it" in age.fix


@pytest.mark.parametrize(
    ("feature", "moved", "fit", "words"),
    [
        ("{lower: 0, upper: 100, most: 10}", 10.0, "fits", "none needed"),
        ("{lower: 0, upper: 100, most: 5}", 10.0, "too tight", "set most to 10"),
        ("{lower: 0, upper: 100, most: 20}", 10.0, "too loose", "set most to 10"),
        ("{lower: 0, upper: 100, most: 20, step: 4}", 10.0, "too loose", "set most to 12"),
        ("{lower: 0, upper: 100}", 10.0, "too loose", "set most to 10"),
        ("{lower: 0, upper: 10}", 10.0, "fits", "none needed"),
        ("{lower: 0, upper: 8}", 10.0, "too tight", "widen lower and upper"),
        ("{lower: 0, upper: 100, share: 0.5}", 10.0, "unknown", "limited by share"),
        ("{lower: 0, upper: 100, change: none}", 10.0, "too tight", "nobody changes it"),
    ],
)
def test_a_fit_follows_from_limit_range_and_direction(
    feature: str, moved: float, fit: str, words: str, tmp_path: Path
) -> None:
    (tmp_path / "t.yaml").write_text(f"features: {{a: {feature}}}")
    x = np.zeros((100, 1))
    found = calibrate_pairs(x, x + moved, names=("a",))
    (one,) = judge_columns(found, load_table(tmp_path / "t.yaml"))
    assert (one.fit, words in one.fix) == (fit, True)
    assert (one.advised is None) == (not one.fix.startswith("set most"))


def test_rows_without_names_are_taken_in_the_order_of_the_table(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text("features: {a: {change: none}, b: {lower: 0, upper: 9}}")
    table = load_table(tmp_path / "t.yaml")
    x = np.zeros((100, 2))
    (one,) = judge_columns(calibrate_pairs(x, x + np.array([0.0, 1.0])), table)
    assert (one.name, one.advised) == ("b", 1)
    with pytest.raises(DataError, match="have 3 features, the table's file 2"):
        judge_columns(calibrate_pairs(np.zeros((100, 3)), np.ones((100, 3))), table)
    with pytest.raises(DataError, match="none of the columns is in the table's file, which has a"):
        judge_columns(calibrate_pairs(x, x + 1, names=("c", "d")), table)


def test_the_command_writes_the_largest_changes_and_nothing_else(project: Path) -> None:
    words = ("calibrate", "--benign", "benign.csv", "--suspected", "suspected.csv")
    looked = withstand(*words, folder=project)
    assert (looked.returncode, looked.stderr) == (0, "")
    assert "too tight" in looked.stdout
    assert (project / "table.yaml").read_text() == TABLE
    done = withstand(*words, "--write", "--json", folder=project)
    assert done.returncode == 0, done.stderr
    told = {one["name"]: one for one in json.loads(done.stdout)["columns"]}
    amount, count = (f"{told[name]['advised']:g}" for name in ("amount", "count"))
    assert f"most of count was 2, is {count}" in done.stderr
    assert f"most of amount was not there, is {amount}" in done.stderr
    expected = TABLE.replace("step: 0.01}", f"step: 0.01, most: {amount}}}")
    assert (project / "table.yaml").read_text() == expected.replace("most: 2", f"most: {count}")
    again = withstand(*words, "--write", folder=project)
    assert "nothing is written" in again.stderr
    scaled = withstand(*words, "--scale", "2", folder=project)
    assert (scaled.returncode, "take it out" in scaled.stderr) == (2, True)
    priced = withstand(*words, "--evaluate", folder=project)
    assert (priced.returncode, "take --evaluate and --report out" in priced.stderr) == (2, True)


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("a: {lower: 0}", "a: {lower: 0, most: 2.5}"),
        ("a: {lower: 0, }", "a: {lower: 0, most: 2.5, }"),
        ("a: {}", "a: {most: 2.5}"),
        ("a: {most: '7'} # x", "a: {most: 2.5} # x"),
        ("a:\n    lower: 0 # y", "a:\n    most: 2.5\n    lower: 0 # y"),
        ("a: # nothing said", "a: {most: 2.5} # nothing said"),
        ("a: ~", "a: {most: 2.5}"),
        ("'a': {lower: 0}", "'a': {lower: 0, most: 2.5}"),
    ],
)
def test_every_way_to_write_a_feature_is_rewritten(
    old: str, new: str, ends: str, tmp_path: Path
) -> None:
    path = tmp_path / "t.yaml"
    rest = "\n  b: {change: none}\n"
    # What may change needs a range; these are read as yaml alone.
    text = f"features:\n  {old}{rest}".replace("\n", ends)
    path.write_bytes(text.encode())
    set_most(path, {"a": 2.5})
    assert path.read_bytes().decode() == f"features:\n  {new}{rest}".replace("\n", ends)
    assert yaml.safe_load(path.read_text())["features"]["a"]["most"] == 2.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("features: {a: &same {lower: 0}, b: *same}", "shared"),
        ("features: {a: {most: &m 2}, b: {most: *m}}", "shared"),
        ("features: {b: {lower: 0}}", "features has no a"),
    ],
)
def test_what_is_shared_or_missing_leaves_the_file(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        set_most(path, {"a": 2.5})
    assert path.read_text() == text
