"""Which attack to trust: the optimality measure, its budget, and the command."""

import json
import os
import re
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from processes import withstand
from rich.console import Console
from torch import nn

from withstand._errors import BudgetError, CheckpointError, ConfigError, DataError, ThreatError
from withstand.attacks import (
    APGD,
    DDN,
    FAB,
    FMN,
    PGD,
    Problem,
    RandomNoise,
    SparseRS,
    Square,
    registry,
)
from withstand.data import Dataset, from_arrays
from withstand.models import FunctionModel, TorchModel
from withstand.threat import L0, L2, Frozen, Linf, Targeted, Threat
from withstand.workflows import (
    AttackBench,
    bench_attacks,
    bench_page,
    in_norm,
    optimality,
    show_bench,
    to_json,
)
from withstand.workflows._bench_search import Search, sized

INF = np.inf
W = np.array([1.1, -0.4, 0.7, 0.2, -1.5, 0.6])
THREAT = Threat(region=Linf(0.1))


def test_optimality_of_four_inputs_by_hand() -> None:
    # Clean accuracy 3/4. Areas: best (0 + 1 + 2 + 4) / 4 = 7/4, nothing found 3/4 * 4 = 3.
    best = np.array([0.0, 1.0, 2.0, 4.0])
    assert optimality(best, best) == 1
    assert optimality([0, INF, INF, INF], best) == 0
    # (0 + 2 + 3 + 4) / 4 = 9/4: half a unit of the 5/4 there is room for.
    assert optimality([0, 2, 3, INF], best) == pytest.approx(0.6)
    # What lies beyond the best one's end counts as not found.
    assert optimality([0, 9, 2, 4], best) == optimality([0, INF, 2, 4], best) == pytest.approx(0.4)


def test_an_input_that_nobody_fools_says_nothing_about_an_attack() -> None:
    assert optimality([1, 3, INF], [1, 2, INF]) == optimality([1, 3, 2], [1, 2, INF])
    assert np.isnan(optimality([INF, INF], [INF, INF]))
    assert np.isnan(optimality([1.0], [1.0]))


def _linear(n: int = 12) -> tuple[TorchModel, Dataset, Any]:
    """Two classes in the middle of [0, 1]^6, and each input's lead of slope W."""
    rng, w = np.random.default_rng(0), W
    x = rng.uniform(0.4, 0.6, (n, len(W))).astype(np.float32)
    net = nn.Linear(len(W), 2)
    with torch.no_grad():
        net.weight.copy_(torch.tensor(np.stack((-w, w)) / 2))
        net.bias.copy_(torch.tensor([w.sum() / 4, -w.sum() / 4]))
    lead = x.astype(np.float64) @ w - w.sum() / 2
    return TorchModel(net), from_arrays(x, (lead > 0).astype(int)), np.abs(lead)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("attack", [PGD(steps=20), APGD(steps=20)], ids=["PGD", "APGD"])
def test_the_search_for_a_radius_ends_at_the_closed_form(norm: str, attack: PGD | APGD) -> None:
    model, data, lead = _linear()
    bench = bench_attacks(model, data, in_norm(THREAT, norm), attacks={"fixed": attack}, calls=500)
    nearest = lead / (np.abs(W).sum() if norm == "linf" else np.linalg.norm(W))
    found = bench["fixed"].distance
    assert (found >= nearest * (1 - 1e-5)).all()
    assert found == pytest.approx(nearest, rel=0.02)


def test_a_radius_that_is_a_number_of_features_ends_at_the_fewest() -> None:
    # The first feature decides alone; the three others do so together.
    def ask(x: Any) -> Any:
        lead = 3.5 * (x[:, 0] > 0.5) + x[:, 1:].sum(1)
        return np.stack((lead - 3.2, 3.2 - lead), 1)

    data = from_arrays(np.full((5, 4), 0.1, np.float32), np.ones(5, int))
    model = FunctionModel(ask, domain=(0, 1))
    bench = bench_attacks(model, data, Threat(region=L0(1)), attacks=["SparseRS"], calls=400)
    assert bench["SparseRS"].distance.tolist() == [1.0] * 5


def _right(digits: Any, n: int = 8) -> Dataset:
    first: Dataset = digits.data.head(n)
    return first


def test_a_strictly_worse_attack_ranks_lower(digits: Any) -> None:
    bench = bench_attacks(
        digits.model,
        _right(digits, 20),
        THREAT,
        attacks={"noise": RandomNoise(draws=5), "FAB": FAB(), "one step": FAB(steps=2)},
        calls=200,
    )
    order = [row.name for row in bench.attacks]
    assert order[0] == "best of all"
    assert order.index("FAB") < order.index("one step") < order.index("noise")
    assert bench["FAB"].optimality.low > bench["noise"].optimality.high
    assert bench.best.optimality.value == 1
    assert bench.cheapest.cost.forwards <= bench.strongest.cost.forwards
    every = np.stack([row.distance for row in bench.attacks[1:]])
    assert (bench.best.distance == every.min(0)).all()


@pytest.mark.parametrize("norm", ["linf", "l2", "l1", "l0"])
def test_no_attack_spends_more_than_it_may(digits: Any, norm: str) -> None:
    calls, x, y = 37, torch.from_numpy(digits.data.x[:6]), torch.from_numpy(digits.data.y[:6])
    ran = 0
    for name, kind in registry().items():
        if norm not in kind.norms or name == "Spatial":
            continue
        search = Search(
            model=digits.model,
            x=x,
            y=y,
            keys=torch.arange(6),
            threat=in_norm(THREAT, norm),
            calls=calls,
            seed=0,
            batch_size=64,
        )
        trail = search.run(sized(kind, calls))
        spent = trail.forwards + trail.backwards
        assert spent.max() <= calls, name
        assert all((when <= calls).all() for _, when, _ in trail.steps), name
        assert (trail.at(calls) == trail.distance).all(), name
        ran += 1
    assert ran >= 3


@pytest.mark.parametrize("attack", [Square(queries=20), SparseRS(queries=15), RandomNoise()])
def test_a_black_box_is_asked_no_more_than_is_told(digits: Any, attack: Any) -> None:
    asked = 0

    def ask(x: Any) -> Any:
        nonlocal asked
        asked += len(x)
        return digits.model.scores(torch.from_numpy(x)).numpy()

    data = _right(digits, 10)
    bench = bench_attacks(
        FunctionModel(ask, domain=(0, 1)), data, THREAT, attacks={"it": attack}, calls=100
    )
    # One clean answer each, and one look at each input to see what kind of answers they are.
    row = bench["it"]
    assert asked - 2 * len(data) == row.cost.forwards <= 100 * row.success.n
    assert row.cost.backwards == 0


def test_the_way_down_is_told_with_its_cost(digits: Any) -> None:
    bench = bench_attacks(
        digits.model, _right(digits), THREAT, attacks={"FMN": FMN(steps=50)}, calls=200
    )
    row = bench["FMN"]
    near = [point.near_best for point in row.spent]
    assert [point.calls for point in row.spent][-1] == 200
    assert near == sorted(near)
    assert near[0] == 0 < near[-1] == row.near_best
    medians = [point.median_distance for point in row.spent]
    assert medians == sorted(medians, reverse=True)
    assert medians[-1] == row.median_distance
    # Nothing is known after 50 of its steps that was not known after 100 calls.
    at = {point.calls: point for point in row.spent}
    assert at[200].near_best == max(p.near_best for c, p in at.items() if c <= 105)


def test_the_same_seed_gives_the_same_figures(digits: Any, without_seconds: Any) -> None:
    def figures(seed: int) -> Any:
        names = ["PGD", "FMN"]
        bench = bench_attacks(
            digits.model, _right(digits), THREAT, attacks=names, calls=40, seed=seed
        )
        return without_seconds(json.loads(to_json({"linf": bench})))

    first = figures(0)
    assert first == figures(0)
    assert first["linf"]["attacks"] != figures(1)["linf"]["attacks"]


def test_frozen_features_stay_and_the_radius_plays_no_part(digits: Any) -> None:
    frozen = Frozen(tuple(range(32)))
    free, half, other = (
        bench_attacks(digits.model, _right(digits), threat, attacks=["FAB"], calls=100)["FAB"]
        for threat in (
            Threat(region=L2(1)),
            Threat(region=L2(1) & frozen),
            in_norm(Threat(region=frozen & Linf(0.2)), "l2"),
        )
    )
    assert (half.distance >= free.distance * (1 - 1e-6)).all()
    assert half.distance.sum() > free.distance.sum()
    assert half.distance.tolist() == other.distance.tolist()


def test_an_interrupted_bench_goes_on_behind_what_was_done(
    digits: Any, tmp_path: Path, without_seconds: Any
) -> None:
    def go(**options: Any) -> AttackBench:
        names = ["APGD", "FMN"]
        return bench_attacks(
            digits.model, _right(digits), THREAT, attacks=names, calls=60, **options
        )

    class StopError(Exception):
        pass

    ran: list[str] = []

    def stop(now: Any) -> None:
        ran.append(now.stage)
        if now.stage == "FMN" and "stopped" not in ran:
            ran.append("stopped")
            raise StopError

    file = tmp_path / "checkpoint"
    with pytest.raises(StopError):
        go(checkpoint=file, progress=stop)
    assert file.exists()
    ran.append("again")
    resumed = go(checkpoint=file, progress=stop)
    assert "APGD" not in ran[ran.index("again") :]
    assert not file.exists()
    assert without_seconds(resumed.to_dict()) == without_seconds(go().to_dict())


def test_what_fits_is_chosen_by_norm_and_access(digits: Any) -> None:
    def names(threat: Threat) -> set[str]:
        bench = bench_attacks(digits.model, _right(digits, 4), threat, calls=10)
        return {row.name for row in bench.attacks}

    white, black = names(Threat(region=L0(3))), names(Threat(region=L0(3), access="scores"))
    assert {"SigmaZero", "FMN", "PDPGD", "evaluate's sweep"} <= white
    assert black == {"best of all", "RandomNoise", "SparseRS"}
    one = bench_attacks(
        digits.model, _right(digits, 4), Threat(region=L0(3)), attacks=["FMN", "DDN"], calls=10
    )
    assert one.left_out == {"DDN": "it is for l2, given gradients"}


@dataclass(frozen=True, kw_only=True)
class Refusing(FMN):
    """It takes no such data."""

    def init(self, problem: Problem) -> Any:
        raise DataError("these are no pictures")


def test_what_nobody_named_may_refuse(digits: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"FMN": FMN, "Refusing": Refusing}
    monkeypatch.setattr("withstand.workflows._bench.registry", lambda: known)
    bench = bench_attacks(digits.model, _right(digits, 4), THREAT, calls=20)
    assert bench.left_out == {"Refusing": "these are no pictures"}
    assert {row.name for row in bench.attacks} == {"best of all", "FMN", "evaluate's sweep"}
    with pytest.raises(DataError, match="no pictures"):
        bench_attacks(digits.model, _right(digits, 4), THREAT, attacks=["Refusing"], calls=20)


def test_a_checkpoint_of_other_samples_is_refused(digits: Any, tmp_path: Path) -> None:
    def stop(now: Any) -> None:
        if now.stage == "evaluate's sweep":
            raise KeyboardInterrupt

    def go(n: int, progress: Any = None) -> None:
        options = {"checkpoint": tmp_path / "checkpoint", "progress": progress}
        bench_attacks(digits.model, _right(digits, n), THREAT, attacks=["FMN"], calls=20, **options)

    with pytest.raises(KeyboardInterrupt):
        go(4, stop)
    with pytest.raises(CheckpointError, match="another model, data"):
        go(6)


def test_what_cannot_be_benched_says_so(digits: Any) -> None:
    data = _right(digits)
    with pytest.raises(ConfigError, match="did you mean 'FAB'"):
        bench_attacks(digits.model, data, THREAT, attacks=["FABB"])
    with pytest.raises(ThreatError, match="none of DDN fits norm l0"):
        bench_attacks(digits.model, data, Threat(region=L0(3)), attacks=["DDN"])
    with pytest.raises(BudgetError, match="calls is 1"):
        bench_attacks(digits.model, data, THREAT, calls=1)
    wrong = replace(data, y=(data.y + 1) % 10)
    with pytest.raises(DataError, match="clean accuracy"):
        bench_attacks(digits.model, wrong, THREAT)


def test_a_targeted_goal_leaves_out_what_is_already_there(digits: Any) -> None:
    target = int(digits.data.y[0])
    threat = Threat(region=L2(1), goal=Targeted(target))
    bench = bench_attacks(digits.model, _right(digits), threat, attacks={"DDN": DDN()}, calls=200)
    there = digits.data.y[:8] == target
    assert np.isinf(bench["DDN"].distance[there]).all()
    assert np.isfinite(bench["DDN"].distance[~there]).all()


def test_table_and_page_show_every_attack(digits: Any) -> None:
    data = _right(digits)
    benches = {
        norm: bench_attacks(
            digits.model, data, in_norm(THREAT, norm), attacks=["FAB", "FMN", "PGD"], calls=20
        )
        for norm in ("linf", "l2")
    }
    console = Console(width=80, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    show_bench(benches["linf"], console)
    console.file.close()
    text = console.export_text()
    page = bench_page(benches)
    for name in ("best of all", "FAB", "FMN", "PGD", "evaluate's sweep"):
        assert any(line.startswith(name) for line in text.splitlines())
        assert name.replace("'", "&#39;") in page
    assert max(map(len, text.splitlines())) <= 80
    # Four attacks in two charts and the best in one, for two norms.
    assert page.count("<polyline") == 2 * (4 + 5)
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")
    assert len(set(re.findall(r'id="([^"]+)"', page))) == 4


def _command(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return withstand("bench", "attacks", *words, folder=folder)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "model.py").write_text(
        "import torch\n\n\ndef build():\n    torch.manual_seed(0)\n"
        "    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3))\n"
        "    return net\n"
    )
    x = np.random.default_rng(0).uniform(0, 1, (30, 4)).astype(np.float32)
    torch.manual_seed(0)
    y = nn.Linear(4, 3)(torch.from_numpy(x)).argmax(1).numpy()
    np.savez(tmp_path / "data.npz", x=x, y=y)
    (tmp_path / "withstand.yaml").write_text(
        "model: {kind: torch, factory: model.py:build, domain: [0, 1]}\n"
        "data: {kind: npz, path: data.npz, x: x, y: y}\n"
        "threat: {region: {norm: linf, eps: 0.1}}\n"
    )
    return tmp_path


def test_the_command_prints_json_and_writes_both_files(project: Path) -> None:
    done = _command(
        *("--json", "--norm", "linf,l2", "--attacks", "FMN,PGD"),
        *("--samples", "10", "--calls", "60", "--seed", "3"),
        folder=project,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert list(told) == ["linf", "l2"]
    assert (told["l2"]["seed"], told["l2"]["calls"]) == (3, 60)
    assert told["l2"]["provenance"]["samples"] == 10
    out = project / "withstand-bench"
    assert sorted(f.name for f in out.iterdir()) == ["bench.html", "bench.json"]
    assert told == json.loads((out / "bench.json").read_text())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--attacks", "FABB"), "did you mean 'FAB'"),
        (("--norm", "l7"), "it is one of linf, l2, l1, l0"),
        (("--access", "root"), "threat.access is 'root'"),
    ],
)
def test_bad_words_are_one_line_and_exit_code_2(
    words: tuple[str, ...], says: str, project: Path
) -> None:
    done = _command(*words, folder=project)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert says in done.stderr
