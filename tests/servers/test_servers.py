"""Models behind real servers: the same answers, exact counts, errors of one line, going on."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
import torch
import yaml
from sklearn.linear_model import LogisticRegression

from withstand._errors import BudgetError, ModelError
from withstand.attacks import CGBA, Square, run
from withstand.data import load_sklearn
from withstand.models import HttpModel, HttpSettings
from withstand.threat import L2, Linf, Threat

if TYPE_CHECKING:
    from .conftest import Server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

DATA = load_sklearn("digits")
X = torch.from_numpy(DATA.x[1500:].reshape(-1, 64))


class Kind(NamedTuple):
    """How a server names things, and what it says to what it cannot take."""

    input: str
    scores: str
    labels: str
    binary: bool
    shape: str
    output: str


KINDS = {
    "mlserver": Kind(
        "input-0", "predict_proba", "predict", False,
        "500: ValueError: X has 60 features", "400: SKLearnModel only supports",
    ),
    "kserve": Kind(
        "pixels", "scores", "label", True,
        "500: ValueError : X has 60 features", "400: Unexpected inference output 'nope'",
    ),
    "triton": Kind(
        "pixels", "scores", "label", True,
        r"400: .* unexpected shape .* Expected \[-1,64\], got \[8,60\]",
        "400: unexpected inference output 'nope'",
    ),
}  # fmt: skip


@pytest.fixture
def kind(server: Server) -> Kind:
    return KINDS[server.name]


@pytest.fixture
def model(server: Server, kind: Kind) -> Callable[..., HttpModel]:
    """Makes a model that asks the server."""

    def made(access: Any = "scores", **settings: Any) -> HttpModel:
        output = kind.scores if access == "scores" else kind.labels
        named = {"name": "digits", "input": kind.input, "output": output, "batch": 8, "pause": 0.1}
        return HttpModel(server.url, HttpSettings(**{**named, **settings}), access=access)

    return made


def told(words: str, ask: Callable[[], Any], error: type[Exception] = ModelError) -> str:
    with pytest.raises(error, match=words) as caught:
        ask()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("format", ["v2", "v2-binary"])
def test_answers_are_those_of_the_estimator(
    model: Callable[..., HttpModel], kind: Kind, classifier: LogisticRegression, format: str
) -> None:
    if format == "v2-binary" and not kind.binary:
        pytest.skip("this server takes no binary tensors")
    scores, labels = model(format=format), model("labels", format=format)
    expected = classifier.predict_proba(X.numpy())
    np.testing.assert_allclose(scores.scores(X).numpy(), expected, rtol=0, atol=1e-6)
    assert np.array_equal(labels.labels(X).numpy(), classifier.predict(X.numpy()))
    assert scores.sent == labels.sent == len(X)


def test_binary_tensors_are_refused_with_the_fix(
    model: Callable[..., HttpModel], kind: Kind
) -> None:
    if kind.binary:
        pytest.skip("this server takes binary tensors")
    for x in (X, torch.zeros_like(X)):
        told(
            r"answered (422|500): .*; .*set model.http.format: v2 if it takes no binary tensors",
            lambda x=x: model(format="v2-binary").scores(x),
        )


def test_what_a_server_refuses_is_one_line(model: Callable[..., HttpModel], kind: Kind) -> None:
    told(f"answered {kind.shape}", lambda: model().scores(X[:8, :60]))
    told("answered 404: .*nope.*correct model.url", lambda: model(name="nope").scores(X[:8]))
    told(f"answered {kind.output}", lambda: model(output="nope").scores(X[:8]))
    told("serve scores with decimals", lambda: model(output=kind.labels).scores(X[:8]))
    told(r"it must give labels \[8\]", lambda: model("labels", output=kind.scores).labels(X[:8]))
    broken = HttpSettings(format="template", request={"input": "$batch"}, reply="outputs")
    asked = HttpModel(f"{model().url}", broken)
    told("answered (422|500): .*(inputs|input)", lambda: asked.scores(X[:8]))


def test_an_attack_by_labels_keeps_its_books(
    model: Callable[..., HttpModel], classifier: LogisticRegression
) -> None:
    x = X[classifier.predict(X.numpy()) == DATA.y[1500:]][:4]
    y = torch.from_numpy(classifier.predict(x.numpy()))
    threat = Threat(region=L2(np.inf), access="labels", queries=100)
    asked = model("labels", queries=400)
    found = run(CGBA(queries=100), asked, x, y, threat)
    assert asked.sent == int(found.ledger.forwards.sum()) <= 400
    assert (found.ledger.forwards <= 100).all()
    assert found.success.all()
    assert (classifier.predict(found.x_adv.numpy()) != y.numpy()).all()
    assert 0 < found.distance.median() < 2
    capped = model("labels", queries=50)
    told("queries is 50", lambda: run(CGBA(queries=100), capped, x, y, threat), BudgetError)
    assert capped.sent <= 50


def test_a_served_attack_is_the_local_one(
    model: Callable[..., HttpModel], classifier: LogisticRegression
) -> None:
    x = X[:4]
    y = torch.from_numpy(classifier.predict(x.numpy()))
    threat = Threat(region=Linf(0.02), access="scores", queries=60)
    asked = model()
    found = run(Square(queries=60), asked, x, y, threat)
    assert asked.sent == int(found.ledger.forwards.sum())
    assert (found.ledger.forwards[~found.success] == 60).all()
    assert (found.distance[found.success] <= 0.02).all()
    assert (classifier.predict(found.x_adv.numpy()) != y.numpy())[found.success].all()


def test_a_killed_server_costs_no_work(
    server: Server, kind: Kind, tmp_path: Path, without_seconds: Callable[[Any], Any]
) -> None:
    np.savez(tmp_path / "digits.npz", x=X[:16].numpy(), y=DATA.y[1500:1516])
    http = {"name": "digits", "input": kind.input, "output": kind.scores, "pause": 0.05}
    config = {
        "model": {"kind": "http", "url": server.url, "http": {**http, "retries": 1}},
        "data": {"kind": "npz", "path": "digits.npz", "layout": "none"},
        # Nothing is fooled, so that the attacks spend all they may.
        "threat": {
            "access": "scores", "region": {"norm": "linf", "eps": 0.001}, "queries": 150,
        },
        "evaluate": {"preset": "smoke"},
    }  # fmt: skip
    (tmp_path / "whole.yaml").write_text(yaml.safe_dump(config))
    # Slow enough for a checkpoint, which is written every 5 s.
    config["model"]["http"]["rate"] = 20  # type: ignore[index]
    (tmp_path / "withstand.yaml").write_text(yaml.safe_dump(config))

    def command(name: str, output: str) -> list[str]:
        here = [sys.executable, "-c", "from withstand.cli import main; main()", "evaluate"]
        return [*here, "--config", str(tmp_path / name), "--output", str(tmp_path / output)]

    def report(output: str) -> Any:
        found = without_seconds(json.loads((tmp_path / output / "report.json").read_text()))
        return {key: found[key] for key in ("robust_accuracy", "attacks", "samples", "curve")}

    whole = subprocess.run(command("whole.yaml", "whole"), capture_output=True, text=True)
    assert whole.returncode in (0, 1, 3), whole.stderr
    checkpoint = tmp_path / "broken" / "checkpoint"
    with subprocess.Popen(
        command("withstand.yaml", "broken"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as broken:
        until = time.monotonic() + 60
        while not checkpoint.exists() and broken.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        server.kill()
        _, said = broken.communicate(timeout=60)
    try:
        assert broken.returncode == 2, said
        last = said.decode().strip().splitlines()[-1]
        assert last.startswith(f"error: {server.url}")
        assert "start the server" in last or "closed the connection" in last
        assert checkpoint.exists()
    finally:
        server.start()
    again = subprocess.run(command("withstand.yaml", "broken"), capture_output=True, text=True)
    assert again.returncode == whole.returncode, again.stderr
    assert report("broken") == report("whole")
    assert not checkpoint.exists()
