"""Calibration of perturbation bounds: radii with intervals that cover, and one key rewritten."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import ndtri
from scipy.stats import binom, wasserstein_distance

from withstand._errors import ConfigError, DataError
from withstand.cli import main
from withstand.evaluate import calibration
from withstand.evaluate.calibration import (
    calibrate_pairs,
    calibrate_samples,
    judge,
    outside,
    price,
    read_samples,
    set_region,
)
from withstand.evaluate.calibration._largest import _left, _noise
from withstand.evaluate.calibration._rows import rows
from withstand.evaluate.calibration._shift import ranges
from withstand.stats import Ends, enough, quantile_interval, weighted_sum
from withstand.threat import Frozen, Linf

Z = float(ndtri(0.95))
Misses = dict[str, list[float]]


def test_public_surface() -> None:
    names = calibration.__all__
    assert sorted(names, key=lambda n: (n[0].islower(), n)) == names
    assert all(hasattr(calibration, name) for name in names)


@pytest.mark.parametrize(("n", "level"), [(50, 0.5), (200, 0.95), (1000, 0.9)])
def test_quantile_ends_lie_between_the_exact_order_statistics(n: int, level: float) -> None:
    """A sample of 1 to n makes every end the rank it stands for."""
    found = quantile_interval(np.arange(1, n + 1), level)
    for rank, exceeded in ((found.low, 0.025), (found.value, 0.5), (found.high, 0.975)):
        # The k-th of n exceeds the quantile if fewer than k values lie below it.
        below, above = (binom.cdf(k - 1, n, level) for k in (np.floor(rank), np.ceil(rank)))
        assert below - 1e-6 <= exceeded <= above + 1e-6


def test_few_values_bound_a_quantile_from_one_side_or_not_at_all() -> None:
    assert enough(0.95) == 72
    assert np.isinf(quantile_interval(np.arange(71), 0.95).high)
    assert quantile_interval(np.arange(72), 0.95).high <= 71
    assert quantile_interval(np.arange(71), 0.95).to_dict()["high"] is None
    with pytest.raises(DataError, match="give at least 14"):
        quantile_interval(np.arange(13), 0.95)


def test_weighted_sum_of_what_moves_together_and_apart() -> None:
    ends = Ends(np.array([1.0, 2.0]), np.array([0.0, 1.0]), np.array([4.0, 6.0]))
    apart = weighted_sum([1, 1], ends)
    assert (apart.low, apart.high) == (pytest.approx(3 - np.sqrt(2)), 3 + 5)
    together = weighted_sum([1, 1], ends, np.ones((2, 2)))
    assert (together.low, together.high) == (pytest.approx(1), pytest.approx(10))
    less = weighted_sum([1, -1], ends)
    assert less.low == pytest.approx(-1 - np.sqrt(1 + 16))


# Coverage


def _covered(name: str, draw: Any, truth: dict[str, float], sets: int) -> dict[str, float]:
    """For each norm the share of the data sets whose interval holds the truth."""
    rng = np.random.default_rng(11)
    found: Misses = {norm: [] for norm in truth}
    widths: Misses = {norm: [] for norm in truth}
    for _ in range(sets):
        radii = draw(rng)
        for norm, value in truth.items():
            found[norm].append(radii[norm].low <= value <= radii[norm].high)
            widths[norm].append(radii[norm].high - radii[norm].low)
    shares = {norm: float(np.mean(hits)) for norm, hits in found.items()}
    for norm, share in shares.items():
        width = float(np.median(widths[norm]))
        sys.stdout.write(
            f"{name:30s} {norm:5s} truth {truth[norm]:7.3f} covered {share:.3f} width {width:.3f}\n"
        )
    return shares


def _pairs(n: int, q: float, tail: str) -> tuple[Any, dict[str, float]]:
    if tail == "normal":
        # The length of two standard normals is Rayleigh's.
        truth = {"l2": float(np.sqrt(-2 * np.log(1 - q))), "linf": float(ndtri((1 + q**0.5) / 2))}

        def changes(rng: np.random.Generator) -> Any:
            return rng.normal(size=(n, 2))

    else:
        truth = {"linf": (1 - q) ** (-1 / 1.5) - 1}

        def changes(rng: np.random.Generator) -> Any:
            return rng.pareto(1.5, size=(n, 1))

    def draw(rng: np.random.Generator) -> Any:
        delta = changes(rng)
        return calibrate_pairs(np.zeros_like(delta), delta, coverage=q).radii

    return draw, truth


def _shifted(n: int, q: float, shift: float, stretch: float) -> tuple[Any, dict[str, float]]:
    """Four correlated normals, of which one stays; both ends tie where only shifts are."""
    z = float(ndtri((1 + q) / 2))
    mix = np.linalg.cholesky(0.5 * np.ones((4, 4)) + 0.5 * np.eye(4)).T
    moves, factors = np.array([shift, 1.5, 0.0, -2.5]), np.array([stretch, 1.0, 1.0, 1.0])
    sizes = np.abs(moves) + (factors - 1) * z

    def draw(rng: np.random.Generator) -> Any:
        first, second = (rng.normal(size=(n, 4)) @ mix for _ in range(2))
        found = calibrate_samples(first, second * factors + moves, coverage=q, transport=False)
        return {**found.radii, "first": found.columns[0].radius}

    truth = {
        "linf": float(sizes.max()),
        "l2": float(np.linalg.norm(sizes)),
        "l1": float(sizes.sum()),
        "first": float(sizes[0]),
    }
    return draw, truth


def _stretched(n: int, q: float) -> tuple[Any, dict[str, float]]:
    def draw(rng: np.random.Generator) -> Any:
        first, second = (np.exp(rng.normal(size=(n, 1))) for _ in range(2))
        return calibrate_samples(first, 3 * second, coverage=q, transport=False).radii

    return draw, {"linf": 2 * float(np.exp(ndtri((1 + q) / 2)))}


@pytest.mark.parametrize("case", [(50, 0.5, "normal"), (50, 0.95, "pareto"), (200, 0.95, "normal")])
def test_pairs_cover(case: tuple[int, float, str]) -> None:
    # 3 standard errors of a share of 300.
    shares = _covered(f"pairs {case}", *_pairs(*case), sets=300)
    assert all(abs(share - 0.95) < 0.038 for share in shares.values()), shares


def test_samples_cover() -> None:
    draw, truth = _shifted(200, 0.9, 1.0, 2.0)
    shares = _covered("samples", draw, truth, sets=100)
    assert all(abs(share - 0.95) < 0.07 for share in shares.values()), shares


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("tail", ["normal", "pareto"])
@pytest.mark.parametrize("q", [0.5, 0.95])
@pytest.mark.parametrize("n", [50, 200, 1000])
def test_pairs_cover_1000_data_sets(n: int, q: float, tail: str) -> None:
    name = f"pairs n {n} q {q} {tail}"
    shares = _covered(name, *_pairs(n, q, tail), sets=1000)
    assert all(0.93 <= share <= 0.97 for share in shares.values()), shares


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "case", [(200, 0.9, 1.0, 1.0), (200, 0.9, 1.0, 2.0), (1000, 0.95, 0.5, 1.5)]
)
def test_samples_cover_1000_data_sets(case: tuple[int, float, float, float]) -> None:
    shares = _covered(f"samples {case}", *_shifted(*case), sets=1000)
    assert all(0.93 <= share <= 0.97 for share in shares.values()), shares


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("n", "q"), [(200, 0.9), (1000, 0.95)])
def test_stretched_samples_cover_1000_data_sets(n: int, q: float) -> None:
    shares = _covered(f"stretched n {n} q {q}", *_stretched(n, q), sets=1000)
    assert all(0.93 <= share <= 0.97 for share in shares.values()), shares


@pytest.mark.parametrize(
    ("behind", "together", "error"),
    [
        ([0.0], 0.0, 0.025),
        # Alike and independent: both highs hardly ever fail, and of two lows 5 % may.
        ([0.0, 0.0], 0.0, 1 - 0.95**0.5),
        # As one: nothing is left over.
        ([0.0, 0.0], 1.0, 0.025),
        # Too far behind to have been the furthest.
        ([0.0, 20.0], 0.0, 0.025),
    ],
)
def test_low_ends_share_what_the_high_ends_leave_of_the_error(
    behind: list[float], together: float, error: float
) -> None:
    rng, z = np.random.default_rng(0), float(ndtri(0.975))
    common = rng.normal(size=(200_000, 1))
    noise = np.where(together, common, rng.normal(size=(200_000, len(behind))))
    value = 30 - np.array(behind)
    assert _left(noise, Ends(value, value - z, value + z), 0.025) == pytest.approx(error, rel=0.06)


def test_errors_of_the_ends_go_together_as_their_rows_do() -> None:
    rng = np.random.default_rng(4)
    one, other = (rng.normal(size=(400, 2)) for _ in range(2))
    both = rows(
        np.column_stack((one, one[:, 0], -one[:, 0])),
        np.column_stack((other, other[:, 0], -other[:, 0])) + np.array([3.0, 3.0, -3.0, 3.0]),
        None, None, coverage=0.9, paired=False,
    )  # fmt: skip
    middle = ranges(both, 0.9, 0.95)
    noise = _noise(both, middle, np.ones((2, 4), bool), seed=0)
    seen = np.corrcoef(noise.T)
    assert noise.std(0) == pytest.approx(1, abs=0.1)
    # A feature and its copy that moves the other way err in sizes as opposites, ends apart hardly.
    assert seen[0, 2] == pytest.approx(-1)
    assert abs(seen[0, 1]) < 0.2
    assert abs(seen[0, 4]) < 0.2
    # The lower end of a mirrored feature is the upper end mirrored.
    assert seen[4, 3] == pytest.approx(-1, abs=0.05)
    few = _noise(both, middle, np.eye(2, 4, dtype=bool), seed=0)
    assert few.shape == (1000, 2)


def test_no_change_is_seldom_taken_for_one() -> None:
    rng = np.random.default_rng(3)
    found = [
        calibrate_samples(rng.normal(size=(150, 3)), rng.normal(size=(150, 3)), transport=False)
        for _ in range(100)
    ]
    assert sum(each.moved for each in found) <= 10
    assert all(each.radii["linf"].low == 0 for each in found if not each.moved)


# Pairs


def test_pairs_that_all_change_alike_give_that_change() -> None:
    x = np.random.default_rng(0).integers(0, 9, size=(100, 4)).astype(float)
    found = calibrate_pairs(x, x + np.array([3.0, -4.0, 0.0, 0.0]))
    ends = {norm: (r.low, r.value, r.high) for norm, r in found.radii.items()}
    assert ends == {"linf": (4,) * 3, "l2": (5,) * 3, "l1": (7,) * 3, "l0": (2,) * 3}
    assert [column.radius and column.radius.value for column in found.columns] == [3, 4, 0, 0]
    assert [column.transport for column in found.columns] == [3, 4, 0, 0]


def test_radii_follow_units_and_not_the_order_of_rows() -> None:
    rng = np.random.default_rng(1)
    x, delta = rng.normal(size=(90, 3, 2)), rng.normal(size=(90, 3, 2))
    found = calibrate_pairs(x, x + delta).radii["l2"]
    scaled = calibrate_pairs(8 * x, 8 * (x + delta)).radii["l2"]
    assert scaled.value == pytest.approx(8 * found.value)
    assert scaled.high == pytest.approx(8 * found.high)
    order = rng.permutation(90)
    assert calibrate_pairs(x[order], (x + delta)[order]).radii["l2"] == found


def test_categories_count_for_l0_alone() -> None:
    x = np.zeros((100, 3))
    x_adv = np.column_stack([np.full(100, 0.5), np.full(100, 2.0), np.arange(100) % 4 == 0])
    x_adv[:, 2] *= 7
    kinds = ("continuous", "integer", "categorical")
    found = calibrate_pairs(x, x_adv, kinds=kinds, names=("a", "b", "c"))
    assert found.radii["linf"].value == 2
    assert found.radii["l1"].value == 2.5
    assert found.radii["l0"].value == 3
    assert found.columns[2].radius is None
    assert found.columns[2].flips is not None
    assert found.columns[2].flips.value == 0.25
    alone = calibrate_pairs(x[:, 2:], x_adv[:, 2:] + 1, kinds=("categorical",))
    assert set(alone.radii) == {"l0"}
    with pytest.raises(DataError, match="all features are categories"):
        judge(alone, "linf", 0.1)


def test_whole_numbers_get_whole_radii() -> None:
    rng = np.random.default_rng(2)
    x = rng.integers(0, 256, size=(120, 4))
    found = calibrate_pairs(x, x + rng.integers(-9, 10, size=x.shape))
    for column in found.columns:
        assert column.kind == "integer"
        assert column.radius is not None
        assert all(end == round(end) for end in (column.radius.low, column.radius.high))


def test_pairs_without_change_are_left_out_and_said() -> None:
    x = np.zeros((100, 2))
    x_adv = x + (np.arange(100) < 60)[:, None]
    found = calibrate_pairs(x, x_adv)
    assert found.n == (60,)
    assert "40 of 100 pairs do not differ" in found.notes[0]
    assert "60 pairs bound the 95 % quantile only from below; 72 give" in found.notes[1]
    assert json.loads(found.to_json())["radii"]["l2"]["high"] is None
    with pytest.raises(DataError, match="0 pairs differ"):
        calibrate_pairs(x, x)


@pytest.mark.parametrize(
    ("x", "x_adv", "message"),
    [
        (np.zeros((30, 2)), np.ones((29, 2)), "one attacked row for each original"),
        (np.zeros((30, 2)), np.ones((30, 3)), "give the same features"),
        (np.zeros((30, 2)), np.full((30, 2), np.nan), "first row 0"),
        (np.zeros(30), np.ones(30), "give rows of features"),
    ],
)
def test_what_cannot_be_compared_is_said(x: Any, x_adv: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        calibrate_pairs(x, x_adv)


# Unpaired samples


def test_a_shift_is_found_by_every_measure() -> None:
    x = np.random.default_rng(0).normal(size=(200, 3))
    found = calibrate_samples(x, x[::-1] + np.array([2.0, 0.0, 0.0]))
    assert found.columns[0].transport == pytest.approx(2)
    assert found.radii["linf"].value == pytest.approx(2)
    assert found.radii["l0"].value == 1
    assert [column.moved for column in found.columns] == [True, False, False]
    assert found.transport is not None
    # No assignment is shorter than the shift of the means, and this one is no longer than it.
    assert found.transport.distance == pytest.approx(2)
    assert found.transport.p_value == 0.01


def test_drift_of_nothing_is_not_judged() -> None:
    rng = np.random.default_rng(5)
    found = calibrate_samples(rng.normal(size=(200, 2)), rng.normal(size=(300, 2)), drift=True)
    assert not found.moved
    assert found.transport is not None
    assert found.transport.p_value > 0.05
    judged = judge(found, "linf", 0.1)
    assert judged.fit == "unknown"
    assert "no change is more than chance" in judged.meaning


def test_transport_of_one_feature_is_exact() -> None:
    rng = np.random.default_rng(6)
    a, b = rng.normal(size=(60, 2)), 3 * rng.normal(size=(80, 2))
    found = calibrate_samples(a, b, kinds=("continuous", "categorical"), transport=False)
    assert found.columns[0].transport == pytest.approx(wasserstein_distance(a[:, 0], b[:, 0]))
    assert found.columns[1].transport == pytest.approx(1)  # no two codes are equal
    flips = calibrate_samples(
        np.repeat([[0.0], [1.0]], 50, 0), np.repeat([[0.0], [1.0]], [20, 80], 0),
        kinds=("categorical",),
    )  # fmt: skip
    assert flips.columns[0].transport == pytest.approx(0.3)
    assert flips.columns[0].moved
    assert set(flips.radii) == {"l0"}


def test_too_few_rows_are_an_error_or_an_open_end() -> None:
    rng = np.random.default_rng(7)
    with pytest.raises(DataError, match="give at least 28 in each sample"):
        calibrate_samples(rng.normal(size=(27, 2)), rng.normal(size=(90, 2)))
    found = calibrate_samples(rng.normal(size=(60, 1)), rng.normal(size=(90, 1)) + 5)
    assert np.isinf(found.radii["linf"].high)
    assert 3 < found.radii["linf"].low < 5
    assert "72 in each sample" in found.notes[0]


# Judgement

REPORT = {
    "schema": "urn:withstand:report:1",
    "threat": {"norm": "linf", "eps": 0.1},
    "clean_accuracy": {"value": 0.9, "low": 0.8, "high": 0.95, "n": 50},
    "robust_accuracy": {"value": 0.5, "low": 0.4, "high": 0.6, "n": 50},
    "curve": [
        {"eps": eps, "robust_accuracy": {"value": v, "low": v, "high": v, "n": 50}}
        for eps, v in ((0.05, 0.7), (0.2, 0.2))
    ],
}


def test_a_radius_is_too_tight_too_loose_or_fits() -> None:
    x = np.zeros((100, 2))
    delta = np.random.default_rng(8).uniform(-0.1, 0.1, size=(100, 2))
    found = calibrate_pairs(x, x + delta)
    fits = {eps: judge(found, "linf", eps).fit for eps in (0.05, 0.2)}
    assert fits == {0.05: "too tight", 0.2: "too loose"}
    judged = judge(found, "linf", found.radii["linf"].value)
    assert judged.fit == "fits"
    assert judged.eps is not None
    assert judged.eps <= judged.advised < 1.02 * judged.eps
    assert judge(found, "l2", None).fit == "unknown"
    share = np.mean(np.abs(delta).max(1) > 0.08)
    assert outside(Linf(0.08), x, x + delta).value == pytest.approx(share)
    assert outside(Linf(0.2) & Frozen((0,)), x, x + delta).value == 1


def test_prices_come_from_the_curve_and_never_flatter() -> None:
    prices = price(REPORT, "linf", [0.01, 0.1, 0.15, 0.3])
    assert [p.robust_accuracy.value for p in prices] == [0.9, 0.5, 0.5, 0.2]
    assert [p.at for p in prices] == [0, 0.1, 0.1, 0.2]
    with pytest.raises(ConfigError, match="report is in norm linf"):
        price(REPORT, "l2", [0.1])


# The configuration

CONFIG = """\
# head, with a word in other letters: größe
model: {kind: python, factory: "model.py:f", domain: [0, 1]}   # m
data: {kind: sklearn, name: digits}
threat:
  access: scores
  region:   # what may change
    norm: 'linf'  # guessed
    eps:    8/255     # guessed too: eps: 8/255
evaluate: {preset: smoke}
"""


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_only_eps_and_norm_are_rewritten(tmp_path: Path, ends: str, mark: str) -> None:
    path = tmp_path / "withstand.yaml"
    text = mark + CONFIG.replace("\n", ends)
    path.write_bytes(text.encode())
    path.chmod(0o640)
    assert set_region(path, eps=0.25) == "8/255"
    expected = text.replace("eps:    8/255", "eps:    0.25")
    assert path.read_bytes().decode() == expected
    set_region(path, eps=3, norm="l0")
    assert path.read_bytes().decode() == text.replace("'linf'", "l0").replace(
        "eps:    8/255", "eps:    3"
    )
    assert path.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("8/255     #", "&r 0.1 #", "anchor"),
        ("evaluate: {preset", "evaluate: {preset", "1.5, more than model.domain spans"),
    ],
)
def test_what_cannot_be_rewritten_leaves_the_file(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    path = tmp_path / "withstand.yaml"
    text = CONFIG.replace(old, new)
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        set_region(path, eps=1.5)
    assert path.read_text() == text


def test_a_mapping_on_one_line_is_rewritten(tmp_path: Path) -> None:
    path = tmp_path / "withstand.yaml"
    text = CONFIG[: CONFIG.index("threat:")] + "threat: {region: {eps: 8/255, norm: l2}} # one\n"
    path.write_text(text)
    set_region(path, eps=0.5, norm="l2")
    assert path.read_text() == text.replace("8/255", "0.5")


def test_a_small_radius_is_read_back_as_a_number(tmp_path: Path) -> None:
    from withstand.config import load_config

    path = tmp_path / "withstand.yaml"
    path.write_text(CONFIG)
    set_region(path, eps=2e-7)
    assert load_config(path).threat.region.eps == 2e-7


# Files and the command


def _tables(folder: Path) -> None:
    rng = np.random.default_rng(9)
    for name, factor, chance in (("benign", 1, 0.5), ("suspected", 4, 0.9)):
        lines = ["amount,count,country,code"]
        for _ in range(160):
            amount, count = factor * rng.lognormal(), rng.poisson(5 * factor)
            lines.append(f"{amount:.4f},{count},{'de' if rng.random() < chance else 'fr'},7")
        (folder / f"{name}.csv").write_text("\n".join(lines))


def test_tables_of_mixed_types_are_read(tmp_path: Path) -> None:
    _tables(tmp_path)
    files = tmp_path / "benign.csv", tmp_path / "suspected.csv"
    found = read_samples(*files, categories=("code",), scale=10)
    assert found.names == ("amount", "count", "country", "code")
    assert found.kinds == ("continuous", "integer", "categorical", "categorical")
    plain = read_samples(*files)
    np.testing.assert_allclose(10 * found.first[:, 0], plain.first[:, 0])
    np.testing.assert_array_equal(found.first[:, 1], plain.first[:, 1])
    with pytest.raises(DataError, match="did you mean 'amount'"):
        read_samples(*files, columns=("amuont",))


def _run(*words: str) -> int:
    """The exit code of the command."""
    argv, sys.argv = sys.argv, ["withstand", "calibrate", *words]
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.argv = argv
    return 0


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    x = np.random.default_rng(4).uniform(size=(100, 3))
    np.savez("pairs.npz", x=x, x_adv=x + 0.25)
    Path("withstand.yaml").write_text(CONFIG)
    return tmp_path


def test_command_judges_prices_and_writes(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "withstand-report").mkdir()
    (project / "withstand-report" / "report.json").write_text(json.dumps(REPORT))
    assert _run("--pairs", "pairs.npz", "--write") == 0
    told, log = capsys.readouterr()
    assert "too tight" in told
    assert "lie outside the present region: 100.0 %" in told
    assert "Robust accuracy at 0.25, at most: 20.0 %" in told
    assert "was 8/255, is 0.25" in log
    assert "eps:    0.25     # guessed too" in Path("withstand.yaml").read_text()
    assert _run("--pairs", "pairs.npz", "--json") == 0
    values = json.loads(capsys.readouterr().out)
    assert values["judgement"]["fit"] == "fits"
    assert values["radii"]["linf"]["value"] == pytest.approx(0.25)


def test_command_evaluates_both_radii(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = "import numpy as np\ndef f():\n    return lambda x: np.stack([1-x[:,0], x[:,0]], 1)\n"
    Path("model.py").write_text(model)
    x = np.linspace(0.01, 0.99, 50)[:, None]
    np.savez("data.npz", x=x, y=(x[:, 0] > 0.5).astype(int))
    text = CONFIG.replace("{kind: sklearn, name: digits}", "{kind: npz, path: data.npz}")
    Path("withstand.yaml").write_text(text)
    pairs = np.zeros((100, 1))
    np.savez("pairs.npz", x=pairs, x_adv=pairs + 0.2)
    assert _run("--pairs", "pairs.npz", "--evaluate", "--json") == 0
    prices = json.loads(capsys.readouterr().out)["judgement"]["prices"]
    assert [p["radius"] for p in prices] == [pytest.approx(8 / 255), 0.2]
    # Whoever lies within the radius of the threshold is fooled.
    assert [p["robust_accuracy"]["value"] for p in prices] == [
        np.mean(np.abs(x - 0.5) > radius) for radius in (8 / 255, 0.2)
    ]


def test_command_reads_tables_without_a_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    _tables(tmp_path)
    assert _run("--benign", "benign.csv", "--suspected", "suspected.csv", "--json") == 0
    values = json.loads(capsys.readouterr().out)
    assert values["judgement"] is None
    assert [f["moved"] for f in values["features"]] == [True, True, True, False]
    text = Path("suspected.csv").read_text().replace("country", "land")
    Path("suspected.csv").write_text(text)
    assert _run("--benign", "benign.csv", "--suspected", "suspected.csv", "--json") == 0
    told = capsys.readouterr()
    assert len(json.loads(told.out)["features"]) == 3
    assert told.err == "not compared, as only one table has it: country, land\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "no samples are given; give --pairs, or --original and --attacked, where each"),
        (("--benign", "a.npz"), "--suspected is missing; give it beside --benign"),
        (("--after", "a.npz"), "--before is missing; give it beside --after"),
        (("--pairs", "pairs.npz", "--norm", "linff"), "did you mean 'linf'"),
        (("--pairs", "none.npz"), "none.npz not found"),
        (("--pairs", "pairs.npz", "--report", "withstand.yaml"), "is no report"),
        (("--pairs", "pairs.npz", "--coverage", "0.999"), "give at least 693"),
        (("--pairs", "pairs.npz", "--coverage", "1"), "coverage is 1; give a share"),
        (("--pairs", "pairs.npz", "--config", "no.yaml"), "no.yaml not found"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(
    project: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    assert _run(*words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert Path("withstand.yaml").read_text() == CONFIG
