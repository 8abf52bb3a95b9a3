"""The pytest plugin in a project of its own, and the gate behind it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from processes import script, withstand

ROOT = Path(__file__).parents[1]

MODEL = """
import torch


def build():
    net = torch.nn.Linear(2, 2)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[-1.0, 0.0], [1.0, 0.0]]))
        net.bias.copy_(torch.tensor([0.5, -0.5]))
    return net
"""
DATA = """
import numpy as np

rng = np.random.default_rng(0)
y = rng.integers(0, 2, 120)
gap = np.where(np.arange(120) < 102, 0.2, 0.05)
x = np.stack([0.5 + np.where(y == 1, gap, -gap), rng.uniform(size=120)], 1).astype("float32")
"""
TESTS = """
import pytest

from data import x, y
from model import build


def test_ordinary():
    assert build()(__import__("torch").zeros(1, 2)).shape == (1, 2)


@pytest.mark.skip
def test_skipped():
    pass


@pytest.mark.slow
def test_slow():
    pass


@pytest.mark.robustness(robust_accuracy=0.75, eps=0.1, preset="smoke", trust="red")
def test_withstands(robustness):
    assert robustness(build(), (x, y)).robust_accuracy.value == pytest.approx(0.85)
"""
SAVE = "from data import x, y; import numpy; numpy.savez('data.npz', x=x, y=y)"
CONFIG = """
model: {kind: torch, factory: "model.py:build", domain: [0, 1]}
data: {kind: npz, path: data.npz}
threat: {region: {norm: linf, eps: 0.1}}
evaluate: {preset: smoke}
gate:
  robust_accuracy: {min: 0.6}
  adversarial_test_coverage: {min: 0.2}
  trust: {min: red}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "model.py").write_text(MODEL)
    (tmp_path / "data.py").write_text(DATA)
    (tmp_path / "test_project.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nfilterwarnings = error\naddopts = --strict-markers\nmarkers = slow\n"
    )
    return tmp_path


# The plugin as its entry point loads it, and no other of this environment.
PLUGINS = ("-q", "-p", "withstand._pytest", "-p", "no:cacheprovider")


def run_pytest(project: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return script(
        "import os, sys\n"
        "os.environ['PYTEST_DISABLE_PLUGIN_AUTOLOAD'] = '1'\n"
        f"sys.path.insert(0, {str(project)!r})\n"
        "import pytest\n"
        f"sys.exit(pytest.main({[*PLUGINS, *words]!r}))\n",
        project,
    )


def run_pytest_anew(project: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """In a process that has imported nothing before."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", *PLUGINS, *words],
        cwd=project,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(project)},
        capture_output=True,
        text=True,
    )


def counted(project: Path) -> dict[str, int]:
    told: dict[str, int] = json.loads((project / "robustness-coverage.json").read_text())
    return told


def test_tests_are_counted_and_the_gate_reads_the_count(project: Path) -> None:
    done = run_pytest(project, "--robustness-coverage", "-m", "not slow", "--junitxml=tests.xml")
    assert done.returncode == 0, done.stdout + done.stderr
    # Whoever leaves tests out by -m or -k has them all the same.
    assert counted(project) == {"tests": 4, "robustness": 1}
    assert '<property name="robustness" value="True"' in (project / "tests.xml").read_text()

    (project / "withstand.yaml").write_text(CONFIG)
    assert script(SAVE, project).returncode == 0
    done = withstand("gate", folder=project)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "25.0 %" in done.stdout

    (project / "robustness-coverage.json").write_text('{"tests": 10, "robustness": 1}')
    done = withstand("gate", folder=project)
    assert done.returncode == 1, done.stdout + done.stderr


@pytest.mark.slow
def test_the_count_is_the_same_on_several_processes(project: Path) -> None:
    text = TESTS.replace("def test_withstands(robustness):", "def test_withstands():")
    text = text[: text.index("    assert robustness(")] + "    pass\n"
    (project / "test_project.py").write_text(text)
    words = ("--robustness-coverage", "-m", "not slow")
    done = run_pytest_anew(project, "-p", "xdist.plugin", "-n", "2", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert counted(project) == {"tests": 4, "robustness": 1}


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("robust_accuracy=0.75", "robust_accuracy=0.95", "fail: robust_accuracy"),
        pytest.param(
            "robust_accuracy=0.75",
            "robust_accuracy=0.84",
            "inconclusive: robust_accuracy",
            marks=pytest.mark.slow,
        ),
        ("robust_accuracy=0.75", "robust_acuracy=0.75", "did you mean 'robust_accuracy'"),
        (", eps=0.1", "", "error: robustness: eps is missing; write e.g."),
        ("robust_accuracy=0.75, eps=0.1", "0.1", "0.1 has no name"),
        pytest.param("robust_accuracy=0.75, ", "", "asks for nothing", marks=pytest.mark.slow),
    ],
)
def test_what_is_not_certain_fails_the_test_in_words(
    project: Path, old: str, new: str, words: str
) -> None:
    (project / "test_project.py").write_text(TESTS.replace(old, new))
    done = run_pytest(project, "-k", "withstands")
    assert done.returncode == 1
    assert words in done.stdout
    assert "Traceback" not in done.stdout


def test_a_run_without_the_option_writes_nothing_and_imports_nothing_heavy(project: Path) -> None:
    (project / "test_project.py").write_text(
        "import sys\n\n\ndef test_light():\n"
        "    assert not {'torch', 'numpy', 'pydantic', 'scipy'} & set(sys.modules)\n"
    )
    done = run_pytest_anew(project)
    assert done.returncode == 0, done.stdout
    assert not (project / "robustness-coverage.json").exists()


def test_the_plugin_is_an_entry_point() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    assert declared["pytest11"] == {"withstand": "withstand._pytest"}
