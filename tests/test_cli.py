"""The command line as a user meets it: one process, its streams and its exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from processes import script
from processes import withstand as forked
from typer.core import TyperGroup
from typer.main import get_command

from withstand.cli import main
from withstand.cli._main import app
from withstand.cli._streams import interruptible, put
from withstand.config import template

MODEL = """
from torch import nn

def build():
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(128, 10)
    )
"""
CONFIG = """
model:
  kind: torch
  factory: model.py:build
  weights: weights.pt
  domain: [0, 1]
data:
  kind: npz
  path: digits.npz
  x: x_test
  y: y_test
  scale: 16
  layout: auto
  limit: 1000
threat:
  goal: untargeted
  access: gradients
  region: {norm: linf, eps: 0.1}
  queries: 5000
evaluate: {preset: smoke, seed: 0}
gate:
  robust_accuracy: {min: 0.85}
  trust: {min: amber}
"""


@pytest.fixture
def project(digits: Any, tmp_path: Path) -> Path:
    (tmp_path / "model.py").write_text(MODEL)
    torch.save(digits.net.state_dict(), tmp_path / "weights.pt")
    raw = np.rint(16 * digits.data.x[:, 0]).astype(np.uint8)
    np.savez(tmp_path / "digits.npz", x_test=raw, y_test=digits.data.y)
    (tmp_path / "withstand.yaml").write_text(CONFIG)
    return tmp_path


COMMAND = [sys.executable, "-c", "from withstand.cli import main; main()"]


def withstand(*words: str, folder: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """A forked process, or one from the shell where it needs surroundings of its own."""
    if not options:
        return forked(*words, folder=folder)
    return subprocess.run([*COMMAND, *words], cwd=folder, capture_output=True, text=True, **options)


def test_evaluate_prints_the_story_and_writes_the_files(project: Path) -> None:
    done = withstand("evaluate", folder=project)
    assert (done.returncode, done.stderr.count("\n")) == (0, 1), done.stderr
    assert "fools at least" in done.stdout
    out = project / "withstand-report"
    names = sorted(f.name for f in out.iterdir())
    assert names == ["adversarial.npz", "report.html", "report.json"]
    assert json.loads((out / "report.json").read_text())["robust_accuracy"]["n"] == 60


def test_json_is_all_there_is_on_standard_output(project: Path) -> None:
    model = project / "model.py"
    chatty = model.read_text().replace("def build():\n", "def build():\n    print('built')\n")
    model.write_text(f"print('imported')\n{chatty}")
    done = withstand("evaluate", "--json", "--output", "other", folder=project)
    report = json.loads(done.stdout)
    assert report == json.loads((project / "other" / "report.json").read_text())
    assert report["threat"]["queries"] == 5000
    assert report["provenance"]["model"]["digest"]
    assert done.stderr.startswith("imported\nbuilt\n")


def test_a_standard_output_that_was_closed_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with interruptible("start it again"):
        put("a result\n")


def test_only_results_go_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        sys.stdout.write("a word of the model\n")
        put("a result\n")
        thread = threading.Thread(target=put, args=("another\n",))
        thread.start()
        thread.join()
        raise KeyboardInterrupt

    with pytest.raises(typer.Exit), interruptible("start it again"):
        work()
    sys.stdout.write("after it\n")
    told = capsys.readouterr()
    assert told.out == "a result\nanother\nafter it\n"
    assert told.err == "a word of the model\ninterrupted; start it again\n"


def test_quiet_is_quiet_and_imports_no_compiler_and_no_name_is_too_much_for_a_terminal(
    project: Path,
) -> None:
    # A compiler takes longer to import than most evaluations of small models.
    kept = "\nimport atexit, sys\nfrom pathlib import Path\n"
    kept += "atexit.register(lambda: Path('imported').write_text('\\n'.join(sys.modules)))\n"
    (project / "model.py").write_text(MODEL + kept)
    config = project / "withstand.yaml"
    names = "  classes: [naïve, ζ, '[/b]', \"\\\\x1b[2J\", e, f, g, h, i, j]\n"
    config.write_text(config.read_text().replace("  limit: 1000\n", names), encoding="utf-8")
    done = withstand(
        "evaluate", "--quiet", folder=project, env={**os.environ, "PYTHONIOENCODING": "ascii"}
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "fools at least" in done.stdout
    assert "\x1b" not in done.stdout
    imported = (project / "imported").read_text().splitlines()
    assert "torch" in imported
    assert not {"torch._dynamo", "sympy"} & set(imported)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a full device")
def test_a_full_standard_output_is_one_line_and_keeps_the_files(project: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, "evaluate", "--json", "--quiet"],
            cwd=project,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 2
    assert done.stderr.startswith("error: standard output cannot be written: No space left")
    assert done.stderr.count("\n") == 1
    assert (project / "withstand-report" / "report.json").exists()


def test_a_reader_that_leaves_early_is_no_failure(project: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, "evaluate", "--quiet"],
        cwd=project,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert (process.stderr.read(), process.wait()) == ("", 0)
    process.stderr.close()


def test_demo_compares_two_models_in_json_and_on_a_page(tmp_path: Path) -> None:
    few = (
        "import functools, sys\n"
        "from withstand import workflows\n"
        "from withstand.workflows import _demo\n"
        "workflows.demo = functools.partial(workflows.demo, limit=40)\n"
        "_demo.evaluate = functools.partial(_demo.evaluate, preset='smoke')\n"
        "from withstand.cli import main\n"
        "sys.argv = ['withstand', 'demo', '--json']\nmain()\n"
    )
    done = script(few, tmp_path)
    assert done.returncode == 0, done.stderr
    reports = json.loads(done.stdout)
    standard, hardened = (reports[name] for name in ("standard", "hardened"))
    assert standard["clean_accuracy"]["value"] > 0.85
    assert hardened["robust_accuracy"]["low"] > standard["robust_accuracy"]["high"]
    html = (tmp_path / "withstand-demo" / "report.html").read_text()
    assert html.count("<polyline") == 2
    assert "hardened model gets right" in html
    assert html.count("shown to hardened") == 1


def test_init_writes_a_template_once(tmp_path: Path) -> None:
    assert withstand("init", folder=tmp_path).returncode == 0
    assert (tmp_path / "withstand.yaml").read_text() == template()
    again = withstand("init", folder=tmp_path)
    assert (again.returncode, again.stdout) == (2, "")
    assert again.stderr == "error: withstand.yaml is already there; use --force to overwrite it\n"
    assert withstand("init", "--force", folder=tmp_path).returncode == 0


def _break(project: Path, what: str) -> str:
    """Break the project in one way; returns words that the error must hold."""
    config = project / "withstand.yaml"

    def edit(old: str, new: str) -> None:
        assert old in config.read_text()
        config.write_text(config.read_text().replace(old, new))

    def data(**arrays: Any) -> None:
        with np.load(project / "digits.npz") as file:
            np.savez(project / "digits.npz", **{**file, **arrays})

    x = np.load(project / "digits.npz")["x_test"].astype(np.float32)
    match what:
        case "no configuration":
            config.unlink()
            return "withstand init"
        case "missing key":
            edit("  factory: model.py:build\n", "")
            return "factory"
        case "unknown key":
            edit("factory:", "factry:")
            return "did you mean 'factory'"
        case "no weights":
            (project / "weights.pt").unlink()
            return "weights.pt are not there"
        case "weights that do not fit":
            torch.save({"0.weight": torch.zeros(8, 1, 3, 3)}, project / "weights.pt")
            return "missing 0.bias"
        case "pickled model":
            torch.save(torch.nn.Linear(2, 2), project / "weights.pt")
            return "allow_pickle"
        case "broken factory":
            (project / "model.py").write_text("def build():\n    return 1 / 0\n")
            return "line 2 of model.py: ZeroDivisionError"
        case "normalised data":
            data(x_test=(x - 4) / 4)
            return "domain"
        case "NaN in data":
            data(x_test=np.where(x > 15, np.nan, x))
            return "NaN"
        case "labels out of range":
            data(y_test=np.arange(60) % 12)
            return "labels run from 0 to 11"
        case "one-hot labels":
            data(y_test=np.eye(10)[np.load(project / "digits.npz")["y_test"]])
            return "one-hot"
        case "target beyond the classes":
            edit("goal: untargeted", "goal: targeted\n  target: 10")
            return "target is 10, the model has 10 classes"
        case "regression of classes":
            edit("goal: untargeted", "goal: regression\n  tolerance: 0.1")
            return "the model gives 10; set goal to untargeted"
        case "multilabel of classes":
            edit("goal: untargeted", "goal: multilabel")
            return "a 0 or 1 for each"
        case "class order":
            data(y_test=9 - np.load(project / "digits.npz")["y_test"])
            return "chance is 10.0 %"
        case "empty data":
            data(x_test=x[:0], y_test=np.zeros(0, int))
            return "empty"
        case "zero budget":
            edit("seed: 0}", "seed: 0, seconds: 0}")
            return "seconds"
        case "unwritable output":
            (project / "withstand-report").write_text("")
            return "cannot be written"
        case "corrupted checkpoint":
            (project / "withstand-report").mkdir()
            (project / "withstand-report" / "checkpoint").write_bytes(b"withstand checkpoint 1\n?")
            return "damaged; delete it"
    raise AssertionError(what)


@pytest.mark.parametrize(
    "what",
    [
        *("no configuration", "missing key", "unknown key", "no weights", "pickled model"),
        *("weights that do not fit", "broken factory", "normalised data", "NaN in data"),
        *("one-hot labels", "target beyond the classes", "regression of classes"),
        *(
            "multilabel of classes",
            "labels out of range",
            "class order",
            "empty data",
            "zero budget",
        ),
        *("unwritable output", "corrupted checkpoint"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    what: str, project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    words = _break(project, what)
    before = sorted(project.rglob("*"))
    monkeypatch.chdir(project)
    monkeypatch.setattr(sys, "argv", ["withstand", "evaluate"])
    with pytest.raises(SystemExit) as end:
        main()
    out, err = capfd.readouterr()
    assert end.value.code == 2, err
    assert out == ""
    assert err.count("\n") == 1, err
    assert err.startswith("error: ")
    assert words in err, err
    left = [p for p in sorted(project.rglob("*")) if p not in before and p.is_file()]
    assert not [p for p in left if "__pycache__" not in p.parts]


def test_a_defect_of_ours_is_not_taken_for_a_missed_limit(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken() -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("withstand.cli._main.app", broken)
    with pytest.raises(SystemExit) as end:
        main()
    out, err = capfd.readouterr()
    assert (end.value.code, out) == (70, "")
    *_, last, told = err.splitlines()
    assert last == "ZeroDivisionError: division by zero"
    assert told.startswith("error: this is a defect of withstand")


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    code = (
        "import sys, time\n"
        "from withstand.cli import main\n"
        "sys.argv = ['withstand', '--help']\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "heavy = {'torch', 'numpy', 'sklearn', 'scipy', 'pydantic', 'PIL', 'jinja2'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "verbs = [name for name in sys.modules if name.startswith('withstand.cli._')]\n"
        "assert sorted(verbs) == ['withstand.cli._main', 'withstand.cli._streams'], verbs\n"
        "assert time.process_time() < 0.3, time.process_time()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "evaluate" in done.stdout


def test_the_help_says_of_every_verb_what_the_verb_itself_says() -> None:
    said = get_command(app)
    assert isinstance(said, TyperGroup)
    assert len(said.commands) == 20
    for verb, told in said.commands.items():
        _, command, _ = said.resolve_command(typer.Context(said), [verb])
        assert command is not told
        assert command is not None
        assert told.help == " ".join((command.help or "").split("\n\n")[0].split()), verb


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_kill_9_and_the_same_command_again_end_in_the_same_report(
    project: Path, without_seconds: Any
) -> None:
    config = project / "withstand.yaml"
    text = config.read_text().replace("preset: smoke", "preset: standard").replace("0.1", "0.03")
    config.write_text(text.replace("1000", "30"))
    # Every step is a checkpoint, so that the kill comes in the middle of an attack.
    eager = "\nimport withstand.attacks\nwithstand.attacks.Checkpoint.due = True\n"
    (project / "model.py").write_text(MODEL + eager)
    whole = withstand("evaluate", "--json", "--output", "whole", "--seconds", "999", folder=project)
    assert whole.returncode == 0, whole.stderr
    command = [*COMMAND, "evaluate", "--json", "--seconds", "999"]
    for _ in range(2):
        process = subprocess.Popen(
            command, cwd=project, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        file = project / "withstand-report" / "checkpoint"
        before = file.stat().st_mtime_ns if file.exists() else 0
        until = time.monotonic() + 60
        while time.monotonic() < until:
            if file.exists() and file.stat().st_mtime_ns > before:
                break
            time.sleep(0.01)
        time.sleep(0.3)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    resumed = withstand("evaluate", "--json", "--seconds", "999", folder=project)
    assert resumed.returncode == 0, resumed.stderr
    assert without_seconds(json.loads(resumed.stdout)) == without_seconds(json.loads(whole.stdout))
    assert not file.exists()


def test_ctrl_c_is_one_line_that_says_how_to_go_on(project: Path) -> None:
    config = project / "withstand.yaml"
    config.write_text(config.read_text().replace("preset: smoke", "preset: thorough"))
    _interrupted(project, once="withstand-report")


def test_ctrl_c_while_the_model_loads_ends_the_same_way(project: Path) -> None:
    waiting = "from pathlib import Path\nPath('here').touch()\nimport time\ntime.sleep(60)\n"
    (project / "model.py").write_text(waiting + MODEL)
    _interrupted(project, once="here")


def _interrupted(project: Path, once: str) -> None:
    """Ctrl-C once there is a file of that name."""

    def interrupt(process: int) -> None:
        until = time.monotonic() + 60
        while not (project / once).exists() and time.monotonic() < until:
            time.sleep(0.05)
        time.sleep(0.3)
        os.kill(process, signal.SIGINT)

    done = forked("evaluate", folder=project, meanwhile=interrupt)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "interrupted; the same command goes on from its checkpoint\n"


@pytest.mark.parametrize("command", ["evaluate", "harden", "gate", "certify"])
def test_an_error_before_the_work_leaves_no_folder_behind(tmp_path: Path, command: str) -> None:
    (tmp_path / "withstand.yaml").write_text(
        "model: {kind: torch, factory: 'gone.py:build', domain: [0, 1]}\n"
        "data: {kind: npz, path: data.npz}\nthreat: {region: {norm: linf, eps: 0.1}}\n"
        "harden: {output: made}\ncertify: {output: made}\n"
        "gate: {robust_accuracy: {min: 0.5}, output: made}\nevaluate: {output: made}\n"
    )
    done = withstand(command, folder=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert [one.name for one in tmp_path.iterdir()] == ["withstand.yaml"]
