"""kill -9 in the middle of an attack on a table or of its proofs, and the same command again."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import tables
from processes import withstand

# Every step is a checkpoint; with a file `die`, the model ends its process at that question.
MODEL = """
import os, signal
from pathlib import Path
import numpy as np
from sklearn.ensemble import GradientBoostingClassifier
from withstand import attacks

attacks.Checkpoint.due = True
asked = 0


class GradientBoostingMortal(GradientBoostingClassifier):
    def predict_proba(self, x):
        global asked
        asked += 1
        if Path("die").exists() and asked == int(Path("die").read_text()):
            os.kill(os.getpid(), signal.SIGKILL)
        if Path("count").exists():
            Path("count").write_text(str(asked))
        return super().predict_proba(x)


def build():
    draw = np.random.default_rng(0)
    x = draw.uniform(0, 1, (400, 7)) * [900, 90, 5, 90, 1, 1, 50]
    y = x[:, 0] / 9 - x[:, 1] + 8 * x[:, 2] + draw.normal(0, 5, 400) > 30
    return GradientBoostingMortal(n_estimators=12, max_depth=3, random_state=0).fit(x, y)
"""
CONFIG = """
model: {kind: sklearn, factory: model.py:build}
data: {kind: csv, path: rows.csv, y: fraud, table: table.yaml}
threat: {access: scores, region: {most_changed: 3}}
evaluate: {preset: smoke}
certify: {method: trees, seconds: 60}
"""
TABLE = """
features:
  amount: {lower: 0.5, upper: 1000, step: 0.01, share: 0.9}
  age: {change: increase, integer: true, lower: 0, upper: 90}
  code: {integer: true, lower: 0, upper: 5}
  fee: {lower: 0, upper: 100}
  ios: {lower: 0, upper: 1}
  android: {lower: 0, upper: 1}
  ratio: {}
choices:
  - columns: [ios, android]
derived:
  ratio: amount / max(age, 1)
relations:
  - amount + 2 * fee <= 900
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "model.py").write_text(MODEL)
    (tmp_path / "withstand.yaml").write_text(CONFIG)
    (tmp_path / "table.yaml").write_text(TABLE)
    rows = tables.rows(8, 5)
    score = rows[:, 0] / 9 - rows[:, 1] + 8 * rows[:, 2]
    lines = [
        ",".join([*(f"{value:.9g}" for value in row), str(int(one > 30))])
        for row, one in zip(rows, score, strict=True)
    ]
    head = ",".join([*tables.NAMES, "fraud"])
    (tmp_path / "rows.csv").write_text("\n".join([head, *lines]) + "\n")
    return tmp_path


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("command", "file"), [("evaluate", "checkpoint"), ("certify", "certify-checkpoint")]
)
def test_a_table_ends_in_the_same_json_as_if_nothing_had_killed_it(
    command: str, file: str, project: Path, without_seconds: Any
) -> None:
    words = (command, "--json", "--quiet")
    (project / "count").touch()
    whole = withstand(*words, "--output", "whole", folder=project)
    assert whole.returncode == 0, whole.stderr
    total = int((project / "count").read_text())
    kept = project / "withstand-report" / file
    (project / "die").write_text(str(int(total * 0.6)))
    assert withstand(*words, folder=project).returncode == -signal.SIGKILL
    assert kept.exists()
    (project / "die").unlink()
    again = withstand(*words, folder=project)
    assert again.returncode == 0, again.stderr
    # Fewer questions than from the beginning.
    assert int((project / "count").read_text()) < 0.8 * total
    assert not kept.exists()
    told, wanted = (json.loads(run.stdout) for run in (again, whole))
    assert without_seconds(told) == without_seconds(wanted)
